//! Signs requests as the documentation of the original service tells: written apart from the service, to check it.

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::header::HeaderValue;
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};

/// An access key and its secret.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    pub access: String,
    pub secret: String,
}

impl Signer {
    pub(crate) fn new(access: &str, secret: &str) -> Self {
        Self { access: access.into(), secret: secret.into() }
    }

    /// Adds `X-Sdk-Date`, `Host` and `Authorization`.
    pub(crate) fn sign(&self, request: &mut reqwest::Request, at: SystemTime) {
        let url = request.url().clone();
        let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        let date = date(at);
        let mut query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        query.sort();
        let query: Vec<String> =
            query.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
        let body = request.body().map(|body| body.as_bytes().unwrap()).unwrap_or_default();
        let form = format!(
            "{}\n{}/\n{}\nhost:{host}\nx-sdk-date:{date}\n\nhost;x-sdk-date\n{}",
            request.method(),
            url.path().trim_end_matches('/'),
            query.join("&"),
            sha256(body),
        );
        let to_sign = format!("SDK-HMAC-SHA256\n{date}\n{}", sha256(form.as_bytes()));
        let key = hmac::Key::new(HMAC_SHA256, self.secret.as_bytes());
        let signature = hex::encode(hmac::sign(&key, to_sign.as_bytes()));
        let headers = request.headers_mut();
        headers.insert("x-sdk-date", HeaderValue::from_str(&date).unwrap());
        headers.insert("host", HeaderValue::from_str(&host).unwrap());
        let access = &self.access;
        let text = format!("SDK-HMAC-SHA256 Access={access}, SignedHeaders=host;x-sdk-date, Signature={signature}");
        headers.insert("authorization", HeaderValue::from_str(&text).unwrap());
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// `20200608T023900Z`
fn date(at: SystemTime) -> String {
    let seconds = i64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let (mut year, mut day) = (1970, seconds / 86_400);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while day >= 365 + i64::from(leap(year)) {
        day -= 365 + i64::from(leap(year));
        year += 1;
    }
    let months = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{:02}{:02}T{hour:02}{minute:02}{second:02}Z", month + 1, day + 1)
}
