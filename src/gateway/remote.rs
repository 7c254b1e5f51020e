//! A gateway on its own does not know credentials. What it knows is what the service answered to them.

use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, Request, Response, header};
use ring::digest::{SHA256, digest};
use tonic::Code;
use tower::Service;

use crate::domain::Result;
use crate::domain::signed_request::SignedRequest;
use crate::net::{Call, Door};

const CREDENTIALS: [HeaderName; 2] = [header::AUTHORIZATION, HeaderName::from_static("x-auth-token")];

/// The door of a gateway on its own: calls count among those of their credentials while the service has them.
#[derive(Debug, Clone, Copy)]
pub struct RemoteDoor;

impl Door for RemoteDoor {
    fn before_body(&self, _: &HeaderMap, _: Option<&SignedRequest>, _: Option<&Call>) -> Result<()> {
        Ok(())
    }

    fn before_call(&self, shown: &HeaderMap, call: Option<&Call>) -> Result<()> {
        call.map_or(Ok(()), |call| call.belongs_to(&owner(shown)))
    }
}

/// Callers by what they show: the same credentials are one owner, and nothing of them is kept.
fn owner(shown: &HeaderMap) -> String {
    let values = CREDENTIALS.into_iter().flat_map(|name| shown.get_all(name));
    let shown: Vec<u8> = values.flat_map(|value| value.as_bytes().iter().chain(b"\n")).copied().collect();
    hex::encode(&digest(&SHA256, &shown).as_ref()[..16])
}

/// The way to a remote service, which learns from its answers whose credentials are good.
#[derive(Debug, Clone)]
pub struct Remote<T>(pub T);

impl<T, A, B> Service<Request<A>> for Remote<T>
where
    T: Service<Request<A>, Response = Response<B>>,
    T::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = T::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<B>, T::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let call = request.extensions_mut().remove::<Call>();
        let owner = call.as_ref().map(|_| owner(request.headers()));
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let (Some(call), Some(owner)) = (call, owner) {
                learn(&call, &owner, answer.headers());
            }
            Ok(answer)
        })
    }
}

/// The service looks at credentials first: any other refusal but that of a full service says that they are good.
fn learn(call: &Call, owner: &str, answer: &HeaderMap) {
    let code = answer.get("grpc-status").map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
    match code {
        Code::Unauthenticated => call.belongs_to_nobody(),
        Code::ResourceExhausted | Code::Unavailable | Code::Unimplemented | Code::Unknown => {}
        _ => call.was_known(owner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner_of(name: &HeaderName, value: &'static str) -> String {
        owner(&HeaderMap::from_iter([(name.clone(), value.parse().unwrap())]))
    }

    #[test]
    fn an_owner_is_who_shows_the_same() {
        assert_eq!(owner_of(&CREDENTIALS[0], "Bearer a"), owner_of(&CREDENTIALS[0], "Bearer a"));
        assert_ne!(owner_of(&CREDENTIALS[0], "Bearer a"), owner_of(&CREDENTIALS[0], "Bearer b"));
        assert_ne!(owner_of(&CREDENTIALS[0], "Bearer a"), owner(&HeaderMap::new()));
        assert_eq!(owner_of(&header::ACCEPT, "a"), owner(&HeaderMap::new()));
    }
}
