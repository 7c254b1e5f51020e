//! Requests signed with an access key and its secret, as the SDKs of the original service sign them:
//! `Authorization: SDK-HMAC-SHA256 Access=..., SignedHeaders=..., Signature=...` and `X-Sdk-Date`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::hmac;

use super::access_keys::AccessKeys;
use super::canonical::{canonical, depends_on_order, header, sha256_hex};
use super::principal::Principal;
use super::replay::{Grace, Used};
use super::sdk_date;
use crate::domain::hosts::HostName;
use crate::domain::signed_request::{SIGNED_SCHEME, SignedRequest};
use crate::domain::{Error, ErrorKind, Result};

const DATE: &str = "x-sdk-date";
const HOST: &str = "host";
/// Without these a signature would be good for another time or another host.
const ALWAYS_SIGNED: [&str; 2] = [HOST, DATE];
/// Far more than any client signs; bounds the work for a stranger.
const SIGNED_HEADERS_MAX: usize = 64;

/// Reads, and does nothing else: polls of consumers too, many of which are equal.
const POLL: &str = "GET";

/// What a good signature must be beside right.
#[derive(Debug, Clone)]
pub struct SignatureRules {
    /// How far the date of a request may be from now.
    pub date_window: Duration,
    /// How long a signature may come again after its first use.
    pub replay_window: Duration,
    /// How many times one may be used within that, if the request sends, acknowledges or changes something.
    pub uses_max: u32,
    /// The same for requests with the method GET.
    pub polls_max: u32,
    /// The hosts that a request may be signed for; none for any.
    pub hosts: Vec<HostName>,
}

impl Default for SignatureRules {
    fn default() -> Self {
        let (date_window, replay_window) = (Duration::from_secs(15 * 60), Duration::from_secs(5));
        Self { date_window, replay_window, uses_max: 10, polls_max: 1000, hosts: Vec::new() }
    }
}

/// Checks signatures and remembers which were used.
#[derive(Debug)]
pub(super) struct Signatures {
    rules: SignatureRules,
    used: Mutex<Used>,
}

/// When a request was received, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// To compare with its date.
    pub(crate) wall: SystemTime,
    /// To measure time with.
    pub(crate) steady: Instant,
}

impl Received {
    /// Just now.
    pub(super) fn now() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    fn unix_seconds(self) -> i64 {
        let seconds = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(seconds).unwrap_or(i64::MAX)
    }
}

impl Signatures {
    /// Nothing was used yet.
    pub(super) fn new(rules: SignatureRules) -> Self {
        // From the first use at one end of the window to the other end.
        let used = Used::new(rules.date_window * 2, Instant::now());
        Self { rules, used: Mutex::new(used) }
    }

    /// Who has signed this request.
    pub(super) fn verify(
        &self,
        keys: &AccessKeys,
        authorization: &str,
        request: &SignedRequest,
        received: Received,
    ) -> Result<Arc<Principal>> {
        let given = Authorization::parse(authorization).ok_or_else(|| invalid("malformed Authorization"))?;
        let date = header(request, DATE).ok_or_else(|| invalid("no X-Sdk-Date"))?;
        let seconds = sdk_date::parse(date).ok_or_else(|| invalid("malformed X-Sdk-Date"))?;
        let form = canonical(request, &given.signed_headers).ok_or_else(|| invalid("a signed header is not there"))?;
        let (key, owner) = keys.find(given.access);
        let signed = [SIGNED_SCHEME.as_bytes(), b"\n", date, b"\n", sha256_hex(&form).as_bytes()].concat();
        let right = hmac::verify(key, &signed, &given.signature).is_ok();
        let owner = owner.filter(|_| right).ok_or_else(|| invalid("unknown access key or wrong signature"))?;
        // Only the owner of a secret learns anything more.
        self.check_date(seconds, received)?;
        if depends_on_order(&request.query) {
            let message =
                "a signature does not cover the order of query parameters: a signed request may repeat none but tag";
            return Err(Error::new(ErrorKind::TokenInvalid, message));
        }
        if !self.is_for_us(request) {
            return Err(Error::new(
                ErrorKind::TokenInvalid,
                "the request was signed for another host than this service",
            ));
        }
        if !self.is_fresh(&given, request, received.steady) {
            return Err(Error::new(ErrorKind::TokenInvalid, "the signature was used before: sign each request anew"));
        }
        Ok(Arc::clone(owner))
    }

    /// What of a signed request can be judged before its body has come: the form, the date, and whether the access key is known.
    ///
    /// # Errors
    /// `TokenInvalid` or `TokenExpired`. The date is looked at first, so that its error says nothing about keys.
    pub(super) fn check_head(
        &self,
        keys: &AccessKeys,
        authorization: &str,
        head: &SignedRequest,
        received: Received,
    ) -> Result<()> {
        let given = Authorization::parse(authorization).ok_or_else(|| invalid("malformed Authorization"))?;
        let date = header(head, DATE).ok_or_else(|| invalid("no X-Sdk-Date"))?;
        let seconds = sdk_date::parse(date).ok_or_else(|| invalid("malformed X-Sdk-Date"))?;
        self.check_date(seconds, received)?;
        keys.find(given.access).1.map(drop).ok_or_else(|| invalid("unknown access key"))
    }

    fn check_date(&self, seconds: i64, received: Received) -> Result<()> {
        if received.unix_seconds().abs_diff(seconds) > self.rules.date_window.as_secs() {
            return Err(Error::new(ErrorKind::TokenExpired, "X-Sdk-Date is too far from the time of this service"));
        }
        Ok(())
    }

    fn is_for_us(&self, request: &SignedRequest) -> bool {
        let named = header(request, HOST).and_then(HostName::parse);
        let hosts = &self.rules.hosts;
        hosts.is_empty() || named.is_some_and(|named| hosts.iter().any(|host| host.covers(&named)))
    }

    fn is_fresh(&self, given: &Authorization<'_>, request: &SignedRequest, now: Instant) -> bool {
        let uses_max = if request.method == POLL { self.rules.polls_max } else { self.rules.uses_max };
        let grace = Grace { within: self.rules.replay_window, uses_max };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).admit(given.access, &given.signature, grace, now)
    }
}

/// The reason is for the log: strangers all get the same answer.
fn invalid(reason: &'static str) -> Error {
    tracing::debug!(reason, "a signed request is refused");
    Error::new(ErrorKind::TokenInvalid, "the signature is not valid")
}

/// The header taken apart.
struct Authorization<'a> {
    access: &'a str,
    signed_headers: Vec<&'a str>,
    signature: [u8; 32],
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let fields = text.strip_prefix(SIGNED_SCHEME)?.strip_prefix(' ')?;
        let (mut access, mut headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field.trim().split_once('=')?;
            let place = match name {
                "Access" => &mut access,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        let signed_headers: Vec<_> = headers?.split(';').collect();
        let complete = ALWAYS_SIGNED.iter().all(|name| signed_headers.contains(name));
        let plain = signed_headers.len() <= SIGNED_HEADERS_MAX && signed_headers.iter().all(|name| is_lower_case(name));
        let mut bytes = [0; 32];
        hex::decode_to_slice(signature?, &mut bytes).ok()?;
        (complete && plain).then_some(Self { access: access?, signed_headers, signature: bytes })
    }
}

fn is_lower_case(name: &str) -> bool {
    !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
#[path = "signatures_tests.rs"]
mod tests;
