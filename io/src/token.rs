//! Tokens: who a player is, said by whoever has the key (row W1).
//!
//! A token is a JSON Web Token: `sub` is the player's name, `aud` the audience that
//! the server is configured for, `exp` when it expires, and optionally `nbf` and `iss`.
//! Its header names the key (`kid`), so that keys can be rotated: a server checks with
//! several keys and an issuer signs with one.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use skirmish_core::id::{Name, NameError};
use skirmish_core::registrar::key_fingerprint;
use skirmish_core::time::Wall;

use crate::config::{Algorithm, Auth, TokenKey};

/// Shortest secret for HS256, in bytes: as long as its hash.
pub(crate) const MIN_SECRET: usize = 32;
/// Longest token, in bytes.
const MAX_TOKEN: usize = 4 * 1024;

/// Why a token is refused. The text of each is safe to tell the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is not a token, or lacks a claim, or is too long.
    Malformed,
    /// No key that this server has made it, or it was changed.
    Forged,
    /// It was good until its `exp`.
    Expired,
    /// It is not good before its `nbf`.
    NotYetValid,
    /// It is for another audience.
    WrongAudience,
    /// It is from another issuer.
    WrongIssuer,
    /// Its `sub` is not a name that a player can have.
    BadPlayer(NameError),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed",
            Self::Forged => "the token's signature is not of a known key",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::WrongAudience => "the token is for another audience",
            Self::WrongIssuer => "the token is from another issuer",
            Self::BadPlayer(error) => return write!(f, "the token's player is no name: {error}"),
        })
    }
}

impl std::error::Error for TokenError {}

/// Why keys cannot be used. On one line, without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// The `id` of the key.
    pub id: String,
    /// What is wrong, with the file's name.
    pub problem: String,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key `{}`: {}", self.id, self.problem)
    }
}

impl std::error::Error for KeyError {}

/// The keys of a server or an issuer, with what the claims must be.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Key>,
    signing: Option<String>,
    audience: String,
    issuer: Option<String>,
    leeway: Duration,
}

struct Key {
    id: String,
    algorithm: jsonwebtoken::Algorithm,
    verifying: DecodingKey,
    signing: Option<EncodingKey>,
    fingerprint: u64,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The claims as they are signed.
#[derive(Serialize)]
struct Signed<'a> {
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// The claims as they are checked. Times may have fractions.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    iss: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Keys {
    /// Reads the configured keys.
    ///
    /// # Errors
    /// If a file cannot be read, is no such key, or a secret is too short.
    pub fn load(auth: &Auth) -> Result<Self, KeyError> {
        Ok(Self {
            keys: auth.keys.iter().map(Key::load).collect::<Result<_, _>>()?,
            signing: auth.signing.clone(),
            audience: auth.audience.clone(),
            issuer: auth.issuer.clone(),
            leeway: auth.leeway,
        })
    }

    /// One HS256 key, for tests, bots and development; audience and the rest as by
    /// default.
    ///
    /// # Errors
    /// If the secret is shorter than 32 bytes.
    pub fn from_secret(id: &str, secret: &[u8]) -> Result<Self, KeyError> {
        Self::load(&Auth::default())?.with_secret(id, secret)
    }

    /// These keys and one more for HS256.
    ///
    /// # Errors
    /// If the secret is shorter than 32 bytes.
    pub fn with_secret(mut self, id: &str, secret: &[u8]) -> Result<Self, KeyError> {
        let key = Key::hs256(id, secret).map_err(|problem| KeyError { id: id.to_owned(), problem })?;
        self.keys.push(key);
        Ok(self)
    }

    /// Whether there is no key, so that every token is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What other nodes may know of the keys that tokens are checked with.
    pub(crate) fn fingerprints(&self) -> Vec<u64> {
        self.keys.iter().map(|key| key.fingerprint).collect()
    }

    /// Checks a token and returns the player that it names.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, wall: Wall) -> Result<Name, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|e| class(e.kind()))?;
        let mut named = self
            .keys
            .iter()
            .filter(|key| key.algorithm == header.alg)
            .filter(|key| header.kid.as_ref().is_none_or(|kid| *kid == key.id));
        let claims = named
            .find_map(|key| match key.open(token) {
                Err(TokenError::Forged) => None,
                other => Some(other),
            })
            .unwrap_or(Err(TokenError::Forged))?;
        self.check(&claims, wall)?;
        Name::new(&claims.sub).map_err(TokenError::BadPlayer)
    }

    fn check(&self, claims: &Claims, wall: Wall) -> Result<(), TokenError> {
        #[allow(clippy::cast_precision_loss, reason = "exact below 2^53 ms, the year 287396")]
        let now = wall.0 as f64 / 1_000.0;
        let leeway = self.leeway.as_secs_f64();
        if claims.exp + leeway <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| nbf - leeway > now) {
            return Err(TokenError::NotYetValid);
        }
        let audience = match &claims.aud {
            Audience::One(aud) => *aud == self.audience,
            Audience::Several(all) => all.contains(&self.audience),
        };
        if !audience {
            return Err(TokenError::WrongAudience);
        }
        if self.issuer.is_some() && self.issuer != claims.iss {
            return Err(TokenError::WrongIssuer);
        }
        Ok(())
    }

    /// A token for a player, good for `ttl` from now; signed with the key of that `id`,
    /// or else the configured one, or else the first that can sign.
    ///
    /// # Errors
    /// If there is no such key, or it cannot sign.
    pub fn sign(
        &self,
        player: &Name,
        ttl: Duration,
        wall: Wall,
        id: Option<&str>,
    ) -> Result<String, KeyError> {
        let id = id.or(self.signing.as_deref());
        let error = |problem: &str| KeyError { id: id.unwrap_or("").to_owned(), problem: problem.to_owned() };
        let (key, signing) = self
            .keys
            .iter()
            .filter(|key| id.is_none_or(|id| id == key.id))
            .find_map(|key| key.signing.as_ref().map(|signing| (key, signing)))
            .ok_or_else(|| error("there is no such key with a secret or a private key to sign with"))?;
        let now = wall.0 / 1_000;
        let claims = Signed {
            sub: player.as_str(),
            aud: &self.audience,
            exp: now.saturating_add(ttl.as_secs()),
            iat: now,
            iss: self.issuer.as_deref(),
        };
        let header = Header { kid: Some(key.id.clone()), ..Header::new(key.algorithm) };
        jsonwebtoken::encode(&header, &claims, signing).map_err(|e| error(&e.to_string()))
    }
}

impl Key {
    fn load(key: &TokenKey) -> Result<Self, KeyError> {
        let made = match key.algorithm {
            Algorithm::HS256 => match (&key.secret, &key.secret_file) {
                (Some(secret), _) => Self::hs256(&key.id, secret.expose().as_bytes()),
                (None, Some(file)) => read(file)
                    .and_then(|content| Self::hs256(&key.id, content.trim_ascii()).map_err(in_file(file))),
                (None, None) => Err("it has no secret".to_owned()),
            },
            Algorithm::EdDSA => Self::pem(
                key,
                jsonwebtoken::Algorithm::EdDSA,
                DecodingKey::from_ed_pem,
                EncodingKey::from_ed_pem,
            ),
            Algorithm::ES256 => Self::pem(
                key,
                jsonwebtoken::Algorithm::ES256,
                DecodingKey::from_ec_pem,
                EncodingKey::from_ec_pem,
            ),
        };
        made.map_err(|problem| KeyError { id: key.id.clone(), problem })
    }

    fn hs256(id: &str, secret: &[u8]) -> Result<Self, String> {
        if secret.len() < MIN_SECRET {
            return Err(format!("the secret has {} bytes, it needs at least {MIN_SECRET}", secret.len()));
        }
        Ok(Self {
            id: id.to_owned(),
            algorithm: jsonwebtoken::Algorithm::HS256,
            verifying: DecodingKey::from_secret(secret),
            signing: Some(EncodingKey::from_secret(secret)),
            fingerprint: key_fingerprint(id, secret),
        })
    }

    fn pem(
        key: &TokenKey,
        algorithm: jsonwebtoken::Algorithm,
        public: fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>,
        private: fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>,
    ) -> Result<Self, String> {
        let file = key.public_key_file.as_deref().ok_or("it has no public key")?;
        let no_key = |_| format!("{}: not a PEM key for this algorithm", file.display());
        let content = read(file)?;
        let verifying = public(&content).map_err(no_key)?;
        let fingerprint = key_fingerprint(&key.id, content.trim_ascii());
        let signing = match &key.private_key_file {
            Some(file) => {
                let no_key =
                    |_| format!("{}: not a PEM (PKCS#8) private key for this algorithm", file.display());
                Some(private(&read(file)?).map_err(no_key)?)
            }
            None => None,
        };
        Ok(Self { id: key.id.clone(), algorithm, verifying, signing, fingerprint })
    }

    /// The claims, if the signature is of this key. Which claims are good is not
    /// checked here.
    fn open(&self, token: &str) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        jsonwebtoken::decode(token, &self.verifying, &validation)
            .map(|data| data.claims)
            .map_err(|e| class(e.kind()))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))
}

fn in_file(file: &Path) -> impl Fn(String) -> String + '_ {
    move |problem| format!("{}: {problem}", file.display())
}

const fn class(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::Forged,
        _ => TokenError::Malformed,
    }
}

/// A new secret for HS256: 32 random bytes as text.
///
/// # Errors
/// If the operating system has no randomness.
pub fn new_secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; MIN_SECRET];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_000_000_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn later(seconds: u64) -> Wall {
        Wall(NOW.0 + seconds * 1_000)
    }

    fn keys(id: &str, secret: u8) -> Keys {
        Keys::from_secret(id, &[secret; 32]).unwrap()
    }

    fn alice(keys: &Keys) -> String {
        keys.sign(&Name::new("alice").unwrap(), HOUR, NOW, None).unwrap()
    }

    /// A token with any claims, signed with `keys("a", 1)`.
    fn with_claims(claims: &str) -> String {
        let claims: toml::Table = claims.parse().unwrap();
        let header = Header { kid: Some("a".to_owned()), ..Header::default() };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&[1; 32])).unwrap()
    }

    #[test]
    fn names_its_player_until_it_expires() {
        let keys = keys("a", 1);
        let token = alice(&keys);
        assert_eq!(keys.verify(&token, NOW).unwrap().as_str(), "alice");
        assert!(keys.verify(&token, later(3_600)).is_ok(), "the leeway");
        assert_eq!(keys.verify(&token, later(3_606)), Err(TokenError::Expired));
    }

    #[test]
    fn of_another_key_is_forged() {
        let token = alice(&keys("a", 1));
        assert_eq!(keys("a", 2).verify(&token, NOW), Err(TokenError::Forged), "same id, other secret");
        assert_eq!(keys("b", 1).verify(&token, NOW), Err(TokenError::Forged), "unknown id");
    }

    #[test]
    fn changed_is_refused() {
        let keys = keys("a", 1);
        let token = alice(&keys);
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of a part can have bits that stand for nothing.
            if let Ok(player) = keys.verify(&changed, NOW) {
                assert_eq!(player.as_str(), "alice");
            }
        }
        assert_eq!(keys.verify("", NOW), Err(TokenError::Malformed));
        assert_eq!(keys.verify("a.b.c", NOW), Err(TokenError::Malformed));
        assert_eq!(keys.verify(&"a".repeat(MAX_TOKEN + 1), NOW), Err(TokenError::Malformed));
    }

    #[test]
    fn unsigned_is_refused() {
        let keys = keys("a", 1);
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"alice","aud":"skirmish","exp":99999999999}"#);
        assert!(keys.verify(&format!("{header}.{claims}."), NOW).is_err());
    }

    #[test]
    fn rotated_keys_are_both_good() {
        let old = alice(&keys("old", 1));
        let both = keys("new", 2).with_secret("old", &[1; 32]).unwrap();
        assert!(both.verify(&old, NOW).is_ok());
        let new = alice(&both);
        assert!(both.verify(&new, NOW).is_ok());
        assert_eq!(keys("old", 1).verify(&new, NOW), Err(TokenError::Forged));
        let signed_with_old = both.sign(&Name::new("bob").unwrap(), HOUR, NOW, Some("old")).unwrap();
        assert!(keys("old", 1).verify(&signed_with_old, NOW).is_ok());
        assert!(both.sign(&Name::new("bob").unwrap(), HOUR, NOW, Some("nobody")).is_err());
    }

    #[test]
    fn each_claim_is_checked() {
        let mut keys = keys("a", 1);
        let cases = [
            ("sub='a'\naud='skirmish'\nexp=1000000100", Ok(())),
            ("sub='a'\naud=['other', 'skirmish']\nexp=1000000100.5", Ok(())),
            ("sub='a'\naud='other'\nexp=1000000100", Err(TokenError::WrongAudience)),
            ("sub='a'\nexp=1000000100", Err(TokenError::Malformed)),
            ("sub='a'\naud='skirmish'", Err(TokenError::Malformed)),
            ("aud='skirmish'\nexp=1000000100", Err(TokenError::Malformed)),
            ("sub='a'\naud='skirmish'\nexp=1000000100\nnbf=1000000050", Err(TokenError::NotYetValid)),
            ("sub=''\naud='skirmish'\nexp=1000000100", Err(TokenError::BadPlayer(NameError::Empty))),
            (
                "sub='a b'\naud='skirmish'\nexp=1000000100",
                Err(TokenError::BadPlayer(NameError::BadCharacter)),
            ),
        ];
        for (claims, expected) in cases {
            assert_eq!(keys.verify(&with_claims(claims), NOW).map(|_| ()), expected, "{claims}");
        }
        keys.issuer = Some("lobby".to_owned());
        let good = "sub='a'\naud='skirmish'\nexp=1000000100";
        assert_eq!(keys.verify(&with_claims(good), NOW), Err(TokenError::WrongIssuer));
        assert!(keys.verify(&with_claims(&format!("{good}\niss='lobby'")), NOW).is_ok());
    }

    #[test]
    fn short_secrets_and_missing_files_are_refused() {
        assert!(Keys::from_secret("a", b"short").unwrap_err().to_string().contains("at least 32"));
        let auth = Auth {
            keys: vec![TokenKey {
                id: "a".to_owned(),
                algorithm: Algorithm::HS256,
                secret: None,
                secret_file: Some("/nowhere/key".into()),
                public_key_file: None,
                private_key_file: None,
            }],
            ..Auth::default()
        };
        let error = Keys::load(&auth).unwrap_err().to_string();
        assert!(error.starts_with("key `a`: /nowhere/key: "), "{error}");
    }
}
