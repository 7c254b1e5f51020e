//! Answers to callers who came to the wrong port, in the protocol that they speak.

use std::net::SocketAddr;

use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use tonic::Status;
use tonic::body::Body;

use super::Audience;
use crate::domain::ErrorKind;
use crate::net::tls::Protocol;

/// Where the other protocols are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    /// gRPC, unless this is a gateway on its own.
    pub grpc: Option<SocketAddr>,
    /// REST, if it is on.
    pub rest: Option<SocketAddr>,
}

impl Ports {
    fn grpc(self) -> String {
        let elsewhere = || "gRPC is with the service behind this gateway".to_owned();
        self.grpc.map_or_else(elsewhere, |address| format!("gRPC is at {}", place(address)))
    }

    /// Where REST is, in words.
    pub fn rest(self) -> String {
        self.rest.map_or_else(|| "REST is off".to_owned(), |address| format!("REST is at {}", place(address)))
    }
}

fn place(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("port {} of this host", address.port()) } else { address.to_string() }
}

/// Stands at one port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signpost {
    protocol: Protocol,
    audience: Audience,
    ports: Ports,
}

impl Signpost {
    /// At a port where this is spoken, to these.
    pub(super) fn new(protocol: Protocol, audience: Audience, ports: Ports) -> Self {
        Self { protocol, audience, ports }
    }

    /// The answer to a request of another protocol.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        match self.protocol {
            Protocol::Grpc if is_other_http(request) => Some(self.to_rest(request.version())),
            Protocol::Rest if content_type(request).is_some_and(is_grpc) => Some(self.to_grpc()),
            _ => None,
        }
    }

    fn to_rest(self, version: Version) -> Response<Body> {
        let message = format!("this port speaks gRPC, over HTTP/2; {}", self.ports.rest());
        let row = ErrorKind::WrongPort.row();
        let body = serde_json::json!({ "error_code": format!("DMS.{}", row.code), "error_msg": message });
        let mut response = Response::new(Body::new(Full::from(body.to_string())));
        *response.status_mut() = StatusCode::from_u16(row.http).unwrap_or(StatusCode::BAD_REQUEST);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if version < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn to_grpc(self) -> Response<Body> {
        let here = match self.audience {
            Audience::Public => "REST",
            Audience::Operators => "HTTP to operators",
        };
        Status::unimplemented(format!("this port speaks {here}; {}", self.ports.grpc())).into_http()
    }
}

/// Whether no gRPC client has sent it. A call without any content type is left to the gRPC library.
fn is_other_http<B>(request: &Request<B>) -> bool {
    request.version() < Version::HTTP_2
        || request.method() != Method::POST
        || content_type(request).is_some_and(|value| !is_grpc(value))
}

fn content_type<B>(request: &Request<B>) -> Option<&HeaderValue> {
    request.headers().get(CONTENT_TYPE)
}

fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"application/grpc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_as_they_can_be_reached() {
        let ports = |grpc: &str, rest: &str| Ports { grpc: grpc.parse().ok(), rest: rest.parse().ok() };
        let ports_of_all = ports("0.0.0.0:50051", "[::]:8080");
        assert_eq!(ports_of_all.grpc(), "gRPC is at port 50051 of this host");
        assert_eq!(ports_of_all.rest(), "REST is at port 8080 of this host");
        assert_eq!(ports("", "10.0.0.1:8080").rest(), "REST is at 10.0.0.1:8080");
        assert_eq!(ports("", "").rest(), "REST is off");
        assert_eq!(ports("", "").grpc(), "gRPC is with the service behind this gateway");
    }

    #[test]
    fn only_callers_of_another_protocol_are_turned_away() {
        let answered = |protocol, version, method: &str, content_type: &str| {
            let mut request = Request::builder().version(version).method(method);
            if !content_type.is_empty() {
                request = request.header(CONTENT_TYPE, content_type);
            }
            let signpost = Signpost::new(protocol, Audience::Public, Ports::default());
            signpost.answer(&request.body(()).unwrap()).is_some()
        };
        for (version, method, content_type, grpc, rest) in [
            (Version::HTTP_2, "POST", "application/grpc", false, true),
            (Version::HTTP_2, "POST", "application/grpc+proto", false, true),
            (Version::HTTP_2, "POST", "", false, false),
            (Version::HTTP_2, "POST", "application/json", true, false),
            (Version::HTTP_2, "GET", "", true, false),
            (Version::HTTP_11, "POST", "application/grpc", true, true),
            (Version::HTTP_11, "GET", "", true, false),
        ] {
            let case = format!("{version:?} {method} {content_type}");
            assert_eq!(answered(Protocol::Grpc, version, method, content_type), grpc, "{case}");
            assert_eq!(answered(Protocol::Rest, version, method, content_type), rest, "{case}");
        }
    }
}
