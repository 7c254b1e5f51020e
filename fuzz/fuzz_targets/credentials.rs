//! Credentials of strangers: none of them may be let in.
//!
//! Input: `authorization`, `x-auth-token`, method, path, query, lines of headers, an empty line, a body; each of the first five
//! on a line of its own.

#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use dms::auth::credentials::Header;
use dms::auth::{AuthOptions, Authenticator, Credentials, JwtOptions, JwtRules, Methods, SignatureOptions, SignatureRules};
use dms::domain::signed_request::SignedRequest;
use dms::reload::Source;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Builder;

/// The digest of a token that nobody knows.
const TOKENS: &str = r#"{"tokens":[{"name":"n","sha256":"50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c",
    "projects":["*"],"roles":["admin"]}]}"#;
const ACCESS_KEYS: &str = r#"{"keys":[{"access":"AK","secret":"4a1c0c1d6d0b4a6e9f","name":"n","projects":["*"],"roles":["admin"]}]}"#;
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

thread_local! {
    static DOOR: RefCell<Authenticator> = RefCell::new(door());
}

fn door() -> Authenticator {
    let options = AuthOptions::Required(Methods {
        tokens: Some(Source::Text(TOKENS.into())),
        jwt: Some(JwtOptions {
            keys: Source::Text(KEYS.into()),
            rules: JwtRules {
                issuer: "i".into(),
                audience: "a".into(),
                project_claim: "project_id".into(),
                role_claim: "roles".into(),
                leeway: Duration::from_secs(30),
            },
        }),
        signatures: Some(SignatureOptions {
            keys: Source::Text(ACCESS_KEYS.into()),
            rules: SignatureRules {
                date_window: Duration::from_secs(900),
                replay_window: Duration::from_secs(5),
                uses_max: 1000,
                polls_max: 1000,
                hosts: Vec::new(),
            },
        }),
    });
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(Authenticator::load(options)).expect("good files")
}

fn header(line: &[u8]) -> Header<'_> {
    if line.is_empty() { Header::Absent } else { Header::of(std::iter::once(line)) }
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(6, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (authorization, token) = (line(), line());
    let mut text = || String::from_utf8_lossy(line()).into_owned();
    let (method, path, query) = (text(), text(), text());
    let rest = lines.next().unwrap_or_default();
    let at = rest.windows(2).position(|pair| pair == b"\n\n").unwrap_or(rest.len());
    let headers = rest[..at].split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((String::from_utf8_lossy(&line[..colon]).to_lowercase(), line[colon + 1..].to_vec()))
    });
    let body = Bytes::copy_from_slice(rest.get(at + 2..).unwrap_or_default());
    let signed = SignedRequest { method, path, query, headers: headers.collect(), body };
    let credentials = Credentials::read(header(authorization), header(token), Some(&signed));
    DOOR.with_borrow(|door| assert!(door.authenticate(&credentials).is_err(), "a stranger was let in"));
});
