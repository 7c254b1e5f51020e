//! Compressed gRPC: both encodings both ways, what is not taken, and what would come out too large.

use bytes::{BufMut as _, Bytes, BytesMut};
use dms::net::compression::Encoding;
use dms_client::v1 as pb;
use dms_client::v1::message_service_client::MessageServiceClient;
use h2::client::Builder;
use http::HeaderMap;
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

use crate::support::attacker::address;
use crate::support::scene::Scene;
use crate::support::service::{PROJECT, Replica, bodies, code};

const SEND: &str = "dms.v1.MessageService/SendMessages";
const CONSUME: &str = "dms.v1.MessageService/ConsumeMessages";

type Headers<'a> = &'a [(&'a str, &'a str)];

/// An answer as it comes: headers with trailers, and the bytes of the messages.
struct Raw {
    headers: HeaderMap,
    body: Bytes,
}

impl Raw {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Scene {
    fn send_request(&self, body: &str) -> pb::SendMessagesRequest {
        let messages = vec![pb::NewMessage { body: body.to_owned().into(), ..Default::default() }];
        pb::SendMessagesRequest { project_id: PROJECT.into(), queue_id: self.queue.clone(), messages, return_ids: true }
    }

    /// Takes all that was sent: so many messages with this body.
    async fn has_stored(&self, count: usize, body: &str) {
        for _ in 0..count {
            assert!(bodies(&self.next(1).await) == [body], "another body than was sent");
        }
    }
}

/// A body of a message that can be made smaller.
fn large(bytes: usize) -> String {
    format!("\"{}\"", "lorem ipsum ".repeat(bytes / 12))
}

fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// A call by hand.
async fn call(replica: &Replica, method: &str, headers: Headers<'_>, frame: Bytes) -> Raw {
    let url = replica.grpc();
    let stream = TcpStream::connect(address(&url)).await.unwrap();
    let (client, connection) = Builder::new().initial_window_size(1 << 24).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("{url}/{method}")).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut client = client.ready().await.unwrap();
    let (answer, mut sender) = client.send_request(request.body(()).unwrap(), false).unwrap();
    sender.send_data(frame, true).unwrap();
    let (parts, mut body) = answer.await.unwrap().into_parts();
    let (mut headers, mut bytes) = (parts.headers, BytesMut::new());
    while let Some(piece) = body.data().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    headers.extend(body.trailers().await.unwrap().unwrap_or_default());
    Raw { headers, body: bytes.freeze() }
}

#[tokio::test]
async fn requests_and_answers_are_compressed_both_ways() {
    let scene = Scene::make().await;
    for (encoding, name) in [(CompressionEncoding::Gzip, "gzip"), (CompressionEncoding::Zstd, "zstd")] {
        let plain = MessageServiceClient::new(scene.service.replica.channel.clone());
        let mut client = plain.send_compressed(encoding).accept_compressed(encoding);
        let body = large(300_000);
        client.send_messages(scene.send_request(&body)).await.unwrap();
        let answer = client.consume_messages(Request::new(scene.group.consume_request(10))).await.unwrap();
        assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), name);
        let messages = answer.into_inner().messages;
        assert_eq!(bodies(&messages), [body]);
        let acked: Vec<_> = messages.iter().map(|message| (message.handler.as_str(), true)).collect();
        scene.service.ack(&scene.group, &acked).await.unwrap();
    }
    scene.is_well().await;
}

#[tokio::test]
async fn an_answer_is_compressed_for_who_asks_and_only_when_it_is_worth_it() {
    let scene = Scene::make().await;
    let request = framed(0, &scene.group.consume_request(1).encode_to_vec());
    for (accepted, body, name, flag) in [
        ("", large(60_000), "", 0),
        ("identity", large(60_000), "", 0),
        ("snappy,zstd,gzip", large(60_000), "zstd", 1),
        ("gzip,identity", large(60_000), "gzip", 1),
        ("gzip", "1".to_owned(), "gzip", 0),
    ] {
        scene.service.send(&scene.queue, &[body.as_str()]).await;
        let headers = [("grpc-accept-encoding", accepted)];
        let headers = if accepted.is_empty() { &headers[..0] } else { &headers[..] };
        let answer = call(&scene.service.replica, CONSUME, headers, request.clone()).await;
        assert_eq!((answer.header("grpc-status"), answer.header("grpc-encoding")), ("0", name), "{accepted}");
        assert_eq!((answer.body[0], answer.body.len() < 5_000), (flag, flag == 1 || body.len() < 10), "{accepted}");
    }
    scene.is_well().await;
}

#[tokio::test]
async fn an_encoding_that_is_not_taken_is_named_with_those_that_are() {
    let scene = Scene::make().await;
    let message = scene.send_request("1").encode_to_vec();
    for (name, flag) in [("snappy", 1), ("deflate", 1), ("br", 0)] {
        let answer = call(&scene.service.replica, SEND, &[("grpc-encoding", name)], framed(flag, &message)).await;
        assert_eq!(answer.header("grpc-status"), "12");
        assert!(answer.header("grpc-message").contains(name), "{:?}", answer.headers);
        assert_eq!(answer.header("grpc-accept-encoding"), "gzip,zstd,identity");
    }
    scene.is_well().await;
}

#[tokio::test]
async fn flags_and_encodings_are_as_the_specification_has_them() {
    let scene = Scene::make().await;
    let plain = scene.send_request("1").encode_to_vec();
    let gzip = Encoding::Gzip.compress(&plain, Vec::new()).unwrap();
    let cases: [(Headers<'_>, Bytes, Code); 8] = [
        (&[], framed(1, &gzip), Code::Internal),
        (&[("grpc-encoding", "identity")], framed(1, &gzip), Code::Internal),
        (&[("grpc-encoding", "identity")], framed(0, &plain), Code::Ok),
        (&[("grpc-encoding", "gzip")], framed(0, &plain), Code::Ok),
        (&[("grpc-encoding", "gzip")], framed(1, &gzip), Code::Ok),
        (&[("grpc-encoding", "gzip")], framed(1, &gzip[..gzip.len() - 4]), Code::InvalidArgument),
        (&[("grpc-encoding", "zstd")], framed(1, &gzip), Code::InvalidArgument),
        (&[("grpc-encoding", "gzip")], framed(2, &gzip), Code::InvalidArgument),
    ];
    for (headers, frame, expected) in cases {
        let answer = call(&scene.service.replica, SEND, headers, frame).await;
        let found = Code::from_bytes(answer.header("grpc-status").as_bytes());
        assert_eq!(found, expected, "{headers:?} {}", answer.header("grpc-message"));
    }
    scene.has_stored(3, "1").await;
    scene.is_well().await;
}

#[tokio::test]
async fn limits_hold_for_what_comes_out() {
    let scene = Scene::make().await;
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let bomb = framed(1, &encoding.compress(&vec![0; 16 << 20], Vec::new()).unwrap());
        assert!(bomb.len() < 500_000);
        let answer = call(&scene.service.replica, SEND, &[("grpc-encoding", encoding.name())], bomb).await;
        assert_eq!(answer.header("grpc-status"), "3");
        let message = answer.header("grpc-message");
        assert!(message.contains("1572864%20bytes"), "{message}");
    }
    // What may be sent plain may be sent compressed, and what may not may not.
    for (encoding, bytes, taken) in [
        (CompressionEncoding::Gzip, 500_000, true),
        (CompressionEncoding::Zstd, 500_000, true),
        (CompressionEncoding::Gzip, 600_000, false),
    ] {
        let client = MessageServiceClient::new(scene.service.replica.channel.clone());
        let sent = client.send_compressed(encoding).send_messages(scene.send_request(&large(bytes))).await;
        assert_eq!(sent.as_ref().err().map(code).as_deref(), (!taken).then_some("DMS.10540011"));
    }
    scene.has_stored(2, &large(500_000)).await;
    scene.is_well().await;
}
