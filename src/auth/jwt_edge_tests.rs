//! Tokens as nobody means them: odd claims, headers that lead elsewhere, signatures of another form.

use super::*;

#[test]
fn claims_at_their_edges() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let invalid = Some(ErrorKind::TokenInvalid);
    let cases: [(&str, Value, Option<ErrorKind>); 18] = [
        ("exp", json!(u64::MAX), None),
        ("exp", json!(-1), invalid),
        ("exp", json!(0), Some(ErrorKind::TokenExpired)),
        ("exp", json!([get_current_timestamp() + 60]), invalid),
        ("exp", json!((get_current_timestamp() + 60).to_string()), invalid),
        ("exp", json!(true), invalid),
        ("nbf", json!(u64::MAX), invalid),
        ("nbf", json!(-1), invalid),
        ("nbf", json!(0), None),
        ("aud", json!(["x", "dms", "y"]), None),
        ("aud", json!(["dm", "DMS", "dms "]), invalid),
        ("aud", json!([["dms"]]), invalid),
        ("aud", json!(["dms", 7]), invalid),
        ("aud", json!({ "dms": true }), invalid),
        ("iss", json!(["https://issuer.test", "https://other.test"]), invalid),
        ("iss", json!("https://issuer.test/"), invalid),
        ("iss", json!("HTTPS://issuer.test"), invalid),
        ("sub", json!({ "name": "x" }), invalid),
    ];
    for (claim, value, expected) in cases {
        let token = issuer.token(|claims| claims[claim] = value.clone());
        assert_eq!(refusal(&keys, &token), expected, "{claim} {value}");
    }
    for claim in ["exp", "iss", "aud"] {
        let token = issuer.token(|claims| drop(claims.as_object_mut().unwrap().remove(claim)));
        assert_eq!(refusal(&keys, &token), invalid, "without {claim}");
    }
}

/// Signs a header and claims as they are written, however odd they are.
fn raw(issuer: &Issuer, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()));
    format!("{message}.{}", base64(issuer.ed.sign(message.as_bytes()).as_ref()))
}

#[test]
fn a_claim_or_parameter_that_is_there_twice_is_refused() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let (header, claims) = (r#"{"alg":"EdDSA","kid":"ed"}"#, claims().to_string());
    assert_eq!(refusal(&keys, &raw(&issuer, header, &claims)), None);
    for again in [
        r#""exp":4000000000"#,
        r#""iss":"https://issuer.test""#,
        r#""aud":"dms""#,
        r#""roles":["admin"]"#,
        r#""project_id":"q""#,
        r#""\u0070roject_id":"q""#,
    ] {
        let twice = format!("{},{again}}}", claims.strip_suffix('}').unwrap());
        assert_eq!(refusal(&keys, &raw(&issuer, header, &twice)), Some(ErrorKind::TokenInvalid), "{again}");
    }
    for header in [r#"{"alg":"EdDSA","kid":"ed","alg":"EdDSA"}"#, r#"{"alg":"EdDSA","kid":"ed","kid":"ec"}"#] {
        assert_eq!(refusal(&keys, &raw(&issuer, header, &claims)), Some(ErrorKind::TokenInvalid), "{header}");
    }
    for claims in ["[]", "7", "null", "", "{", &format!("{claims}{claims}")] {
        assert_eq!(refusal(&keys, &raw(&issuer, header, claims)), Some(ErrorKind::TokenInvalid), "{claims}");
    }
}

#[test]
fn a_key_that_the_token_brings_along_is_not_looked_at() {
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let keys = issuer.keys();
    let jwks = json!({ "keys": [stranger.ed_jwk()] });
    for (name, value) in [
        ("jwk", stranger.ed_jwk()),
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("dGh1bWI")),
        ("jwks", jwks),
    ] {
        let header = json!({ "alg": "EdDSA", "kid": "ed", name: value });
        assert_eq!(refusal(&keys, &stranger.sign(&header, &claims())), Some(ErrorKind::TokenInvalid), "{name}");
        // The issuer may say such things of its own key.
        let own = refusal(&keys, &issuer.sign(&header, &claims()));
        assert!(own.is_none() || name == "jwk", "{name}: {own:?}");
    }
}

#[test]
fn a_key_is_only_named_by_its_exact_id() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let kids = [
        json!("ED"),
        json!("ed "),
        json!("e"),
        json!(""),
        json!("../ed"),
        json!("/dev/null"),
        json!("ed' OR '1'='1"),
        json!("ed\u{0}"),
        json!(7),
        json!(["ed"]),
        json!({ "kid": "ed" }),
        json!("ec"),
        json!("x".repeat(10_000)),
    ];
    for kid in kids {
        let token = issuer.sign(&json!({ "alg": "EdDSA", "kid": kid }), &claims());
        assert_eq!(refusal(&keys, &token), Some(ErrorKind::TokenInvalid), "{kid:.100}");
    }
}

#[test]
fn no_algorithm_makes_a_secret_of_a_public_key() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let public =
        [issuer.ed.public_key().as_ref().to_vec(), base64(issuer.ed.public_key().as_ref()).into_bytes(), b"".to_vec()];
    for secret in public {
        for (name, algorithm) in
            [("HS256", ring::hmac::HMAC_SHA256), ("HS384", ring::hmac::HMAC_SHA384), ("HS512", ring::hmac::HMAC_SHA512)]
        {
            let header = json!({ "alg": name, "kid": "ed" }).to_string();
            let message = format!("{}.{}", base64(header.as_bytes()), base64(claims().to_string().as_bytes()));
            let signature = ring::hmac::sign(&ring::hmac::Key::new(algorithm, &secret), message.as_bytes());
            let token = format!("{message}.{}", base64(signature.as_ref()));
            assert_eq!(refusal(&keys, &token), Some(ErrorKind::TokenInvalid), "{name}");
        }
    }
    for algorithm in ["none", "None", "NONE", "nOnE", "", "eddsa", "EdDSA ", "ES512", "ES256K", "Ed25519", "RS1"] {
        let header = json!({ "alg": algorithm, "kid": "ed" }).to_string();
        let signed = raw(&issuer, &header, &claims().to_string());
        let bare = format!("{}.", signed.rsplit_once('.').unwrap().0);
        for token in [signed, bare] {
            assert_eq!(refusal(&keys, &token), Some(ErrorKind::TokenInvalid), "{algorithm}");
        }
    }
}

#[test]
fn a_signature_of_another_curve_or_form_is_refused() {
    let issuer = Issuer::new();
    let token = issuer.sign(&json!({ "alg": "ES256", "kid": "ec" }), &claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let wrong = [
        vec![0; 64],
        signature[..63].to_vec(),
        [&signature[..], &[0]].concat(),
        [&signature[32..], &signature[..32]].concat(),
        [&[0x30, 0x44][..], &signature].concat(),
    ];
    for signature in wrong {
        let token = format!("{message}.{}", base64(&signature));
        assert_eq!(refusal(&issuer.keys(), &token), Some(ErrorKind::TokenInvalid), "{signature:?}");
    }
    for algorithm in ["ES384", "PS256", "EdDSA"] {
        let token = issuer.sign(&json!({ "alg": algorithm, "kid": "ec" }), &claims());
        assert_eq!(refusal(&issuer.keys(), &token), Some(ErrorKind::TokenInvalid), "{algorithm}");
    }
}

#[test]
fn what_is_no_token_is_refused_at_once() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let good = issuer.token(|_| ());
    let padded = good.replacen('.', "=.", 1);
    let spaced = format!(" {good}");
    let standard = good.replace('-', "+").replace('_', "/") + "==";
    let begun = std::time::Instant::now();
    for token in [
        String::new(),
        ".".repeat(3),
        ".".repeat(TOKEN_BYTES_MAX),
        ".".repeat(10 * 1024 * 1024),
        "a".repeat(TOKEN_BYTES_MAX + 1),
        format!("{good}.{good}"),
        format!("{good}."),
        padded,
        spaced,
        standard,
        "\u{0}.\u{0}.\u{0}".into(),
        "é.é.é".into(),
        raw(&issuer, &"[".repeat(8000), "{}"),
        raw(&issuer, r#"{"alg":"EdDSA","kid":"ed"}"#, &"[".repeat(8000)),
    ] {
        assert_eq!(refusal(&keys, &token), Some(ErrorKind::TokenInvalid), "{token:.60}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for (token, form) in [("a.b.c", true), ("..", true), ("a.b", false), ("a.b.c.d", false), ("", false)] {
        assert_eq!(is_jwt(token), form, "{token}");
    }
}
