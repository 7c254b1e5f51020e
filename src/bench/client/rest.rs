//! A client of the REST gateway, on an HTTP/1.1 connection of its own, as the clients of the old service have.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tonic::{Code, Status};

use super::{Delivered, Receipt, Topic, handlers};
use crate::bench::consumer::{LEASE, WAIT};

/// See [`super::Client`].
#[derive(Debug)]
pub struct RestClient {
    project_id: String,
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
}

#[derive(Deserialize)]
struct Leased<'a> {
    #[serde(borrow)]
    message: Message<'a>,
    handler: String,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct Acked {
    success: usize,
}

impl RestClient {
    /// Connects with the first call.
    pub fn new(project_id: String, address: SocketAddr) -> Self {
        Self { project_id, address, connection: None }
    }

    pub(super) async fn send(&mut self, topic: &Topic, bodies: Vec<Bytes>) -> Result<(), Status> {
        let bytes = bodies.iter().map(|body| body.len() + 12).sum::<usize>();
        let mut json = BytesMut::with_capacity(bytes + 32);
        json.put_slice(br#"{"messages":["#);
        for (index, body) in bodies.iter().enumerate() {
            json.put_slice(if index == 0 { br#"{"body":"# } else { br#",{"body":"# });
            json.put_slice(body);
            json.put_u8(b'}');
        }
        json.put_slice(b"]}");
        let path = format!("/v1.0/{}/queues/{}/messages", self.project_id, topic.queue_id);
        self.call(Method::POST, path, json.freeze()).await.map(drop)
    }

    pub(super) async fn consume(&mut self, topic: &Topic, group: usize, max: u32) -> Result<Vec<Delivered>, Status> {
        let (wait, lease) = (WAIT.as_secs(), LEASE.as_secs());
        let path = self.group_path(topic, group, &format!("messages?max_msgs={max}&time_wait={wait}&ack_wait={lease}"));
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
        let entries: Vec<String> =
            handlers(receipts).map(|handler| format!(r#"{{"handler":"{handler}","status":"success"}}"#)).collect();
        let json = format!(r#"{{"message":[{}]}}"#, entries.join(","));
        let answer = self.call(Method::POST, self.group_path(topic, group, "ack"), json.into()).await?;
        let acked: Acked = serde_json::from_slice(&answer).map_err(unreadable)?;
        // Entries are settled in order up to the first that is refused.
        Ok((0..count).map(|index| index < acked.success).collect())
    }

    fn group_path(&self, topic: &Topic, group: usize, rest: &str) -> String {
        let Topic { queue_id, group_ids } = topic;
        format!("/v1.0/{}/queues/{queue_id}/groups/{}/{rest}", self.project_id, group_ids[group])
    }

    async fn call(&mut self, method: Method, path: String, body: Bytes) -> Result<Bytes, Status> {
        let answer = self.exchange(method, path, body).await;
        if answer.is_err() {
            self.connection = None;
        }
        let (status, body) = answer.map_err(|error| Status::unavailable(error.to_string()))?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    async fn exchange(&mut self, method: Method, path: String, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let connection = self.connection().await?;
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    async fn connection(&mut self) -> anyhow::Result<&mut SendRequest<Full<Bytes>>> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.connection = Some(sender);
        }
        self.connection.as_mut().ok_or_else(|| anyhow::anyhow!("no connection"))
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
