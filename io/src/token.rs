//! Tokens: the name of a player, signed by the owner of a key (row W1).
//!
//! A token is a JSON Web Token: `sub` is the player's name, `aud` the server's configured audience,
//! `exp` the time of expiry, and `nbf`, `iat` and `iss` are optional. The header names the key
//! (`kid`), so that keys can be rotated: a server checks with several keys and an issuer signs with
//! one.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};
use skirmish_core::id::{Name, NameError};
use skirmish_core::registrar::key_fingerprint;
use skirmish_core::time::Wall;

use crate::config::{Algorithm, Auth, TokenKey};

/// Shortest secret for HS256, in bytes: the length of its hash.
pub(crate) const MIN_SECRET: usize = 32;
/// Longest token, in bytes.
const MAX_TOKEN: usize = 4 * 1024;

/// The reason for refusing a token. Each text may be sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// The text is no token, lacks a claim, or is too long.
    Malformed,
    /// No key of this server has signed the token, or the token was changed.
    Forged,
    /// The token was valid until its `exp`.
    Expired,
    /// The token is not valid before its `nbf`.
    NotYetValid,
    /// The token is for another audience.
    WrongAudience,
    /// The token is from another issuer.
    WrongIssuer,
    /// The header demands, with `crit` or `b64`, an extension that this server does not have.
    Critical,
    /// The `sub` is no valid name of a player.
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
            Self::Critical => "the token's header demands an extension that this server does not have",
            Self::BadPlayer(error) => return write!(f, "the token's player is no name: {error}"),
        })
    }
}

impl std::error::Error for TokenError {}

/// The reason for which a key cannot be used. On one line, without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// The `id` of the key.
    pub id: String,
    /// The problem, with the file's name.
    pub problem: String,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key `{}`: {}", self.id, self.problem)
    }
}

impl std::error::Error for KeyError {}

/// The keys of a server or an issuer, with the required claims.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<VerifyKey>,
    signing: Option<String>,
    audience: String,
    issuer: Option<String>,
    leeway: Duration,
}

struct VerifyKey {
    id: String,
    algorithm: jsonwebtoken::Algorithm,
    verifying: DecodingKey,
    signing: Option<EncodingKey>,
    fingerprint: u64,
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The claims to sign.
#[derive(Serialize)]
struct Signed<'a> {
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// The claims to check. Times may have fractions.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    /// A number, if present. No time is judged by this claim (RFC 7519, 4.1.6): that is the purpose
    /// of `nbf`.
    #[serde(rename = "iat")]
    _iat: Option<f64>,
    iss: Option<String>,
}

/// Members of a token's header that change the meaning of the token, and that `jsonwebtoken`
/// ignores.
#[derive(Deserialize)]
struct Demands {
    /// RFC 7515, section 4.1.11: names of members that must be understood.
    #[serde(default, deserialize_with = "present")]
    crit: Option<serde_json::Value>,
    /// RFC 7797: false if the payload is not in base64.
    #[serde(default, deserialize_with = "present")]
    b64: Option<serde_json::Value>,
}

/// Distinguishes `null` from a missing member.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(value).map(Some)
}

impl Demands {
    fn of(token: &str) -> Result<Self, TokenError> {
        let header = token.split('.').next().unwrap_or_default();
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)
    }

    /// Refuses every extension, since none is supported here. `crit` must not be empty, and must
    /// list names.
    fn check(&self) -> Result<(), TokenError> {
        match &self.crit {
            None => {}
            Some(serde_json::Value::Array(names)) if !names.is_empty() => {
                let are_names = names.iter().all(serde_json::Value::is_string);
                return Err(if are_names { TokenError::Critical } else { TokenError::Malformed });
            }
            Some(_) => return Err(TokenError::Malformed),
        }
        match &self.b64 {
            None | Some(serde_json::Value::Bool(true)) => Ok(()),
            Some(serde_json::Value::Bool(false)) => Err(TokenError::Critical),
            Some(_) => Err(TokenError::Malformed),
        }
    }
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
            keys: auth.keys.iter().map(VerifyKey::load).collect::<Result<_, _>>()?,
            signing: auth.signing.clone(),
            audience: auth.audience.clone(),
            issuer: auth.issuer.clone(),
            leeway: auth.leeway,
        })
    }

    /// Creates one HS256 key, for tests, bots and development. Audience and the rest have their
    /// defaults.
    ///
    /// # Errors
    /// If the secret is shorter than 32 bytes.
    pub fn from_secret(id: &str, secret: &[u8]) -> Result<Self, KeyError> {
        Self::load(&Auth::default())?.with_secret(id, secret)
    }

    /// Adds one more key for HS256.
    ///
    /// # Errors
    /// If the secret is shorter than 32 bytes.
    pub fn with_secret(mut self, id: &str, secret: &[u8]) -> Result<Self, KeyError> {
        let key = VerifyKey::hs256(id, secret).map_err(|problem| KeyError { id: id.to_owned(), problem })?;
        self.keys.push(key);
        Ok(self)
    }

    /// Returns true if there is no key, so that every token is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns fingerprints of the keys, which other nodes may know.
    pub(crate) fn fingerprints(&self) -> Vec<u64> {
        self.keys.iter().map(|key| key.fingerprint).collect()
    }

    /// Checks a token and returns the player that it names.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn verify(&self, token: &str, wall: Wall) -> Result<Name, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|e| class(e.kind()))?;
        Demands::of(token)?.check()?;
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

    /// Returns a token for a player, valid for `ttl` from now. Signed with the key `id`, or else
    /// with the configured one, or else with the first that can sign.
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

impl VerifyKey {
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

    /// Returns the claims, if the signature is of this key. The claims themselves are not checked
    /// here.
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

/// Returns a new secret for HS256: 32 random bytes as text.
///
/// # Errors
/// If the operating system has no randomness.
pub fn new_secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; MIN_SECRET];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests;
