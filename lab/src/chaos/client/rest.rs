//! The REST API.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Ask, Entry, Failure, Received, Target};
use crate::chaos::api::{AckOutcome, AckStatus, Source};
use crate::harness::rest::{self, Acked, Leased, RestConnection};

/// See [`super::Caller`].
#[derive(Debug)]
pub(crate) struct RestCaller {
    connection: RestConnection,
}

#[derive(Deserialize)]
struct Refusal {
    error_code: String,
}

impl RestCaller {
    /// Connects with the first call.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { connection: RestConnection::new(address) }
    }

    pub(super) async fn send(
        &mut self,
        project: &str,
        queue: &str,
        bodies: &[Bytes],
        delay: Duration,
    ) -> Result<(), Failure> {
        let path = format!("{}/messages", rest::queue_path(project, queue));
        self.call(Method::POST, path, rest::messages(bodies, delay)).await.map(drop)
    }

    pub(super) async fn consume(&mut self, target: &Target, ask: Ask) -> Result<Vec<Received>, Failure> {
        let stream = if target.source == Source::Normal { "messages" } else { "deadletters" };
        let query = rest::consume_query(ask.max, ask.wait, ask.lease);
        let answer = self.call(Method::GET, format!("{}/{stream}?{query}", group_path(target)), Bytes::new()).await?;
        let leased: Vec<Leased<'_>> = serde_json::from_slice(&answer).map_err(unreadable)?;
        let received = leased.into_iter().map(|leased| Received {
            body: answer.slice_ref(leased.message.body.get().as_bytes()),
            handler: leased.handler,
            attempts: None,
        });
        Ok(received.collect())
    }

    pub(super) async fn ack(&mut self, target: &Target, entries: &[Entry]) -> Result<Vec<AckOutcome>, Failure> {
        let path = if target.source == Source::Normal { "ack" } else { "deadletters/ack" };
        let texts = entries.iter().map(|entry| (entry.handler.as_str(), entry.status == AckStatus::Success));
        let path = format!("{}/{path}", group_path(target));
        let answer = self.call(Method::POST, path, rest::acknowledgement(texts)).await?;
        let acked: Acked = serde_json::from_slice(&answer).map_err(unreadable)?;
        Ok(outcomes(entries, acked.success))
    }

    async fn call(&mut self, method: Method, path: String, body: Bytes) -> Result<Bytes, Failure> {
        let answer = self.connection.call(method, path, body).await;
        let (status, body) = answer.map_err(|_| Failure::Unknown("transport".to_owned()))?;
        if status.is_success() { Ok(body) } else { Err(failure(status, &body)) }
    }
}

fn group_path(target: &Target) -> String {
    rest::group_path(&target.project, &target.queue, &target.group)
}

/// The first so many were acknowledged. The one behind them ended the walk: by what it said, or because its handler is not
/// valid; when it said that it failed, both are possible.
fn outcomes(entries: &[Entry], acked: usize) -> Vec<AckOutcome> {
    let outcome = |(index, entry): (usize, &Entry)| match (index.cmp(&acked), entry.status) {
        (std::cmp::Ordering::Less, _) => AckOutcome::Acked,
        (std::cmp::Ordering::Equal, AckStatus::Success) => AckOutcome::InvalidHandler,
        _ => AckOutcome::AfterFailure,
    };
    entries.iter().enumerate().map(outcome).collect()
}

fn failure(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => Failure::documented(refusal.error_code, status.as_u16()),
        Err(_) => Failure::Unknown(format!("status {}", status.as_u16())),
    }
}

fn unreadable(error: serde_json::Error) -> Failure {
    Failure::Unknown(format!("an answer that is not what is documented: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_follow_from_the_number_that_was_acknowledged() {
        let entry = |status| Entry { handler: String::new(), status };
        let (success, fail) = (entry(AckStatus::Success), entry(AckStatus::Fail));
        let entries = [success.clone(), fail, success];
        assert_eq!(outcomes(&entries, 1), [AckOutcome::Acked, AckOutcome::AfterFailure, AckOutcome::AfterFailure]);
        assert_eq!(outcomes(&entries, 0)[0], AckOutcome::InvalidHandler);
        assert_eq!(outcomes(&entries[..1], 1), [AckOutcome::Acked]);
    }

    #[test]
    fn a_refusal_has_not_happened_and_an_outage_may_have() {
        let body = |code: &str| format!(r#"{{"error_code":"{code}","error_msg":"x"}}"#);
        let refused = failure(StatusCode::NOT_FOUND, body("DMS.10240407").as_bytes());
        assert_eq!(refused, Failure::Refused("DMS.10240407".into()));
        let unknown = failure(StatusCode::INTERNAL_SERVER_ERROR, body("DMS.10250003").as_bytes());
        assert_eq!(unknown, Failure::Unknown("DMS.10250003".into()));
        assert_eq!(failure(StatusCode::BAD_GATEWAY, b"<html>"), Failure::Unknown("status 502".into()));
    }
}
