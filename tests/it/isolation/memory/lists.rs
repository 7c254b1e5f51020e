//! Requests with lists that are far too long: refused before they are decoded.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;

use super::process::{GREEDY, MIB};
use super::{Beside, SEND};

/// What a request of the largest size holds of empty messages: two bytes each.
const ITEMS: usize = 780_000;
/// What the process may have more resident than before: one such request decoded is above a hundred megabytes.
const MORE: usize = 64 * MIB;

/// Bytes as they are, for requests that no generated client would make.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

/// A message with a project and so many items, each of these bytes, of a field.
fn list(project: &str, field: u8, item: &[u8], count: usize) -> Bytes {
    let head = dms_client::v1::ListQueuesRequest { project_id: project.into(), ..Default::default() }.encode_to_vec();
    let mut bytes = BytesMut::from(&head[..]);
    for _ in 0..count {
        bytes.put_u8(field << 3 | 2);
        bytes.put_u8(u8::try_from(item.len()).unwrap());
        bytes.put_slice(item);
    }
    bytes.freeze()
}

async fn call(channel: Channel, path: &str, message: Bytes) -> tonic::Status {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {}", GREEDY[0]).parse().unwrap());
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    grpc.unary(request, path.parse().unwrap(), Raw).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_too_long() {
    let beside = Beside::start().await;
    let channel = Channel::from_shared(beside.process.grpc.clone().unwrap()).unwrap().connect().await.unwrap();
    let before = beside.process.peak();
    let service = |service: &str, method: &str| format!("/dms.v1.{service}/{method}");
    let cases = [
        (SEND.to_owned(), 3, ITEMS, "messages: '780000 messages' is not 1-10 messages"),
        (service("MessageService", "AckMessages"), 4, ITEMS, "entries: '780000 entries' is not 1-1000 entries"),
        (service("DeadLetterService", "AckDeadLetters"), 4, ITEMS, "entries: '780000 entries' is not 1-1000 entries"),
        (service("MessageService", "ConsumeMessages"), 5, ITEMS, "tags: '780000 labels' is not at most 3 labels"),
        (service("QueueService", "CreateConsumerGroups"), 3, ITEMS, "names: '780000 names' is not 1-100 names"),
        (service("TagService", "BatchQueueTags"), 4, ITEMS, "tags: '780000 tags' is not 1-10 tags"),
        (service("TagService", "SearchQueues"), 6, ITEMS, "not_tags_any: '780000 keys' is not at most 10 keys"),
    ];
    for (path, field, count, expected) in cases {
        let status = call(channel.clone(), &path, list(GREEDY[0], field, b"", count)).await;
        assert_eq!(status.message(), expected, "{path}");
        assert!([Code::InvalidArgument, Code::ResourceExhausted].contains(&status.code()), "{path}: {status:?}");
    }
    let mut many = JoinSet::new();
    for _ in 0..8 {
        many.spawn(call(channel.clone(), SEND, list(GREEDY[0], 3, b"", ITEMS)));
    }
    many.join_all().await;
    let more = beside.process.peak() - before;
    assert!(more < MORE, "{more} bytes more");
    beside.bounded("lists of 780,000 items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_many_small_things() {
    let beside = Beside::start().await;
    let path = format!("{}/v1.0/{}/queues/{}/messages", beside.process.rest, GREEDY[0], uuid::Uuid::nil());
    let before = beside.process.peak();
    let repeated = |item: &str, count: usize| vec![item; count].join(",");
    let bodies = [
        format!(r#"{{"messages":[{}]}}"#, repeated("{}", 340_000)),
        format!(r#"{{"messages":[{{"body":1,"tags":[{}]}}]}}"#, repeated(r#""""#, 340_000)),
        format!("{{{}}}", repeated(r#""":0"#, 200_000)),
        format!(r#"{{"messages":[{{{}}}]}}"#, repeated(r#""":0"#, 200_000)),
        format!(r#"{{"messages":[{{"body":{}1{}}}]}}"#, "[".repeat(500_000), "]".repeat(500_000)),
        format!(r#"{{"messages":{}"#, r#"{"a":"#.repeat(150_000)),
    ];
    for body in &bodies {
        let request = reqwest::Client::new().post(&path).header("x-auth-token", GREEDY[0]).body(body.clone());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        assert!((400..500).contains(&status), "{status} for {}", &body[..40]);
    }
    let more = beside.process.peak() - before;
    assert!(more < MORE, "{more} bytes more");
    beside.bounded("bodies of many small things").await;
}
