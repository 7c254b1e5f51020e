//! HTTP/1 by hand over a raw socket: what no client library would send.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::service::Replica;

const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub(crate) struct Wire(BufReader<TcpStream>);

/// One answer: status, header lines in lower case, body.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Wire {
    pub(crate) async fn open(replica: &Replica) -> Self {
        Self::open_at(replica.rest()).await
    }

    /// To any `http://HOST:PORT`.
    pub(crate) async fn open_at(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap();
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next answer; `None` when the service has closed the connection.
    pub(crate) async fn answer(&mut self) -> Option<RawAnswer> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an answer in time")
    }

    /// Sends bytes that make one request; its answer.
    pub(crate) async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> RawAnswer {
        self.send(bytes).await;
        self.answer().await.expect("an answer")
    }

    /// Sends all and ends; what comes back until the service closes. Requests still being worked on get no answer.
    pub(crate) async fn exchange(mut self, bytes: impl AsRef<[u8]>) -> Vec<RawAnswer> {
        // It may be closed before all is read.
        let _refused = self.0.write_all(bytes.as_ref()).await;
        let _closed = self.0.shutdown().await;
        let mut answers = Vec::new();
        while let Some(answer) = self.answer().await {
            answers.push(answer);
        }
        answers
    }

    async fn read(&mut self) -> Option<RawAnswer> {
        let status = self.line().await?.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            match self.line().await?.as_str() {
                "" => break,
                line => headers.push(header_line(line)),
            }
        }
        let mut answer = RawAnswer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body.resize(length, 0);
        self.0.read_exact(&mut answer.body).await.ok()?;
        Some(answer)
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        // A reset is an end, too.
        match self.0.read_line(&mut line).await {
            Ok(read) if read > 0 => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }
}

fn header_line(line: &str) -> String {
    let (name, value) = line.split_once(':').unwrap();
    format!("{}: {}", name.to_lowercase(), value.trim())
}
