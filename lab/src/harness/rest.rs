//! The REST API as its clients speak it: paths, JSON bodies, and one HTTP/1.1 connection, as the clients of the old service
//! have.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;

/// One element of the answer to a consume.
#[derive(Debug, Deserialize)]
pub struct Leased<'a> {
    /// What was sent.
    #[serde(borrow)]
    pub message: Message<'a>,
    /// Acknowledges it.
    pub handler: String,
}

/// A message as a consumer gets it.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// The sender's JSON text.
    #[serde(borrow)]
    pub body: &'a RawValue,
}

/// The answer to an acknowledgement.
#[derive(Debug, Deserialize)]
pub struct Acked {
    /// The first so many entries were acknowledged.
    pub success: usize,
}

/// The path of a queue.
pub fn queue_path(project_id: &str, queue_id: &str) -> String {
    format!("/v1.0/{project_id}/queues/{queue_id}")
}

/// The path of a consumer group.
pub fn group_path(project_id: &str, queue_id: &str, group_id: &str) -> String {
    format!("{}/groups/{group_id}", queue_path(project_id, queue_id))
}

/// The query of a consume.
pub fn consume_query(max: u32, wait: Duration, lease: Duration) -> String {
    format!("max_msgs={max}&time_wait={}&ack_wait={}", wait.as_secs(), lease.as_secs())
}

/// The body of a send.
pub fn messages(bodies: &[Bytes], delay: Duration) -> Bytes {
    let delay = match delay.as_millis() {
        0 => String::new(),
        millis => format!(r#","delayTime":{millis}"#),
    };
    let bytes = bodies.iter().map(|body| body.len() + delay.len() + 12).sum::<usize>();
    let mut json = BytesMut::with_capacity(bytes + 32);
    json.put_slice(br#"{"messages":["#);
    for (index, body) in bodies.iter().enumerate() {
        json.put_slice(if index == 0 { br#"{"body":"# } else { br#",{"body":"# });
        json.put_slice(body);
        json.put_slice(delay.as_bytes());
        json.put_u8(b'}');
    }
    json.put_slice(b"]}");
    json.freeze()
}

/// The body of an acknowledgement: handlers, each with whether it succeeded.
pub fn acknowledgement<'a>(entries: impl Iterator<Item = (&'a str, bool)>) -> Bytes {
    let entry = |(handler, success): (&str, bool)| {
        let status = if success { "success" } else { "fail" };
        format!(r#"{{"handler":"{handler}","status":"{status}"}}"#)
    };
    let entries: Vec<String> = entries.map(entry).collect();
    format!(r#"{{"message":[{}]}}"#, entries.join(",")).into()
}

/// A connection with one call in flight, made when it is needed.
#[derive(Debug)]
pub struct RestConnection {
    address: SocketAddr,
    idle: Option<SendRequest<Full<Bytes>>>,
}

impl RestConnection {
    /// Connects with the first call.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, idle: None }
    }

    /// One call and its answer, whatever its status. The connection ends with a call that fails or is given up.
    pub async fn call(&mut self, method: Method, path: String, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let mut connection = match self.idle.take() {
            Some(connection) => connection,
            None => connect(self.address).await?,
        };
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        self.idle = Some(connection);
        Ok((status, body))
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_the_json_of_the_api() {
        let bodies = [Bytes::from_static(b"1"), Bytes::from_static(br#"{"a":2}"#)];
        assert_eq!(messages(&bodies, Duration::ZERO), r#"{"messages":[{"body":1},{"body":{"a":2}}]}"#);
        assert_eq!(messages(&bodies[..1], Duration::from_secs(1)), r#"{"messages":[{"body":1,"delayTime":1000}]}"#);
        let entries = [("x", true), ("y", false)];
        let expected = r#"{"message":[{"handler":"x","status":"success"},{"handler":"y","status":"fail"}]}"#;
        assert_eq!(acknowledgement(entries.into_iter()), expected);
    }
}
