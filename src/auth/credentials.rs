//! What a caller shows, read from its headers.

use std::fmt;

use crate::domain::signed_request::{SIGNED_SCHEME, SignedRequest};

const BEARER: &str = "Bearer";

/// What a caller shows of itself.
pub enum Credentials<'a> {
    /// Nothing.
    None,
    /// A token: `Authorization: Bearer` or `X-Auth-Token`.
    Token(&'a str),
    /// `Authorization: SDK-HMAC-SHA256` and the request that it signs. Only the gateway in this process can say what that
    /// was: for anyone else there is none.
    Signature(&'a str, Option<&'a SignedRequest>),
    /// Something that is no credential.
    Unreadable,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::Signature(..) => "Signature",
            Self::Unreadable => "Unreadable",
        })
    }
}

impl<'a> Credentials<'a> {
    /// From the values of `authorization` and `x-auth-token`. The former counts when both are there.
    pub fn read(authorization: Header<'a>, auth_token: Header<'a>, signed: Option<&'a SignedRequest>) -> Self {
        match (authorization, auth_token) {
            (Header::Absent, Header::Absent) => Self::None,
            (Header::Absent, Header::Text(token)) if !token.is_empty() => Self::Token(token),
            (Header::Text(text), _) => Self::of_scheme(text, signed),
            _ => Self::Unreadable,
        }
    }

    fn of_scheme(text: &'a str, signed: Option<&'a SignedRequest>) -> Self {
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        let token = rest.trim();
        if scheme == SIGNED_SCHEME {
            return Self::Signature(text, signed);
        }
        match scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty() {
            true => Self::Token(token),
            false => Self::Unreadable,
        }
    }
}

/// A header that may be there once.
#[derive(Clone, Copy)]
pub enum Header<'a> {
    /// Not there.
    Absent,
    /// There once, as text.
    Text(&'a str),
    /// Repeated, or not text: two readers could understand it differently.
    Ambiguous,
}

impl<'a> Header<'a> {
    /// From all values of that name.
    pub fn of(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => std::str::from_utf8(value).map_or(Self::Ambiguous, Self::Text),
            (Some(_), Some(_)) => Self::Ambiguous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(authorization: &'a [&'a str], auth_token: &'a [&'a str]) -> Credentials<'a> {
        let header = |values: &'a [&'a str]| Header::of(values.iter().map(|value| value.as_bytes()));
        Credentials::read(header(authorization), header(auth_token), None)
    }

    #[test]
    fn tokens_come_in_two_headers() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&["Bearer abc"], &[]),
            (&["bearer  abc "], &[]),
            (&["BEARER abc"], &["other"]),
            (&[], &["abc"]),
            (&["Bearer abc"], &["one", "two"]),
        ];
        for (authorization, auth_token) in cases {
            let found = read(authorization, auth_token);
            assert!(matches!(found, Credentials::Token("abc")), "{authorization:?} {auth_token:?}: {found:?}");
        }
    }

    #[test]
    fn a_signature_keeps_its_whole_text() {
        let text = "SDK-HMAC-SHA256 Access=a";
        assert!(matches!(read(&[text], &["abc"]), Credentials::Signature(found, None) if found == text));
    }

    #[test]
    fn what_could_mean_two_things_means_nothing() {
        let cases: [(&[&str], &[&str]); 8] = [
            (&["Bearer abc", "Bearer abc"], &[]),
            (&[], &["abc", "abc"]),
            (&["Bearer"], &["abc"]),
            (&["Bearer "], &[]),
            (&["abc"], &["abc"]),
            (&["Basic dTpw"], &[]),
            (&[""], &[]),
            (&[], &[""]),
        ];
        for (authorization, auth_token) in cases {
            let found = read(authorization, auth_token);
            assert!(matches!(found, Credentials::Unreadable), "{authorization:?} {auth_token:?}: {found:?}");
        }
        assert!(matches!(Header::of([&b"\xff"[..]].into_iter()), Header::Ambiguous));
        assert!(matches!(read(&[], &[]), Credentials::None));
    }

    #[test]
    fn debug_shows_no_credential() {
        for authorization in ["Bearer secret", "SDK-HMAC-SHA256 secret", "secret"] {
            assert!(!format!("{:?}", read(&[authorization], &["secret"])).contains("secret"));
        }
    }
}
