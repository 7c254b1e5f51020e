use dms_client::v1 as pb;
use http::StatusCode;
use prost_types::Timestamp;
use serde_json::json;

use super::fake::Fake;
use super::{GROUP, QUEUE, call, get};

fn queue(mode: pb::QueueMode, policy: pb::RedrivePolicy) -> pb::Queue {
    let kafka = policy == pb::RedrivePolicy::Unspecified;
    pb::Queue {
        id: "q1".into(),
        name: "queue-001".into(),
        description: "a \"queue\"".into(),
        queue_mode: mode.into(),
        redrive_policy: policy.into(),
        max_consume_count: i32::from(policy == pb::RedrivePolicy::Enable) * 3,
        reservation_minutes: 4320,
        create_time: Some(Timestamp { seconds: 1_495_701_557, nanos: 123_999_999 }),
        max_message_bytes: 524_288,
        produced_messages: 14,
        group_count: 1,
        kafka_topic: if kafka { "k-p1-q1".into() } else { String::new() },
    }
}

fn fifo() -> pb::Queue {
    queue(pb::QueueMode::Fifo, pb::RedrivePolicy::Enable)
}

#[tokio::test]
async fn create_maps_every_field() {
    let fake = Fake::answering(pb::CreateQueueResponse { queue: Some(fifo()) });
    let body = r#"{"name":"queue-001","description":"d","queue_mode":"FIFO","redrive_policy":"enable",
        "max_consume_count":3,"retention_hours":null,"unknown":{"\ud800":[1]},"name":"queue-001"}"#;
    let reply = call(&fake, "POST", "/v1.0/p1/queues", body).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    assert_eq!(reply.json(), json!({"id": "q1", "name": "queue-001"}));
    let expected = pb::CreateQueueRequest {
        project_id: "p1".into(),
        name: "queue-001".into(),
        queue_mode: pb::QueueMode::Fifo.into(),
        description: "d".into(),
        redrive_policy: pb::RedrivePolicy::Enable.into(),
        max_consume_count: Some(3),
        retention_hours: None,
    };
    assert_eq!(fake.request::<pb::CreateQueueRequest>(), expected);
}

#[tokio::test]
async fn a_kafka_queue_shows_its_topic_except_in_lists() {
    let kafka = queue(pb::QueueMode::KafkaHt, pb::RedrivePolicy::Unspecified);
    let created = Fake::answering(pb::CreateQueueResponse { queue: Some(kafka.clone()) });
    let reply = call(&created, "POST", "/v2/p1/queues", r#"{"name":"q","queue_mode":"KAFKA_HT"}"#).await;
    assert_eq!(reply.json()["kafka_topic"], "k-p1-q1");
    let shown = Fake::answering(pb::GetQueueResponse { queue: Some(kafka.clone()) });
    let reply = get(&shown, &format!("{QUEUE}?include_deadletter=true")).await.json();
    assert_eq!(reply["kafka_topic"], "k-p1-q1");
    assert_eq!(reply["queue_mode"], "KAFKA_HT");
    assert_eq!(reply.get("redrive_policy"), None);
    let listed = Fake::answering(pb::ListQueuesResponse { queues: vec![kafka], ..Default::default() });
    let reply = get(&listed, "/v1.0/p1/queues?include_deadletter=True").await.json();
    assert_eq!(reply["queues"][0].get("kafka_topic"), None);
    assert_eq!(reply["queues"][0].get("redrive_policy"), None);
}

#[tokio::test]
async fn wrong_types_have_the_code_of_their_field() {
    let cases = [
        (r#"{"name":1}"#, "DMS.10240007"),
        (r#"{"name":"\ud800"}"#, "DMS.10240007"),
        (r#"{"description":["<"]}"#, "DMS.10240010"),
        (r#"{"queue_mode":"AMQP"}"#, "DMS.10540010"),
        (r#"{"queue_mode":7}"#, "DMS.10540010"),
        (r#"{"redrive_policy":"maybe"}"#, "DMS.10540010"),
        (r#"{"max_consume_count":"3"}"#, "DMS.10240022"),
        (r#"{"max_consume_count":3.5}"#, "DMS.10240022"),
        (r#"{"max_consume_count":99999999999999999999}"#, "DMS.10240022"),
        (r#"{"retention_hours":true}"#, "DMS.10240027"),
        (r#"{"retention_hours":1e400}"#, "DMS.10240027"),
        ("[]", "DMS.10240009"),
        ("{", "DMS.10240009"),
        ("", "DMS.10240009"),
    ];
    let fake = Fake::silent();
    for (body, code) in cases {
        let reply = call(&fake, "POST", "/v1.0/p1/queues", body).await;
        assert_eq!((reply.status, reply.code()), (StatusCode::BAD_REQUEST, code.to_owned()), "{body}");
    }
    let reply = call(&fake, "POST", "/v1.0/p1/queues", r#"{"max_consume_count":-1.5}"#).await;
    assert_eq!(reply.message(), "max_consume_count: '-1.5' is not an integer from 1 to 100");
    assert_eq!(fake.calls(), 0);
}

#[tokio::test]
async fn queues_are_listed_and_shown_as_documented() {
    let plain = json!({"id": "q1", "name": "queue-001", "description": "a \"queue\"", "queue_mode": "FIFO",
        "reservation": 4320, "created": 1_495_701_557_123_i64, "eff_date": 1_495_701_557_123_i64,
        "max_msg_size_byte": 524_288, "produced_messages": 14, "group_count": 1});
    let mut with_policy = plain.clone();
    with_policy["redrive_policy"] = "enable".into();
    with_policy["max_consume_count"] = 3.into();
    let list = Fake::answering(pb::ListQueuesResponse { queues: vec![fifo()], ..Default::default() });
    let show = Fake::answering(pb::GetQueueResponse { queue: Some(fifo()) });
    for (suffix, expected) in
        [("", &plain), ("?include_deadletter=", &plain), ("?include_deadletter=TRUE", &with_policy)]
    {
        let reply = get(&list, &format!("/v1.0/p1/queues{suffix}")).await;
        assert_eq!((reply.status, reply.json()), (StatusCode::OK, json!({"queues": [expected], "total": 1})));
        let reply = get(&show, &format!("{QUEUE}{suffix}")).await;
        assert_eq!((reply.status, &reply.json()), (StatusCode::OK, expected));
    }
}

#[tokio::test]
async fn disabled_redrive_has_no_count() {
    let normal = queue(pb::QueueMode::Normal, pb::RedrivePolicy::Disable);
    let fake = Fake::answering(pb::GetQueueResponse { queue: Some(normal) });
    let reply = get(&fake, &format!("{QUEUE}?include_deadletter=true")).await.json();
    assert_eq!(reply["redrive_policy"], "disable");
    assert_eq!(reply.get("max_consume_count"), None);
}

#[tokio::test]
async fn a_bad_boolean_is_a_bad_url() {
    let fake = Fake::silent();
    for path in ["/v1.0/p1/queues?include_messages_num=1", &format!("{QUEUE}/groups?include_deadletter=yes")] {
        let reply = get(&fake, path).await;
        assert_eq!((reply.status, reply.code().as_str()), (StatusCode::BAD_REQUEST, "DMS.10540014"));
    }
    assert_eq!(fake.calls(), 0);
}

#[tokio::test]
async fn deletes_answer_with_nothing() {
    for (path, rpc) in [(QUEUE, "QueueService/DeleteQueue"), (GROUP, "QueueService/DeleteConsumerGroup")] {
        let fake = Fake::silent();
        let reply = call(&fake, "DELETE", path, "{}").await;
        assert_eq!((reply.status, reply.text.as_str()), (StatusCode::NO_CONTENT, ""));
        assert_eq!(fake.seen().path, format!("/dms.v1.{rpc}"));
    }
}

#[tokio::test]
async fn groups_are_created_in_order() {
    let group =
        |id: &str, name: &str| pb::ConsumerGroup { id: id.into(), name: name.into(), ..pb::ConsumerGroup::default() };
    let fake = Fake::answering(pb::CreateConsumerGroupsResponse { groups: vec![group("g-1", "a"), group("g-2", "b")] });
    let reply = call(&fake, "POST", &format!("{QUEUE}/groups"), r#"{"groups":[{"name":"a"},{"name":"b"},{}]}"#).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    assert_eq!(reply.json(), json!({"groups": [{"id": "g-1", "name": "a"}, {"id": "g-2", "name": "b"}]}));
    assert_eq!(fake.request::<pb::CreateConsumerGroupsRequest>().names, ["a", "b", ""]);
    for (body, code) in [
        (r#"{"groups":[{"name":7}]}"#, "DMS.10240007"),
        (r#"{"groups":["a"]}"#, "DMS.10240009"),
        (r#"{"groups":{}}"#, "DMS.10240009"),
        ("{}", "DMS.10240009"),
    ] {
        assert_eq!(call(&fake, "POST", &format!("{QUEUE}/groups"), body).await.code(), code, "{body}");
    }
}

#[tokio::test]
async fn groups_are_listed_as_documented() {
    let counters = pb::GroupCounters {
        produced_messages: 10,
        consumed_messages: 1,
        available_messages: 8,
        produced_dead_letters: 5,
        available_dead_letters: 2,
    };
    let counters = Some(counters);
    let group = pb::ConsumerGroup { id: "g-1".into(), name: "a".into(), counters, ..pb::ConsumerGroup::default() };
    let fake = Fake::answering(pb::ListConsumerGroupsResponse {
        queue: Some(fifo()),
        groups: vec![group],
        ..Default::default()
    });
    let reply = get(&fake, &format!("{QUEUE}/groups?include_deadletter=true")).await;
    assert!(fake.request::<pb::ListConsumerGroupsRequest>().include_counters);
    let expected = json!({"queue_id": "q1", "queue_name": "queue-001", "redrive_policy": "enable", "groups": [{
        "id": "g-1", "name": "a", "produced_messages": 10, "consumed_messages": 1, "available_messages": 8,
        "produced_deadletters": 5, "available_deadletters": 2}]});
    assert_eq!((reply.status, reply.json()), (StatusCode::OK, expected));
}

#[tokio::test]
async fn counters_not_asked_for_are_zero() {
    let group = pb::ConsumerGroup { id: "g-1".into(), name: "a".into(), ..pb::ConsumerGroup::default() };
    let fake = Fake::answering(pb::ListConsumerGroupsResponse {
        queue: Some(fifo()),
        groups: vec![group],
        ..Default::default()
    });
    let reply = get(&fake, &format!("{QUEUE}/groups?include_messages_num=false")).await.json();
    assert!(!fake.request::<pb::ListConsumerGroupsRequest>().include_counters);
    let zero =
        json!({"id": "g-1", "name": "a", "produced_messages": 0, "consumed_messages": 0, "available_messages": 0});
    assert_eq!(reply, json!({"queue_id": "q1", "queue_name": "queue-001", "groups": [zero]}));
}

#[tokio::test]
async fn a_page_needs_two_valid_numbers() {
    let cases = [
        ("page_size=2&current_page=3", (Some(2), Some(3))),
        ("current_page=99999999999&page_size=1", (Some(1), Some(i32::MAX))),
        ("page_size=2", (None, None)),
        ("page_size=2&current_page=", (None, None)),
        ("page_size=0&current_page=1", (None, None)),
        ("page_size=-1&current_page=1", (None, None)),
        ("page_size=two&current_page=1", (None, None)),
    ];
    let fake = Fake::answering(pb::ListConsumerGroupsResponse { queue: Some(fifo()), ..Default::default() });
    for (query, page) in cases {
        assert_eq!(get(&fake, &format!("{QUEUE}/groups?{query}")).await.status, StatusCode::OK);
        let request = fake.request::<pb::ListConsumerGroupsRequest>();
        assert_eq!((request.page_size, request.current_page), page, "{query}");
    }
}

#[tokio::test]
async fn quotas_are_shown_on_both_paths_of_both_versions() {
    let quota = pb::Quota { r#type: "queue".into(), quota: 30, used: 5, min: 0, max: 500 };
    let fake = Fake::answering(pb::GetQuotasResponse { quotas: vec![quota] });
    for path in ["/v1.0/p1/quotas/dms", "/v1.0/p1/quotas", "/v2/p1/quotas/dms", "/v2/p1/quotas"] {
        let row = json!({"type": "queue", "quota": 30, "used": 5, "min": 0, "max": 500});
        assert_eq!(get(&fake, path).await.json(), json!({"quotas": {"resources": [row]}}));
    }
}
