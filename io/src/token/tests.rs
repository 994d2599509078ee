//! Valid tokens, and every reason for which one is refused.

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
        // The last character of a part can have bits without a meaning.
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

/// A token with any header and claims, signed with `keys("a", 1)`.
fn with_parts(header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(&[1; 32]);
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

const CLAIMS: &str = r#"{"sub":"alice","aud":"skirmish","exp":1000000100}"#;

#[test]
fn what_a_header_demands_is_not_passed_over() {
    use TokenError::{Critical, Malformed};
    let keys = keys("a", 1);
    let verify = |more: &str| {
        let header = format!(r#"{{"alg":"HS256","kid":"a"{more}}}"#);
        keys.verify(&with_parts(&header, CLAIMS), NOW).map(|_| ())
    };
    for (more, expected) in [
        ("", Ok(())),
        (r#","typ":"JWT","cty":"x","unknown":[1]"#, Ok(())),
        (r#","crit":["exp"],"exp":1"#, Err(Critical)),
        (r#","crit":["b64"],"b64":false"#, Err(Critical)),
        (r#","crit":["b64"],"b64":true"#, Err(Critical)),
        (r#","crit":["alg"]"#, Err(Critical)),
        (r#","crit":["http://example/a"]"#, Err(Critical)),
        (r#","crit":[]"#, Err(Malformed)),
        (r#","crit":null"#, Err(Malformed)),
        (r#","crit":"exp""#, Err(Malformed)),
        (r#","crit":[1]"#, Err(Malformed)),
        (r#","crit":{}"#, Err(Malformed)),
        (r#","crit":["a"],"crit":[]"#, Err(Malformed)),
        (r#","b64":false"#, Err(Critical)),
        (r#","b64":true"#, Ok(())),
        (r#","b64":"no""#, Err(Malformed)),
        (r#","kid":"b""#, Err(Malformed)),
        (r#","alg":"HS256""#, Err(Malformed)),
        (r#","typ":7"#, Err(Malformed)),
    ] {
        assert_eq!(verify(more), expected, "{more}");
    }
    let none = with_parts(r#"{"alg":"none","crit":["a"]}"#, CLAIMS);
    assert!(keys.verify(&none, NOW).is_err());
}

#[test]
fn claims_of_every_shape_are_checked() {
    use TokenError::{Malformed, NotYetValid, WrongAudience};
    let keys = keys("a", 1);
    let verify =
        |claims: &str| keys.verify(&with_parts(r#"{"alg":"HS256","kid":"a"}"#, claims), NOW).map(|_| ());
    assert_eq!(verify(CLAIMS), Ok(()));
    for (claims, expected) in [
        (r#""sub":"a","sub":"b","aud":"skirmish","exp":1000000100"#, Err(Malformed)),
        (r#""sub":"a","aud":"skirmish","exp":1,"exp":1000000100"#, Err(Malformed)),
        (r#""sub":"a","aud":"other","aud":"skirmish","exp":1000000100"#, Err(Malformed)),
        (r#""sub":"a","aud":"skirmish","exp":"1000000100""#, Err(Malformed)),
        (r#""sub":"a","aud":"skirmish","exp":null"#, Err(Malformed)),
        (r#""sub":"a","aud":"skirmish","exp":-1"#, Err(TokenError::Expired)),
        (r#""sub":"a","aud":"skirmish","exp":1e400"#, Err(Malformed)),
        (r#""sub":"a","aud":"skirmish","exp":1e300"#, Ok(())),
        (r#""sub":"a","aud":"skirmish","exp":1000000100.25"#, Ok(())),
        (r#""sub":"a","aud":"skirmish","exp":1000000100,"nbf":"soon""#, Err(Malformed)),
        (r#""sub":"a","aud":"skirmish","exp":1000000100,"nbf":1e300"#, Err(NotYetValid)),
        (r#""sub":"a","aud":"skirmish","exp":1000000100,"nbf":999999999"#, Ok(())),
        (r#""sub":"a","aud":"skirmish","exp":1000000100,"iat":1000000003"#, Ok(())),
        (r#""sub":"a","aud":"skirmish","exp":1000000100,"iat":1000000050"#, Ok(())),
        (r#""sub":"a","aud":"skirmish","exp":1000000100,"iat":"now""#, Err(Malformed)),
        (r#""sub":"a","aud":["x","skirmish"],"exp":1000000100"#, Ok(())),
        (r#""sub":"a","aud":[],"exp":1000000100"#, Err(WrongAudience)),
        (r#""sub":"a","aud":["skirmish",1],"exp":1000000100"#, Err(Malformed)),
        (r#""sub":"a","aud":null,"exp":1000000100"#, Err(Malformed)),
        (r#""sub":1,"aud":"skirmish","exp":1000000100"#, Err(Malformed)),
    ] {
        assert_eq!(verify(&format!("{{{claims}}}")), expected, "{claims}");
    }
    assert_eq!(verify("[]"), Err(Malformed));
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
        ("sub='a b'\naud='skirmish'\nexp=1000000100", Err(TokenError::BadPlayer(NameError::BadCharacter))),
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
