//! HTTP/2 as no client library speaks it: streams that are begun and never ended, answers that are not read, frames by hand.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection that gets no further within this is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where `http://host:port` is.
pub(crate) fn address(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

/// One connection of HTTP/2 with all the streams that were begun on it.
pub(crate) struct Streams {
    client: SendRequest<Bytes>,
    root: String,
    held: Vec<(ResponseFuture, SendStream<Bytes>)>,
}

impl Streams {
    /// To a server, which may send so many bytes of each answer before it is asked for more.
    pub(crate) async fn open(url: &str, window: u32) -> Self {
        let stream = TcpStream::connect(address(url)).await.unwrap();
        let (client, connection) = Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { client, root: url.to_owned(), held: Vec::new() }
    }

    /// Begins a request with these headers; false when the server takes no more.
    pub(crate) async fn begin(&mut self, method: &str, path: &str, headers: &[(&str, &str)], ended: bool) -> bool {
        let Ok(Ok(client)) = tokio::time::timeout(PATIENCE, self.client.clone().ready()).await else { return false };
        self.client = client;
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.root));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match self.client.send_request(request.body(()).unwrap(), ended) {
            Ok(begun) => {
                self.held.push(begun);
                true
            }
            Err(_) => false,
        }
    }

    /// As many as the server takes of these, at most `count`, all held; how many.
    pub(crate) async fn fill(
        &mut self,
        count: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        ended: bool,
    ) -> usize {
        for begun in 0..count {
            if !self.begin(method, path, headers, ended).await {
                return begun;
            }
        }
        count
    }

    /// The status of the answer to the last request that was begun.
    pub(crate) async fn status(&mut self) -> u16 {
        let (answer, _) = self.held.pop().unwrap();
        tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time").unwrap().status().as_u16()
    }

    /// The same, and the body of the answer, of which nothing was read.
    pub(crate) async fn status_unread(&mut self) -> (u16, h2::RecvStream) {
        let (answer, _) = self.held.pop().unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time").unwrap();
        (answer.status().as_u16(), answer.into_body())
    }

    /// The `grpc-status` of all answers whose headers are here.
    pub(crate) async fn grpc_statuses(&mut self) -> Vec<String> {
        let mut statuses = Vec::new();
        for (answer, _) in &mut self.held {
            if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_millis(20), answer).await {
                statuses.push(answer.headers().get("grpc-status").map_or("", |code| code.to_str().unwrap()).to_owned());
            }
        }
        statuses
    }

    /// Begins requests and takes each back at once; how many before the server ends the connection.
    pub(crate) async fn reset_rapidly(&mut self, count: usize, path: &str) -> usize {
        for done in 0..count {
            if !self.begin("POST", path, &[], false).await {
                return done;
            }
            if let Some((_, mut body)) = self.held.pop() {
                body.send_reset(Reason::CANCEL);
            }
            if done % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        count
    }
}

/// A frame: type, flags, stream, payload.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Sends a greeting and then this again and again, reading nothing, until the server ends the connection or the time is over; the
/// bytes that it took.
pub(crate) async fn pour(url: &str, bytes: &[u8], time: Duration) -> usize {
    let mut stream = TcpStream::connect(address(url)).await.unwrap();
    let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    first.extend(frame(4, 0, 0, &[]));
    let mut taken = 0;
    let write = async {
        stream.write_all(&first).await?;
        loop {
            stream.write_all(bytes).await?;
            taken += bytes.len();
        }
    };
    let _ended: Result<Result<(), std::io::Error>, _> = tokio::time::timeout(time, write).await;
    let mut rest = vec![0; 65_536];
    let _said = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut rest)).await;
    taken
}
