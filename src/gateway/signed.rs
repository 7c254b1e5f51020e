//! Signed requests (`Authorization: SDK-HMAC-SHA256`). A signature covers the HTTP request, which the service behind gRPC does
//! not see, so the gateway hands it over beside the call. It judges nothing itself.
//!
//! It goes along as an extension of the call: that stays inside of this process, so nobody outside can set it, and a gateway on
//! its own has nothing to hand over.

use axum::extract::OriginalUri;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;

use crate::domain::signed_request::{SIGNED_SCHEME, SignedRequest};

/// What the signature of this request covers, but for the body; `None` when it has no signature.
pub(super) fn head(parts: &Parts) -> Option<SignedRequest> {
    let authorization = parts.headers.get(AUTHORIZATION)?;
    authorization.as_bytes().starts_with(SIGNED_SCHEME.as_bytes()).then_some(())?;
    // Routing has taken the version and the project off the path.
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let mut headers: Vec<_> = headers.collect();
    // HTTP/2 has it in the URI.
    if let (false, Some(authority)) = (parts.headers.contains_key(HOST), uri.authority()) {
        headers.push((HOST.as_str().to_owned(), authority.as_str().as_bytes().to_vec()));
    }
    Some(SignedRequest {
        method: parts.method.as_str().to_owned(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers,
        ..SignedRequest::default()
    })
}
