//! An HTTP request whose sender signed it. Only the REST gateway sees such a request; it hands over what the signature
//! covers, and the service checks it.

use std::fmt;

use bytes::Bytes;

/// The scheme in `Authorization` of a signed request.
pub(crate) const SIGNED_SCHEME: &str = "SDK-HMAC-SHA256";

/// What a signature covers, as it came over the wire: nothing is decoded.
#[derive(Clone, Default)]
pub struct SignedRequest {
    /// Such as `POST`.
    pub method: String,
    /// Up to the `?`.
    pub path: String,
    /// Behind the `?`; empty when there is none.
    pub query: String,
    /// Names in lower case, in order of arrival.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Empty when there is none.
    pub body: Bytes,
}

impl fmt::Debug for SignedRequest {
    /// Headers carry the signature and the body carries messages: neither is for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRequest").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}
