//! Whom a request believes to be talking to. HTTP wants one `Host` of a request, or two readers of it may mean different ones. And where nobody
//! has to show credentials, a page of a stranger must not be able to make a browser call: by a name of its own that it leads here (DNS
//! rebinding), or from another site.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, HOST, ORIGIN};
use http::{HeaderName, HeaderValue, Version};

use super::cors::Origin;
use super::error::Failure;
use super::request_id::{X_REQUEST_ID, new_id};
use crate::domain::hosts::HostName;
use crate::domain::{Error, ErrorKind, Result};

/// What a browser says of the page that a request is from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The hosts that requests may be for. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct HostRules {
    names: Option<Arc<[HostName]>>,
    /// Pages that may call, from wherever they are.
    origins: Arc<[Origin]>,
}

impl HostRules {
    /// Any: callers show credentials, which a page of a stranger has not.
    pub(crate) fn any() -> Self {
        Self { names: None, origins: Arc::default() }
    }

    /// Addresses, names inside of a network, and these; the same for the page that a request is from.
    pub(crate) fn inside_and(names: &[HostName]) -> Self {
        Self { names: Some(names.into()), origins: Arc::default() }
    }

    /// Pages of these origins, too.
    #[must_use]
    pub(crate) fn and_pages_of(self, origins: &[Origin]) -> Self {
        Self { origins: origins.into(), ..self }
    }

    fn check(&self, request: &Request) -> Result<()> {
        let host = host_of(request)?;
        let Some(names) = &self.names else { return Ok(()) };
        let allowed = |host: &HostName| host.is_inside() || names.iter().any(|name| name.covers(host));
        // A browser always names one: a request that names none is of no page.
        if !host.as_ref().is_none_or(allowed) {
            return Err(foreign("Host: of no name that this address may be called by: see --allowed-hosts"));
        }
        let mut invited = false;
        for origin in request.headers().get_all(ORIGIN) {
            if self.origins.iter().any(|page| page.covers(origin)) {
                invited = true;
            } else if !origin_of(origin).as_ref().is_some_and(allowed) {
                return Err(foreign("Origin: a page of another site may not call this address: see --allowed-hosts"));
            }
        }
        if !invited && request.headers().get_all(FETCH_SITE).iter().any(|site| site == "cross-site") {
            return Err(foreign("Sec-Fetch-Site: a page of another site may not call this address"));
        }
        Ok(())
    }
}

fn foreign(message: &'static str) -> Error {
    Error::new(ErrorKind::AccessDenied, message)
}

/// The host that a request names; none when it names none and need not, or an empty one.
fn host_of(request: &Request) -> Result<Option<HostName>> {
    let malformed = |message: &str| Error::new(ErrorKind::RequestFormat, message.to_owned());
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let mut headers = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (header, more) = (headers.next(), headers.next());
    if more.is_some() {
        return Err(malformed("Host: there are several"));
    }
    if header.is_none() && request.version() == Version::HTTP_11 {
        return Err(malformed("Host: missing"));
    }
    if let (Some(header), Some(authority)) = (header, authority)
        && !header.eq_ignore_ascii_case(authority)
    {
        return Err(malformed("Host: not that of the URL"));
    }
    match authority.or(header) {
        None | Some(b"") => Ok(None),
        Some(text) => {
            HostName::parse(text).map(Some).ok_or_else(|| malformed("Host: not of the form HOST or HOST:PORT"))
        }
    }
}

/// The host of `https://host:port`; `null`, as of a page without an origin, has none.
fn origin_of(origin: &HeaderValue) -> Option<HostName> {
    let text = origin.to_str().ok()?;
    let (_scheme, host) = text.split_once("://")?;
    HostName::parse(host.as_bytes())
}

/// Lets only requests pass that name a host as they should. To be put around everything that a listener serves.
pub(crate) fn guarded(app: Router, rules: HostRules) -> Router {
    app.layer(from_fn_with_state(rules, guard))
}

async fn guard(State(rules): State<HostRules>, request: Request, next: Next) -> Response {
    match rules.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            tracing::debug!(why = error.message(), "a request is refused for the host that it names");
            let mut response = Failure::from(error).into_response();
            response.headers_mut().insert(X_REQUEST_ID, new_id());
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn request(version: Version, uri: &str, headers: Headers<'_>) -> Request {
        let mut request = http::Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn refusal(rules: &HostRules, version: Version, uri: &str, headers: Headers<'_>) -> u16 {
        rules.check(&request(version, uri, headers)).map_or_else(|error| error.kind().row().http, |()| 200)
    }

    #[test]
    fn a_request_names_one_host() {
        let (any, two) = (HostRules::any(), [("host", "a"), ("host", "a")]);
        let cases: [(Version, &str, Headers<'_>, u16); 12] = [
            (Version::HTTP_11, "/", &[("host", "evil.example")], 200),
            (Version::HTTP_11, "/", &[("host", "")], 200),
            (Version::HTTP_11, "/", &[], 400),
            (Version::HTTP_11, "/", &two, 400),
            (Version::HTTP_11, "/", &[("host", "a b")], 400),
            (Version::HTTP_11, "/", &[("host", "a, b")], 400),
            (Version::HTTP_11, "http://a/", &[("host", "A")], 200),
            (Version::HTTP_11, "http://a/", &[("host", "b")], 400),
            (Version::HTTP_10, "/", &[], 200),
            (Version::HTTP_2, "http://a:80/", &[], 200),
            (Version::HTTP_2, "http://a/", &[("host", "b")], 400),
            (Version::HTTP_2, "http://a/", &two, 400),
        ];
        for (version, uri, headers, expected) in cases {
            assert_eq!(refusal(&any, version, uri, headers), expected, "{version:?} {uri} {headers:?}");
        }
    }

    #[test]
    fn a_page_of_a_stranger_reaches_nothing_that_asks_for_no_credentials() {
        let rules = HostRules::inside_and(&["dms.example".parse().unwrap()]);
        let cases: [(Headers<'_>, u16); 14] = [
            (&[("host", "127.0.0.1:9464")], 200),
            (&[("host", "10.1.2.3:9464")], 200),
            (&[("host", "[::1]:9464")], 200),
            (&[("host", "localhost:9464")], 200),
            (&[("host", "dms-admin.shop.svc:9464")], 200),
            (&[("host", "dms.example:443")], 200),
            (&[("host", "rebound.evil.example:9464")], 403),
            (&[("host", "")], 200),
            (&[("host", "127.0.0.1"), ("origin", "http://localhost:3000")], 200),
            (&[("host", "127.0.0.1"), ("origin", "https://dms.example")], 200),
            (&[("host", "127.0.0.1"), ("origin", "https://evil.example")], 403),
            (&[("host", "127.0.0.1"), ("origin", "null")], 403),
            (&[("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")], 403),
            (&[("host", "127.0.0.1"), ("sec-fetch-site", "same-origin")], 200),
        ];
        for (headers, expected) in cases {
            assert_eq!(refusal(&rules, Version::HTTP_11, "/", headers), expected, "{headers:?}");
        }
        assert_eq!(refusal(&rules, Version::HTTP_10, "/", &[]), 200);
    }
}
