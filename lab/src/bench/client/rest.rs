//! A client of the REST gateway, on an HTTP/1.1 connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tonic::{Code, Status};

use super::{Delivered, Receipt, Topic, handlers};
use crate::bench::consumer::{LEASE, WAIT};
use crate::harness::rest::{self, Acked, Leased, RestConnection};

/// See [`super::Client`].
#[derive(Debug)]
pub(crate) struct RestClient {
    project_id: String,
    connection: RestConnection,
}

impl RestClient {
    /// Connects with the first call.
    pub(crate) fn new(project_id: String, address: SocketAddr) -> Self {
        Self { project_id, connection: RestConnection::new(address) }
    }

    pub(super) async fn send(&mut self, topic: &Topic, bodies: Vec<Bytes>) -> Result<(), Status> {
        let path = format!("{}/messages", rest::queue_path(&self.project_id, &topic.queue_id));
        self.call(Method::POST, path, rest::messages(&bodies, Duration::ZERO)).await.map(drop)
    }

    pub(super) async fn consume(&mut self, topic: &Topic, group: usize, max: u32) -> Result<Vec<Delivered>, Status> {
        let path = format!("{}/messages?{}", self.group_path(topic, group), rest::consume_query(max, WAIT, LEASE));
        let answer = self.call(Method::GET, path, Bytes::new()).await?;
        let leased: Vec<Leased<'_>> = serde_json::from_slice(&answer).map_err(unreadable)?;
        let delivered = leased.into_iter().map(|leased| Delivered {
            body: answer.slice_ref(leased.message.body.get().as_bytes()),
            receipt: Receipt::Handler(leased.handler),
        });
        Ok(delivered.collect())
    }

    pub(super) async fn ack(
        &mut self,
        topic: &Topic,
        group: usize,
        receipts: Vec<Receipt>,
    ) -> Result<Vec<bool>, Status> {
        let count = receipts.len();
        let handlers: Vec<String> = handlers(receipts).collect();
        let body = rest::acknowledgement(handlers.iter().map(|handler| (handler.as_str(), true)));
        let answer = self.call(Method::POST, format!("{}/ack", self.group_path(topic, group)), body).await?;
        let acked: Acked = serde_json::from_slice(&answer).map_err(unreadable)?;
        // Entries are settled in order up to the first that is refused.
        Ok((0..count).map(|index| index < acked.success).collect())
    }

    fn group_path(&self, topic: &Topic, group: usize) -> String {
        rest::group_path(&self.project_id, &topic.queue_id, &topic.group_ids[group])
    }

    async fn call(&mut self, method: Method, path: String, body: Bytes) -> Result<Bytes, Status> {
        let answer = self.connection.call(method, path, body).await;
        let (status, body) = answer.map_err(|error| Status::unavailable(error.to_string()))?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }
}

fn unreadable(error: serde_json::Error) -> Status {
    Status::internal(format!("an answer that is not what is documented: {error}"))
}

/// The gateway's error as a status: overload and outages are told by their HTTP status and code.
fn refusal(status: StatusCode, body: &[u8]) -> Status {
    let text = String::from_utf8_lossy(body);
    let code = match status {
        _ if text.contains("DMS.10240407") => Code::ResourceExhausted,
        StatusCode::INTERNAL_SERVER_ERROR if text.contains("10250003") => Code::Unavailable,
        StatusCode::BAD_REQUEST if text.contains("handler") => Code::FailedPrecondition,
        _ => Code::Internal,
    };
    Status::new(code, format!("{status}: {text}"))
}
