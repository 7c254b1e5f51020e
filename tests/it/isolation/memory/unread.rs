//! Clients that ask and do not read, or begin and do not end.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

/// A connection whose peer may send a byte of each answer, and no more.
pub(crate) struct Unread {
    sender: SendRequest<Bytes>,
    authority: String,
    /// Answers that wait to be read.
    answers: Vec<ResponseFuture>,
}

impl Unread {
    pub(crate) async fn open(url: &str) -> Self {
        Self::open_from(url, 1).await
    }

    /// The same from one of many addresses of this machine.
    pub(crate) async fn open_from(url: &str, peer: u8) -> Self {
        let authority = url.strip_prefix("http://").unwrap().to_owned();
        let stream = from(url, peer).await;
        let (sender, connection) =
            h2::client::Builder::new().initial_window_size(1).handshake::<_, Bytes>(stream).await.unwrap();
        tokio::spawn(connection);
        Self { sender, authority, answers: Vec::new() }
    }

    /// Calls a method; the answer is never read.
    pub(crate) async fn call(&mut self, path: &str, token: &str, message: &impl Message) {
        let mut body = self.open_call(path, token).await;
        body.send_data(framed(message), true).unwrap();
    }

    /// Asks for a REST resource; the answer is never read.
    pub(crate) async fn get(&mut self, path: &str, token: &str) {
        let request = http::Request::get(format!("http://{}{path}", self.authority)).header("x-auth-token", token);
        self.sender = self.sender.clone().ready().await.unwrap();
        let (answer, _) = self.sender.send_request(request.body(()).unwrap(), true).unwrap();
        self.answers.push(answer);
    }

    /// Begins a REST request whose body of so many bytes lacks its last one.
    pub(crate) async fn post(&mut self, path: &str, token: &str, size: usize) -> h2::SendStream<Bytes> {
        let request = http::Request::post(format!("http://{}{path}", self.authority)).header("x-auth-token", token);
        self.sender = self.sender.clone().ready().await.unwrap();
        let (answer, mut body) = self.sender.send_request(request.body(()).unwrap(), false).unwrap();
        self.answers.push(answer);
        body.send_data(vec![b' '; size - 1].into(), false).unwrap();
        body
    }

    /// Begins a call whose message never ends: all of it but the last byte is sent.
    pub(crate) async fn begin(&mut self, path: &str, token: &str, message: &impl Message) -> h2::SendStream<Bytes> {
        let mut body = self.open_call(path, token).await;
        let message = framed(message);
        body.send_data(message.slice(..message.len() - 1), false).unwrap();
        body
    }

    async fn open_call(&mut self, path: &str, token: &str) -> h2::SendStream<Bytes> {
        let request = http::Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap();
        self.sender = self.sender.clone().ready().await.unwrap();
        let (answer, body) = self.sender.send_request(request, false).unwrap();
        self.answers.push(answer);
        body
    }
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// A REST request from one of many addresses whose body of so many bytes lacks its last one.
pub(crate) async fn unfinished(rest: &str, peer: u8, path: &str, token: &str, size: usize) -> TcpStream {
    let mut stream = from(rest, peer).await;
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-auth-token: {token}\r\ncontent-length: {size}\r\n\r\n");
    let write = async {
        let _refused = stream.write_all(head.as_bytes()).await;
        let _refused = stream.write_all(&vec![b' '; size - 1]).await;
    };
    // Who is refused need not take the rest.
    let _elapsed = tokio::time::timeout(Duration::from_secs(5), write).await;
    stream
}

/// A request with headers of so many bytes, which stays open whether it is answered or not.
pub(crate) async fn with_large_head(rest: &str, peer: u8, path: &str, token: &str, size: usize) -> TcpStream {
    let mut stream = from(rest, peer).await;
    let padding = "x".repeat(size);
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-auth-token: {token}\r\nx-padding: {padding}\r\n\r\n");
    let _refused = stream.write_all(head.as_bytes()).await;
    stream
}

/// A connection from one of many addresses of this machine.
async fn from(rest: &str, peer: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("127.0.0.{peer}:0").parse().unwrap()).unwrap();
    socket.connect(rest.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap()
}
