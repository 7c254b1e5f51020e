//! The canonical form of a signed request: the text whose digest `SDK-HMAC-SHA256` signs. The public SDKs build the same:
//!
//! ```text
//! METHOD
//! /decoded/and/encoded/again/
//! sorted=query&with=values
//! header:value
//!
//! names;of;these;headers
//! hex of the SHA-256 of the body
//! ```

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use ring::digest::{SHA256, digest};

use crate::domain::signed_request::SignedRequest;

/// Everything but `A-Z a-z 0-9 - . _ ~`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The only query parameter of the API whose values are a set: it may be repeated, in any order.
const REPEATABLE: &[u8] = b"tag";

/// The canonical form with these headers; `None` when one of them is not there exactly once.
pub(super) fn canonical(request: &SignedRequest, signed_headers: &[&str]) -> Option<Vec<u8>> {
    let mut form = Vec::with_capacity(512);
    let mut line = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| form.extend_from_slice(part));
        form.push(b'\n');
    };
    line(&[request.method.to_ascii_uppercase().as_bytes()]);
    line(&[path(&request.path).as_bytes()]);
    line(&[query(&request.query).as_bytes()]);
    for name in signed_headers {
        line(&[name.as_bytes(), b":", header(request, name)?]);
    }
    line(&[]);
    line(&[signed_headers.join(";").as_bytes()]);
    form.extend_from_slice(sha256_hex(&request.body).as_bytes());
    Some(form)
}

/// The SHA-256 in hexadecimal digits.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

/// The value of a header that must be there once, without spaces around it.
pub(super) fn header<'a>(request: &'a SignedRequest, name: &str) -> Option<&'a [u8]> {
    let mut values = request.headers.iter().filter(|(given, _)| given == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.trim_ascii()),
        _ => None,
    }
}

fn path(path: &str) -> String {
    let decoded: Vec<u8> = percent_decode(path.as_bytes()).collect();
    let parts: Vec<String> = decoded.split(|byte| *byte == b'/').map(encode).collect();
    let path = parts.join("/");
    if path.ends_with('/') { path } else { path + "/" }
}

/// Whether the values of a parameter could be put in another order under the same signature, and mean something else then: the
/// canonical form sorts them.
pub(super) fn depends_on_order(query: &str) -> bool {
    let mut keys: Vec<_> = pairs(query).into_iter().map(|(key, _)| key).filter(|key| key != REPEATABLE).collect();
    keys.sort();
    keys.windows(2).any(|two| two[0] == two[1])
}

/// Decoded as the handlers decode it, so that what is checked is what is done.
fn pairs(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let decode = |text: &str| percent_decode(text.replace('+', " ").as_bytes()).collect::<Vec<u8>>();
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

fn query(query: &str) -> String {
    let mut pairs = pairs(query);
    pairs.sort();
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    pairs.join("&")
}

fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_end_with_a_slash_and_are_encoded_once() {
        let cases = [
            ("/resources", "/resources/"),
            ("/resources/", "/resources/"),
            ("/", "/"),
            ("/v1.0/p/queues/a%20b~c", "/v1.0/p/queues/a%20b~c/"),
            ("/a%2fb/%e4%b8%80", "/a/b/%E4%B8%80/"),
            ("/a!b", "/a%21b/"),
        ];
        for (given, expected) in cases {
            assert_eq!(path(given), expected);
        }
    }

    #[test]
    fn queries_are_sorted_by_key_and_value_before_they_are_encoded() {
        let cases = [
            ("", ""),
            ("b=2&a=1&&a=0", "a=0&a=1&b=2"),
            ("flag&x=", "flag=&x="),
            ("path=%2Ftmp%2F123&test=%e4%b8%80+%28%26%3D", "path=%2Ftmp%2F123&test=%E4%B8%80%20%28%26%3D"),
            ("tag=b&tag=a&tag_type=or", "tag=a&tag=b&tag_type=or"),
        ];
        for (given, expected) in cases {
            assert_eq!(query(given), expected);
        }
    }

    #[test]
    fn only_values_of_a_set_may_be_put_in_another_order() {
        for (query, expected) in [
            ("", false),
            ("a=1&b=1", false),
            ("tag=b&tag=a&tag=b&tag_type=or", false),
            ("max_msgs=1&max_msgs=10", true),
            ("max_msgs=1&tag=a&max%5Fmsgs=1", true),
            ("tag_type=or&tag_type=and", true),
            ("a&a", true),
            ("Tag=1&tag=1", false),
            ("Tag=1&Tag=2", true),
        ] {
            assert_eq!(depends_on_order(query), expected, "{query}");
        }
    }

    #[test]
    fn the_form_is_what_the_documentation_shows() {
        let request = SignedRequest {
            method: "get".into(),
            path: "/resources".into(),
            query: "size=1".into(),
            headers: vec![("x-sdk-date".into(), b"  20200608T023900Z ".to_vec()), ("host".into(), b"h".to_vec())],
            body: bytes::Bytes::new(),
        };
        let expected = "GET\n/resources/\nsize=1\nhost:h\nx-sdk-date:20200608T023900Z\n\nhost;x-sdk-date\n\
                        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let form = canonical(&request, &["host", "x-sdk-date"]).unwrap();
        assert_eq!(String::from_utf8(form).unwrap(), expected);
    }

    #[test]
    fn a_header_that_is_not_there_once_cannot_be_signed() {
        let headers = vec![("a".to_owned(), b"1".to_vec()), ("b".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())];
        let request = SignedRequest { headers, ..SignedRequest::default() };
        assert!(canonical(&request, &["a"]).is_some());
        assert!(canonical(&request, &["b"]).is_none() && canonical(&request, &["c"]).is_none());
    }
}
