use uuid::Uuid;

use super::*;
use crate::domain::clock::Timestamp;
use crate::domain::limits::BATCH_BYTES_MAX;
use crate::domain::message::Message;

const QUEUE: &str = "9bf46390-38a2-462d-b392-4d5b2d519c55";
const GROUP: &str = "g-02fb1974-9be1-4eee-8448-ed2d3e89884a";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn project() -> ProjectId {
    ProjectId::parse("p").unwrap()
}

fn message(body: &'static [u8]) -> pb::NewMessage {
    pb::NewMessage { body: Bytes::from_static(body), ..pb::NewMessage::default() }
}

fn send_of(messages: Vec<pb::NewMessage>) -> Result<Send> {
    send_in(None, messages)
}

fn send_in(trace: Option<TraceContext>, messages: Vec<pb::NewMessage>) -> Result<Send> {
    let (project_id, queue_id) = ("p".into(), QUEUE.into());
    send(pb::SendMessagesRequest { project_id, queue_id, messages, return_ids: false }, trace)
}

fn refusal<T>(result: Result<T>) -> (ErrorKind, String) {
    result.err().map(|error| (error.kind(), error.message().to_owned())).expect("refused")
}

#[test]
fn any_json_is_kept_byte_for_byte() {
    let bodies: [&[u8]; 14] = [
        b"null",
        b" \t\r\n {\"a\" : 1 } \n",
        br#""\ud800""#,
        br#""\u0000""#,
        b"1e400",
        b"-0",
        b"12345678901234567890123",
        br#"{"a":1,"a":2}"#,
        b"[]",
        b"\"\"",
        b"true",
        b"1.10",
        "\"\u{2028}é𝄞\u{7f}\"".as_bytes(),
        br#""\/""#,
    ];
    for body in bodies {
        let sent = send_of(vec![message(body)]).unwrap_or_else(|error| panic!("{body:?}: {error}"));
        assert_eq!(sent.messages[0].body, body);
    }
}

#[test]
fn deep_nesting_is_no_danger() {
    let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    let new = pb::NewMessage { body: deep.into(), ..pb::NewMessage::default() };
    assert!(send_of(vec![new.clone()]).is_ok());
    let open = pb::NewMessage { body: vec![b'['; 200_000].into(), ..new };
    assert_eq!(refusal(send_of(vec![open])).0, ErrorKind::DataBodyInvalid);
}

#[test]
fn other_bodies_are_refused_by_place() {
    let bodies: [&'static [u8]; 15] = [
        b"",
        b"  ",
        b"{",
        b"{'a':1}",
        b"nul",
        b"NaN",
        b"01",
        b"1 2",
        b"[1,]",
        b"\"\xff\"",
        b"\"\n\"",
        b"\"\x00\"",
        b"\xef\xbb\xbf1",
        br#""\ud8""#,
        b"\x0b1",
    ];
    for body in bodies {
        let (kind, text) = refusal(send_of(vec![message(b"1"), message(b"2"), message(body)]));
        assert_eq!(kind, ErrorKind::DataBodyInvalid, "{body:?}");
        assert!(text.starts_with("messages[2].body: not valid JSON: "), "{text}");
    }
}

#[test]
fn attributes_are_an_object_or_nothing() {
    let with = |attributes: &'static [u8]| {
        send_of(vec![pb::NewMessage { attributes: Bytes::from_static(attributes), ..message(b"1") }])
    };
    for good in [&b""[..], b"{}", b" {\"a\":1} ", br#"{"a":"1","b":true}"#] {
        assert_eq!(with(good).unwrap().messages[0].attributes, good);
    }
    for bad in [&b"[]"[..], b"null", b"1", b"\"{}\"", b" [ ]"] {
        let expected = (ErrorKind::MessageFields, "messages[0].attributes: not a JSON object".to_owned());
        assert_eq!(refusal(with(bad)), expected);
    }
    for bad in [&b" "[..], b"{", b"{\"a\"}"] {
        assert_eq!(refusal(with(bad)).0, ErrorKind::DataBodyInvalid);
    }
}

#[test]
fn batches_are_bounded() {
    assert_eq!(refusal(send_of(vec![])).0, ErrorKind::RequestFormat);
    assert!(send_of(vec![message(b"1"); 10]).is_ok());
    assert_eq!(refusal(send_of(vec![message(b"1"); 11])).0, ErrorKind::RequestFormat);
    let sized = |bytes: usize| pb::NewMessage { body: vec![b'1'; bytes].into(), ..pb::NewMessage::default() };
    assert!(send_of(vec![sized(BATCH_BYTES_MAX)]).is_ok());
    assert_eq!(refusal(send_of(vec![sized(BATCH_BYTES_MAX + 1)])).0, ErrorKind::MessageTooLarge);
    assert_eq!(refusal(send_of(vec![sized(BATCH_BYTES_MAX), message(b"1")])).0, ErrorKind::MessageTooLarge);
}

#[test]
fn delays_and_labels_are_checked() {
    let delayed = |seconds, nanos| {
        let delay = Some(prost_types::Duration { seconds, nanos });
        send_of(vec![pb::NewMessage { delay, ..message(b"1") }])
    };
    assert!(delayed(604_800, 0).is_ok());
    for (seconds, nanos) in [(604_801, 0), (-1, 0), (0, -1), (i64::MAX, 0), (i64::MIN, i32::MIN)] {
        assert_eq!(refusal(delayed(seconds, nanos)).0, ErrorKind::RequestFormat, "{seconds} {nanos}");
    }
    let tags = vec!["a b".to_owned()];
    let labelled = send_of(vec![pb::NewMessage { tags, ..message(b"1") }]);
    assert_eq!(refusal(labelled).0, ErrorKind::LabelInvalid);
}

fn consume_with(change: impl FnOnce(&mut pb::ConsumeMessagesRequest)) -> Result<(GroupAddress, ConsumeOptions)> {
    let mut request = pb::ConsumeMessagesRequest {
        project_id: "p".into(),
        queue_id: QUEUE.into(),
        group_id: GROUP.into(),
        ..pb::ConsumeMessagesRequest::default()
    };
    change(&mut request);
    consume(project(), request, Source::Normal)
}

#[test]
fn label_rules_are_read() {
    let rule = |tags: &[&str], tag_match: i32| {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        consume_with(|request| (request.tags, request.tag_match) = (tags, tag_match)).map(|(_, options)| options.rule)
    };
    assert_eq!(rule(&[], 0), Ok(None));
    assert_eq!(rule(&["a", "b"], 2), Ok(LabelRule::new(vec!["a".into(), "b".into()], true)));
    assert_eq!(rule(&["a"], 1), Ok(LabelRule::new(vec!["a".into()], false)));
    assert_eq!(refusal(rule(&["a", "b", "c", "d"], 0)).0, ErrorKind::LabelInvalid);
    for unknown in [3, -1, i32::MAX] {
        assert_eq!(refusal(rule(&[], unknown)).0, ErrorKind::TagTypeInvalid);
    }
}

#[test]
fn ids_are_checked_in_order() {
    let wrong = |change: fn(&mut pb::ConsumeMessagesRequest)| refusal(consume_with(change)).0;
    assert_eq!(wrong(|request| request.queue_id = "q\0".into()), ErrorKind::QueueIdInvalid);
    assert_eq!(wrong(|request| request.group_id = QUEUE.into()), ErrorKind::GroupIdInvalid);
}

#[test]
fn acks_are_bounded_and_their_status_is_known() {
    let ack_of = |entries: Vec<pb::AckEntry>| {
        let (project_id, queue_id, group_id) = ("p".into(), QUEUE.into(), GROUP.into());
        ack(project(), pb::AckMessagesRequest { project_id, queue_id, group_id, entries }, Source::Normal)
            .map(|(_, got)| got)
    };
    let entry = |status: i32| pb::AckEntry { handler: "h".repeat(5000), status };
    let statuses: Vec<_> =
        ack_of(vec![entry(0), entry(1), entry(2)]).unwrap().iter().map(|entry| entry.status).collect();
    assert_eq!(statuses, [AckStatus::Success, AckStatus::Success, AckStatus::Fail]);
    assert_eq!(ack_of(vec![entry(1); 1000]).map(|entries| entries.len()), Ok(1000));
    assert_eq!(refusal(ack_of(vec![])).0, ErrorKind::RequestFormat);
    assert_eq!(refusal(ack_of(vec![entry(1); 1001])).0, ErrorKind::RequestFormat);
    let expected = (ErrorKind::AckStatusInvalid, "entries[1].status: '7' is not SUCCESS or FAIL".to_owned());
    assert_eq!(refusal(ack_of(vec![entry(1), entry(7)])), expected);
}

#[test]
fn counts_follow_the_outcomes() {
    let result = ack_result(&[AckOutcome::Acked, AckOutcome::Failed, AckOutcome::AfterFailure], None);
    assert_eq!((result.success_count, result.fail_count, result.outcomes), (1, 2, vec![1, 2, 4]));
}

#[test]
fn a_message_is_of_its_own_trace_or_of_the_calls() {
    let (own, of_call) = (TraceContext::begin(false), TraceContext::begin(false));
    let sent_in = |trace, traceparent: &str| {
        let message = pb::NewMessage { traceparent: traceparent.into(), ..message(b"1") };
        send_in(trace, vec![message]).unwrap().messages.remove(0).trace
    };
    assert_eq!(sent_in(Some(of_call), &own.to_string()), Some(own));
    assert_eq!(sent_in(None, &own.to_string()), Some(own));
    for none in ["", "00-1-2-01"] {
        assert_eq!((sent_in(Some(of_call), none), sent_in(None, none)), (Some(of_call), None));
    }
}

#[test]
fn deliveries_move_their_bytes() {
    let body = Bytes::from_static(b"{\"a\":1}");
    let delivery = Delivery {
        message: Message {
            id: MessageId(Uuid::nil()),
            body: body.clone(),
            attributes: Bytes::new(),
            tags: vec![],
            dead_letter: None,
            trace: TraceContext::parse(TRACEPARENT),
        },
        offset: 5,
        appended_at: Timestamp(0),
        handler: "h".into(),
        lease_expires_at: Timestamp(30_000_000),
        attempt: 1,
    };
    let message = leased_message(delivery).message.expect("a message");
    assert_eq!(message.body.as_ptr(), body.as_ptr());
    assert_eq!(message.attributes, "{}");
    assert_eq!(message.traceparent, TRACEPARENT);
}
