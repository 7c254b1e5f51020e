//! Bad input over gRPC: the status, the DMS code and the field that is named; and the service answers afterwards.

use dms_client::v1 as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::support::scene::Scene;
use crate::support::service::{PROJECT, code, message};

/// Status, DMS code, field of `BadRequest`, message.
#[track_caller]
fn refused(status: &Status) -> (Code, String, String, String) {
    let details = status.get_error_details();
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone()).unwrap_or_default();
    (status.code(), code(status), field, status.message().to_owned())
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, expected: (&str, &str, &str)) {
    let (dms_code, field, text) = expected;
    let (code, found, named, message) = refused(&answer.unwrap_err());
    assert_eq!((found.as_str(), named.as_str(), message.as_str()), (dms_code, field, text));
    assert_eq!(code, Code::InvalidArgument, "{message}");
}

impl Scene {
    async fn create(&self, change: impl FnOnce(&mut pb::CreateQueueRequest)) -> Result<(), Status> {
        let mut request =
            pb::CreateQueueRequest { project_id: PROJECT.into(), name: "new".into(), ..Default::default() };
        change(&mut request);
        self.service.replica.queues.clone().create_queue(request).await.map(drop)
    }

    async fn send(&self, message: pb::NewMessage) -> Result<Vec<String>, Status> {
        self.service.send_messages(&self.queue, vec![message]).await
    }

    async fn consume(&self, change: impl FnOnce(&mut pb::ConsumeMessagesRequest)) -> Result<(), Status> {
        let mut request = self.group.consume_request(1);
        change(&mut request);
        self.service.replica.messages.clone().consume_messages(request).await.map(drop)
    }
}

fn seconds(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

#[tokio::test]
async fn queues_with_bad_fields_are_refused_by_name() {
    let scene = Scene::make().await;
    let name = "1-64 characters of A-Z a-z 0-9 _ -";
    for (given, code) in [("", "DMS.10240011"), ("a b", "DMS.10240007"), ("ä", "DMS.10240007"), ("\0", "DMS.10240007")]
    {
        let shown = if given == "\0" { "\\0" } else { given };
        let expected = format!("name: '{shown}' is not {name}");
        assert_refused(scene.create(|request| request.name = given.into()).await, (code, "name", &expected));
    }
    for mode in [5, -1, i32::MAX, i32::MIN] {
        let expected = format!("queue_mode: '{mode}' is not NORMAL, FIFO, KAFKA_HA or KAFKA_HT");
        assert_refused(
            scene.create(|request| request.queue_mode = mode).await,
            ("DMS.10540010", "queue_mode", &expected),
        );
        let expected = format!("redrive_policy: '{mode}' is not ENABLE or DISABLE");
        let answer = scene.create(|request| request.redrive_policy = mode).await;
        assert_refused(answer, ("DMS.10540010", "redrive_policy", &expected));
    }
    for count in [0, 101, -1, i32::MIN, i32::MAX] {
        let expected = format!("max_consume_count: '{count}' is not an integer from 1 to 100");
        let answer = scene.create(|request| {
            request.redrive_policy = pb::RedrivePolicy::Enable.into();
            request.max_consume_count = Some(count);
        });
        assert_refused(answer.await, ("DMS.10240022", "max_consume_count", &expected));
        let expected = format!("retention_hours: '{count}' is not an integer from 1 to 72");
        let answer = scene.create(|request| {
            request.queue_mode = pb::QueueMode::KafkaHa.into();
            request.retention_hours = Some(count);
        });
        assert_refused(answer.await, ("DMS.10240027", "retention_hours", &expected));
    }
    let project = "1-64 characters of A-Z a-z 0-9 _ -";
    for given in ["", "a/b", &"p".repeat(65)] {
        let expected = format!("project_id: '{given}' is not {project}");
        assert_refused(
            scene.create(|request| request.project_id = given.into()).await,
            ("DMS.10240005", "project_id", &expected),
        );
    }
    scene.is_well().await;
}

#[tokio::test]
async fn messages_with_bad_fields_are_refused_by_index() {
    let scene = Scene::make().await;
    for body in [&b""[..], b" ", b"{", b"1 2", b"nul", b"\xff", b"\"\xff\"", b"\"\0\"", b"\xef\xbb\xbf1", b"01"] {
        let bad = pb::NewMessage { body: body.to_vec().into(), ..Default::default() };
        let answer = scene.service.send_messages(&scene.queue, vec![message("1"), bad]).await;
        let (code, dms_code, field, text) = refused(&answer.unwrap_err());
        assert_eq!(
            (code, dms_code.as_str(), field.as_str()),
            (Code::InvalidArgument, "DMS.10540012", "messages[1].body")
        );
        assert!(text.starts_with("messages[1].body: not valid JSON: "), "{text}");
    }
    for attributes in ["[]", "1", "null", "\"x\"", " [1] "] {
        let bad = pb::NewMessage { attributes: attributes.to_owned().into(), ..message("1") };
        let expected = ("DMS.10540001", "messages[0].attributes", "messages[0].attributes: not a JSON object");
        assert_refused(scene.send(bad).await, expected);
    }
    for (delay, shown) in [
        (seconds(-1, 0), "-1"),
        (seconds(0, -1), "-0.000000001"),
        (seconds(i64::MIN, i32::MIN), "-9223372036854775808 s and -2147483648 ns"),
    ] {
        let expected = format!("messages[0].delay: '{shown}' is not a duration from 0 to 604800 s (7 days)");
        let answer = scene.send(pb::NewMessage { delay, ..message("1") }).await;
        assert_refused(answer, ("DMS.10540010", "messages[0].delay", &expected));
    }
    for delay in [seconds(604_800, 1_000_000), seconds(i64::MAX, 999_999_999)] {
        let (_, dms_code, field, _) = refused(&scene.send(pb::NewMessage { delay, ..message("1") }).await.unwrap_err());
        assert_eq!((dms_code.as_str(), field.starts_with("messages")), ("DMS.10540010", true), "{field}");
    }
    for tags in [vec![""], vec!["a b"], vec!["a", "b", "c", "d"], vec!["\0"]] {
        let tags = tags.into_iter().map(str::to_owned).collect();
        let (_, dms_code, field, _) = refused(&scene.send(pb::NewMessage { tags, ..message("1") }).await.unwrap_err());
        assert_eq!((dms_code.as_str(), field.starts_with("messages")), ("DMS.10240004", true), "{field}");
    }
    for count in [0, 11, 5000] {
        let answer = scene.service.send_messages(&scene.queue, vec![message("1"); count]).await;
        let expected = format!("messages: '{count} messages' is not 1-10 messages");
        assert_refused(answer, ("DMS.10540010", "messages", &expected));
    }
    scene.is_well().await;
}

#[tokio::test]
async fn oversize_is_refused_before_and_after_it_is_read() {
    let scene = Scene::make().await;
    let large = |bytes: usize| message(&format!("\"{}\"", "x".repeat(bytes - 2)));
    let expected = "messages: size 524289 bytes is larger than the limit of 524288 bytes";
    assert_refused(scene.send(large(524_289)).await, ("DMS.10540011", "messages", expected));
    for bytes in [2_000_000, 20_000_000] {
        let status = scene.send(large(bytes)).await.unwrap_err();
        assert_eq!((status.code(), code(&status)), (Code::InvalidArgument, "DMS.10540011".into()), "{status:?}");
    }
    scene.is_well().await;
}

#[tokio::test]
async fn retrievals_with_bad_options_are_refused() {
    let scene = Scene::make().await;
    let options =
        |options: pb::ConsumeOptions| move |request: &mut pb::ConsumeMessagesRequest| request.options = Some(options);
    for count in [0, 11, -1, i32::MAX, i32::MIN] {
        let expected = format!("max_messages: '{count}' is not an integer from 1 to 10");
        let answer =
            scene.consume(options(pb::ConsumeOptions { max_messages: Some(count), ..Default::default() })).await;
        assert_refused(answer, ("DMS.10240014", "max_messages", &expected));
    }
    for (given, shown) in [
        (seconds(0, 0), "0"),
        (seconds(61, 0), "61"),
        (seconds(1, 5), "1.000000005"),
        (seconds(i64::MAX, 0), "9223372036854775807"),
    ] {
        let expected = format!("wait: '{shown}' is not a whole number of seconds from 1 to 60");
        let answer = scene.consume(options(pb::ConsumeOptions { wait: given, ..Default::default() })).await;
        assert_refused(answer, ("DMS.10240021", "wait", &expected));
    }
    for (given, shown) in [(seconds(14, 0), "14"), (seconds(301, 0), "301"), (seconds(-15, 0), "-15")] {
        let expected = format!("lease: '{shown}' is not a whole number of seconds from 15 to 300");
        let answer = scene.consume(options(pb::ConsumeOptions { lease: given, ..Default::default() })).await;
        assert_refused(answer, ("DMS.10542206", "lease", &expected));
    }
    let answer = scene.consume(|request| request.tag_match = 7).await;
    assert_refused(answer, ("DMS.10550035", "tag_match", "tag_match: '7' is not ANY or ALL"));
    let answer = scene.consume(|request| request.tags = vec!["a b".into()]).await;
    assert_refused(answer, ("DMS.10240004", "tags", "tags: 'a b' is not 1-64 characters of A-Z a-z 0-9 _ -"));
    for id in ["", "x", "g-", &scene.queue] {
        let expected = format!("group_id: '{id}' is not 'g-' and a UUID, 38 characters");
        assert_refused(
            scene.consume(|request| request.group_id = id.into()).await,
            ("DMS.10240016", "group_id", &expected),
        );
    }
    for id in ["", "x", &scene.group.id, &"x".repeat(1_000_000)] {
        let (_, dms_code, field, text) =
            refused(&scene.consume(|request| request.queue_id = id.into()).await.unwrap_err());
        assert_eq!((dms_code.as_str(), field.as_str()), ("DMS.10240015", "queue_id"));
        assert!(text.len() < 200 && text.ends_with(" is not a UUID of 36 characters"), "{text}");
    }
    let unknown = Uuid::new_v4();
    let status = scene.consume(|request| request.group_id = format!("g-{unknown}")).await.unwrap_err();
    assert_eq!((status.code(), code(&status)), (Code::NotFound, "DMS.10240405".into()));
    let status = scene.consume(|request| request.project_id = "another".into()).await.unwrap_err();
    assert_eq!((status.code(), code(&status)), (Code::NotFound, "DMS.10240401".into()));
    scene.is_well().await;
}

#[tokio::test]
async fn acknowledgements_with_bad_entries_are_refused() {
    let scene = Scene::make().await;
    scene.service.send(&scene.queue, &["1"]).await;
    let batch = scene.service.consume(&scene.group, 1).await;
    let ack = async |entries: Vec<pb::AckEntry>| {
        let request = pb::AckMessagesRequest {
            project_id: PROJECT.into(),
            queue_id: scene.queue.clone(),
            group_id: scene.group.id.clone(),
            entries,
        };
        scene.service.replica.messages.clone().ack_messages(request).await
    };
    let entry = |handler: &str, status: i32| pb::AckEntry { handler: handler.into(), status };
    let good = batch[0].handler.as_str();
    assert_refused(ack(vec![]).await, ("DMS.10540010", "entries", "entries: '0 entries' is not 1-1000 entries"));
    let answer = ack(vec![entry(good, 1); 1001]).await;
    assert_refused(answer, ("DMS.10540010", "entries", "entries: '1001 entries' is not 1-1000 entries"));
    for status in [3, -1, i32::MAX] {
        let expected = format!("entries[1].status: '{status}' is not SUCCESS or FAIL");
        assert_refused(
            ack(vec![entry(good, 1), entry(good, status)]).await,
            ("DMS.10540003", "entries[1].status", &expected),
        );
    }
    let status = ack(vec![entry("\0\u{202e}", 1)]).await.unwrap_err();
    assert_eq!((status.code(), code(&status)), (Code::FailedPrecondition, "DMS.10542209".into()));
    let result = ack(vec![entry(good, 1); 1000]).await.unwrap().into_inner().result.unwrap();
    assert_eq!((result.success_count, result.fail_count), (1, 999));
    scene.is_well().await;
}

#[tokio::test]
async fn tags_with_bad_fields_are_refused() {
    let scene = Scene::make().await;
    let mut tags = scene.service.replica.tags.clone();
    let mut add = async |tag: Option<pb::Tag>| {
        let request = pb::AddQueueTagRequest { project_id: PROJECT.into(), queue_id: scene.queue.clone(), tag };
        tags.add_queue_tag(request).await
    };
    let tag = |key: &str, value: &str| Some(pb::Tag { key: key.into(), value: value.into() });
    assert_refused(add(None).await, ("DMS.10540010", "tag", "tag: missing; give a key and a value"));
    assert_refused(add(tag("", "v")).await, ("DMS.10240035", "tag.key", "tag.key: '' is not 1-36 characters"));
    let allowed = "text without control characters and = * < > \\ , | /";
    let expected = format!("tag.key: 'a=b' is not {allowed}");
    assert_refused(add(tag("a=b", "v")).await, ("DMS.10240036", "tag.key", &expected));
    let expected = format!("tag.value: '\\0' is not {allowed}");
    assert_refused(add(tag("a", "\0")).await, ("DMS.10240039", "tag.value", &expected));
    let long = "v".repeat(44);
    let expected = format!("tag.value: '{long}' is not 0-43 characters");
    assert_refused(add(tag("a", &long)).await, ("DMS.10240038", "tag.value", &expected));
    let search = async |action: i32, limit: Option<i32>, offset: Option<i32>| {
        let request =
            pb::SearchQueuesRequest { project_id: PROJECT.into(), action, limit, offset, ..Default::default() };
        scene.service.replica.tags.clone().search_queues(request).await
    };
    let filter = pb::SearchAction::Filter.into();
    assert_refused(search(9, None, None).await, ("DMS.10240041", "action", "action: '9' is not FILTER or COUNT"));
    let expected = "limit: '1001' is not an integer from 1 to 1000";
    assert_refused(search(filter, Some(1001), None).await, ("DMS.10240042", "limit", expected));
    let expected = "offset: '-1' is not an integer of 0 or more";
    assert_refused(search(filter, None, Some(-1)).await, ("DMS.10240043", "offset", expected));
    scene.is_well().await;
}
