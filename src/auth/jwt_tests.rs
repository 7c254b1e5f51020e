use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Header;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;
use crate::auth::rights::Right;

#[path = "jwt_edge_tests.rs"]
mod edges;

/// Signs tokens with two keys of its own.
struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).unwrap();
        Self { ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(), ec, random }
    }

    fn ed_jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64(self.ed.public_key().as_ref()) })
    }

    fn ec_jwk(&self) -> Value {
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "use": "sig", "x": base64(x), "y": base64(y) })
    }

    fn keys(&self) -> JwtKeys {
        keys(&[self.ed_jwk(), self.ec_jwk()])
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
        let signature = match header["alg"].as_str() {
            Some("ES256") => self.ec.sign(&self.random, message.as_bytes()).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", base64(&signature))
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims();
        change(&mut claims);
        self.sign(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims)
    }
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn keys(keys: &[Value]) -> JwtKeys {
    JwtKeys::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn claims() -> Value {
    let now = get_current_timestamp();
    json!({
        "iss": "https://issuer.test", "aud": ["account", "dms"], "sub": "shop", "exp": now + 60, "nbf": now,
        "project_id": "p", "roles": ["offline_access", "producer"],
    })
}

fn rules() -> JwtRules {
    JwtRules {
        issuer: "https://issuer.test".into(),
        audience: "dms".into(),
        project_claim: "project_id".into(),
        role_claim: "roles".into(),
        leeway: Duration::from_secs(10),
    }
}

fn may(principal: &Principal, project: &str, right: Right) -> bool {
    principal.allow(&ProjectId::parse(project).unwrap(), right).is_ok()
}

fn refusal(keys: &JwtKeys, token: &str) -> Option<ErrorKind> {
    rules().verify(keys, token).err().map(|error| error.kind())
}

#[test]
fn a_token_is_good_for_what_it_says() {
    let issuer = Issuer::new();
    let owner = rules().verify(&issuer.keys(), &issuer.token(|_| ())).unwrap();
    assert_eq!(owner.name(), "shop");
    assert!(may(&owner, "p", Right::Produce) && may(&owner, "p", Right::Read));
    assert!(!may(&owner, "p", Right::Consume) && !may(&owner, "q", Right::Read));
    let ec = issuer.sign(&json!({ "alg": "ES256", "kid": "ec" }), &claims());
    assert_eq!(refusal(&issuer.keys(), &ec), None);
}

#[test]
fn a_token_that_was_good_is_still_refused_by_other_keys_and_after_its_end() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let ending = issuer.token(|claims| claims["exp"] = json!(get_current_timestamp() - 8));
    assert_eq!((refusal(&keys, &ending), refusal(&keys, &ending)), (None, None));
    assert_eq!(refusal(&Issuer::new().keys(), &ending), Some(ErrorKind::TokenInvalid));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(refusal(&keys, &ending), Some(ErrorKind::TokenExpired));
}

#[test]
fn every_rsa_algorithm_is_checked() {
    let mut lines = include_str!("rsa_tokens.txt").lines().skip(1);
    let keys = keys(&[json!({ "kty": "RSA", "kid": "rsa", "e": "AQAB", "n": lines.next().unwrap() })]);
    let tokens: Vec<_> = lines.collect();
    assert_eq!(tokens.len(), 6);
    for token in tokens {
        assert_eq!(refusal(&keys, token), None, "{token}");
        let (head, signature) = token.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let changed = format!("{head}.{other}{}", &signature[1..]);
        assert_eq!(refusal(&keys, &changed), Some(ErrorKind::TokenInvalid), "{token}");
    }
}

#[test]
fn wrong_claims_are_refused() {
    let issuer = Issuer::new();
    let (keys, now) = (issuer.keys(), get_current_timestamp());
    let cases: [(&str, Value, Option<ErrorKind>); 14] = [
        ("exp", json!(now - 60), Some(ErrorKind::TokenExpired)),
        ("exp", json!(now - 5), None),
        ("exp", json!(null), Some(ErrorKind::TokenInvalid)),
        ("exp", json!("never"), Some(ErrorKind::TokenInvalid)),
        ("nbf", json!(now + 60), Some(ErrorKind::TokenInvalid)),
        ("nbf", json!(now + 5), None),
        ("nbf", json!("soon"), Some(ErrorKind::TokenInvalid)),
        ("nbf", json!(null), Some(ErrorKind::TokenInvalid)),
        ("iss", json!("https://other.test"), Some(ErrorKind::TokenInvalid)),
        ("iss", json!(null), Some(ErrorKind::TokenInvalid)),
        ("aud", json!("dms"), None),
        ("aud", json!("other"), Some(ErrorKind::TokenInvalid)),
        ("aud", json!([]), Some(ErrorKind::TokenInvalid)),
        ("aud", json!(7), Some(ErrorKind::TokenInvalid)),
    ];
    for (claim, value, expected) in cases {
        let token = issuer.token(|claims| claims[claim] = value.clone());
        assert_eq!(refusal(&keys, &token), expected, "{claim} {value}");
    }
}

#[test]
fn wrong_headers_and_signatures_are_refused() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let good = issuer.token(|_| ());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let other_payload = issuer.token(|claims| claims["roles"] = json!("admin"));
    let mixed = format!("{}.{signature}", other_payload.rsplit_once('.').unwrap().0);
    let of = |header: Value| issuer.sign(&header, &claims());
    let wrong = [
        mixed,
        format!("{head}."),
        head.to_owned(),
        "a.b.c".to_owned(),
        "..".to_owned(),
        of(json!({ "alg": "none" })),
        of(json!({ "alg": "HS256", "kid": "ed" })),
        of(json!({ "alg": "ES256", "kid": "ed" })),
        of(json!({ "alg": "RS256", "kid": "ec" })),
        of(json!({ "alg": "EdDSA", "kid": "unknown" })),
        of(json!({ "alg": "EdDSA", "kid": "ed", "crit": ["exp"] })),
        of(json!({ "alg": "EdDSA", "kid": "x", "jwk": issuer.ed_jwk() })),
        issuer.token(|claims| claims["filler"] = json!("x".repeat(TOKEN_BYTES_MAX))),
        Issuer::new().token(|_| ()),
    ];
    for token in wrong {
        assert_eq!(refusal(&keys, &token), Some(ErrorKind::TokenInvalid), "{token:.200}");
    }
}

#[test]
fn a_token_without_key_id_needs_the_only_key_that_fits() {
    let issuer = Issuer::new();
    let token = issuer.sign(&json!({ "alg": "EdDSA" }), &claims());
    assert_eq!(refusal(&issuer.keys(), &token), None);
    let two = keys(&[issuer.ed_jwk(), Issuer::new().ed_jwk()]);
    assert_eq!(refusal(&two, &token), Some(ErrorKind::TokenInvalid));
}

#[test]
fn keys_that_must_not_check_tokens_are_passed_over() {
    let issuer = Issuer::new();
    let mut encryption = issuer.ed_jwk();
    encryption["use"] = json!("enc");
    let secret = json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0" });
    let unknown = json!({ "kty": "new", "kid": "n", "z": 1 });
    let parsed = keys(&[encryption.clone(), secret.clone(), unknown.clone(), issuer.ec_jwk()]);
    assert!(
        parsed.find(&Header::new(Algorithm::ES256)).is_some() && parsed.find(&Header::new(Algorithm::EdDSA)).is_none()
    );
    for nothing in
        [json!({ "keys": [encryption, secret, unknown] }), json!({ "keys": [] }), json!({ "keys": 1 }), json!([])]
    {
        assert!(JwtKeys::parse(nothing.to_string().as_bytes()).is_err(), "{nothing}");
    }
}

#[test]
fn projects_and_roles_are_found_in_many_forms() {
    let of = |projects: Value, roles: Value| {
        let rules = JwtRules {
            project_claim: "https://x.test/projects".into(),
            role_claim: "access.dms.roles".into(),
            ..rules()
        };
        rules.principal(&json!({ "https://x.test/projects": projects, "access": { "dms": { "roles": roles } } }))
    };
    for (projects, roles) in [
        (json!("p q"), json!("consumer producer")),
        (json!(["p", "q"]), json!(["producer", "consumer", "uma_protection"])),
        (json!(["q", "*", "no project", 7, "p"]), json!([null, "consumer", "producer"])),
    ] {
        let principal = of(projects, roles);
        for project in ["p", "q"] {
            assert!(may(&principal, project, Right::Produce) && may(&principal, project, Right::Consume));
            assert!(!may(&principal, project, Right::Administer));
        }
        assert!(!may(&principal, "r", Right::Read));
    }
    for (projects, roles) in
        [(json!("p"), json!(null)), (json!(null), json!("admin")), (json!({ "p": 1 }), json!(["ADMIN"]))]
    {
        let refused = of(projects, roles).allow(&ProjectId::parse("p").unwrap(), Right::Read).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AccessDenied);
    }
}
