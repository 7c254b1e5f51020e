//! Names in a header of the answer what of a request nobody read: keys of its body and parameters of its URL. They are accepted, for the
//! original service did so, but a name that is misspelled must not pass in silence.

use std::fmt::{Display, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::Query as Parameters;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// The header: names with commas between, such as `max_consume_cnt, messages[0].bdy, ?wait`.
pub(super) const X_DMS_IGNORED: HeaderName = HeaderName::from_static("x-dms-ignored");

const NAMES_MAX: usize = 16;
/// Of a longer name the beginning is shown.
const NAME_BYTES_MAX: usize = 40;
/// What a name shows as it is; all else is escaped as in a URL, so that no name can look like two, or like another header.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

/// What was not read of one request: an extension of it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignored(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    shown: String,
    count: usize,
    /// Of a handler that looks at no parameters, until it is known whether it does.
    uri: Option<Uri>,
}

impl Ignored {
    /// A key in this place of the body.
    pub(super) fn key(&self, place: impl Display, name: &[u8]) {
        self.lock().add(place, name);
    }

    /// A parameter of the URL.
    pub(super) fn parameter(&self, name: &str) {
        self.lock().add('?', name.as_bytes());
    }

    /// A request that is handled; its parameters are ignored unless somebody says otherwise.
    pub(super) fn expect_no_query(&self, uri: &Uri) {
        if uri.query().is_some() {
            self.lock().uri = Some(uri.clone());
        }
    }

    /// Somebody looks at its parameters, and says which they ignore.
    pub(super) fn query_is_read(&self) {
        self.lock().uri = None;
    }

    /// Adds the header, if there is anything to name.
    pub(super) fn show(&self, headers: &mut HeaderMap) {
        let mut names = self.lock();
        if let Some(uri) = names.uri.take() {
            let parameters = Parameters::<Vec<(String, String)>>::try_from_uri(&uri);
            parameters.into_iter().flat_map(|all| all.0).for_each(|(name, _)| names.add('?', name.as_bytes()));
        }
        // Nothing but visible ASCII is in it.
        if let (1.., Ok(value)) = (names.count, HeaderValue::from_str(&names.shown)) {
            headers.insert(X_DMS_IGNORED, value);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn add(&mut self, place: impl Display, name: &[u8]) {
        self.count += 1;
        let between = if self.count > 1 { ", " } else { "" };
        // Writing into a string cannot fail.
        let _ = match self.count {
            ..=NAMES_MAX => {
                let (shown, more) = match name.get(..NAME_BYTES_MAX) {
                    Some(beginning) if name.len() > NAME_BYTES_MAX => (beginning, "..."),
                    _ => (name, ""),
                };
                write!(self.shown, "{between}{place}{}{more}", percent_encode(shown, ESCAPED))
            }
            count if count == NAMES_MAX + 1 => write!(self.shown, "{between}..."),
            _ => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ignored: &Ignored) -> Option<String> {
        let mut headers = HeaderMap::new();
        ignored.show(&mut headers);
        headers.get(X_DMS_IGNORED).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn names_are_escaped_and_bounded() {
        let ignored = Ignored::default();
        assert_eq!(shown(&ignored), None);
        ignored.key("", b"max_consume_cnt");
        ignored.key("messages[3].", b"b,\r\ny\xff");
        ignored.parameter("w\u{202e}it");
        assert_eq!(shown(&ignored).unwrap(), "max_consume_cnt, messages[3].b%2C%0D%0Ay%FF, ?w%E2%80%AEit");
        (0..10_000).for_each(|_| ignored.key("messages[9].", &[0xff; 1000]));
        let all = shown(&ignored).unwrap();
        assert!(all.len() < 3_000 && all.ends_with("%FF..., ..."), "{} {all}", all.len());
        assert_eq!(all.matches(", ").count(), NAMES_MAX);
    }

    #[test]
    fn parameters_that_nobody_reads_are_named() {
        let ignored = Ignored::default();
        let uri: Uri = "http://h/queues?wait=5&a%20b&wait=6".parse().unwrap();
        ignored.expect_no_query(&uri);
        assert_eq!(shown(&ignored).unwrap(), "?wait, ?a%20b, ?wait");
        let read = Ignored::default();
        read.expect_no_query(&uri);
        read.query_is_read();
        assert_eq!(shown(&read), None);
    }
}
