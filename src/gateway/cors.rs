//! Pages of other sites that may call (CORS): none, unless there is a setting. A browser asks before a page's request, and shows the page
//! nothing of an answer that does not allow it.

use std::str::FromStr;
use std::time::Duration;

use axum::Router;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::ignored::X_DMS_IGNORED;
use super::messages::INVALID_HANDLER;
use super::request_id::X_REQUEST_ID;
use crate::observe::traceparent::TRACEPARENT;

/// How long a browser need not ask again.
const REMEMBERED: Duration = Duration::from_secs(600);
const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::DELETE];
/// What a page may send beside what any may.
const SENT: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    HeaderName::from_static("x-auth-token"),
    HeaderName::from_static("x-sdk-date"),
    TRACEPARENT,
    X_REQUEST_ID,
];
/// What a page may read.
const SHOWN: [HeaderName; 7] = [
    header::ALLOW,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    TRACEPARENT,
    INVALID_HANDLER,
    X_DMS_IGNORED,
    X_REQUEST_ID,
];

/// Where a page may be from: `https://app.example`, with a port if it is none of the usual, or anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`.
    Any,
    /// As browsers write it.
    Of(HeaderValue),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let text = text.to_ascii_lowercase();
        let of_web = text.starts_with("https://") || text.starts_with("http://");
        let uri = text.parse::<Uri>().ok().filter(|uri| of_web && uri.query().is_none() && !text.ends_with('/'));
        let plain =
            uri.is_some_and(|uri| uri.path() == "/" && uri.authority().is_some_and(|a| !a.as_str().contains('@')));
        let value = HeaderValue::from_str(&text).ok().filter(|_| plain && !text.contains(['#', '*']));
        value.map(Self::Of).ok_or_else(|| "give https://HOST or https://HOST:PORT, or *".to_owned())
    }
}

impl Origin {
    /// Whether a request that names this origin is of such a page.
    pub(crate) fn covers(&self, named: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::Of(origin) => origin == named,
        }
    }
}

/// Lets pages of these origins call, if there are any. What needs credentials needs them from pages, too.
pub(crate) fn allowing(app: Router, origins: &[Origin]) -> Router {
    if origins.is_empty() {
        return app;
    }
    let origins = origins.to_vec();
    let any = origins.contains(&Origin::Any);
    let allowed = AllowOrigin::predicate(move |named, _| origins.iter().any(|origin| origin.covers(named)));
    app.layer(
        CorsLayer::new()
            .allow_origin(if any { AllowOrigin::any() } else { allowed })
            .allow_methods(METHODS)
            .allow_headers(SENT)
            .expose_headers(SHOWN)
            .max_age(REMEMBERED),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        for text in ["https://app.example", "http://localhost:3000", "https://[::1]:8443"] {
            assert_eq!(text.parse(), Ok(Origin::Of(HeaderValue::from_static(text))));
        }
        assert_eq!("HTTPS://App.Example".parse(), Ok(Origin::Of(HeaderValue::from_static("https://app.example"))));
        assert_eq!("*".parse(), Ok(Origin::Any));
        for text in [
            "",
            "app.example",
            "https://",
            "https://a/",
            "https://a/b",
            "https://a?b",
            "ftp://a",
            "https://u@a",
            "null",
            "https://*.example",
        ] {
            text.parse::<Origin>().unwrap_err();
        }
    }
}
