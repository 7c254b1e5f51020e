use dms_client::v1 as pb;
use http::StatusCode;
use serde_json::json;

use super::fake::Fake;
use super::{TAGS, call, get};

const SEARCH: &str = "/v1.0/p1/queue/resource_instances/action";

fn tag(key: &str, value: &str) -> pb::Tag {
    pb::Tag { key: key.into(), value: value.into() }
}

fn values(key: &str, values: &[&str]) -> pb::TagValues {
    pb::TagValues { key: key.into(), values: values.iter().map(ToString::to_string).collect() }
}

#[tokio::test]
async fn a_tag_is_added() {
    let fake = Fake::silent();
    let reply = call(&fake, "POST", TAGS, r#"{"tag":{"key":"DEV","value":""}}"#).await;
    assert_eq!((reply.status, reply.text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(fake.request::<pb::AddQueueTagRequest>().tag, Some(tag("DEV", "")));
    call(&fake, "POST", TAGS, r#"{"tag":{"value":"v"}}"#).await;
    assert_eq!(fake.request::<pb::AddQueueTagRequest>().tag, Some(tag("", "v")));
}

#[tokio::test]
async fn the_key_to_delete_is_the_end_of_the_path() {
    for (end, key) in [("DEV", "DEV"), ("action", "action"), ("", ""), ("a%2Fb%20%C3%A9", "a/b é"), ("a+b", "a+b")] {
        let fake = Fake::silent();
        let reply = call(&fake, "DELETE", &format!("{TAGS}/{end}"), "").await;
        assert_eq!(reply.status, StatusCode::NO_CONTENT);
        assert_eq!(fake.request::<pb::DeleteQueueTagRequest>().key, key);
    }
}

#[tokio::test]
async fn a_batch_tells_absent_from_empty_values() {
    let fake = Fake::silent();
    let body = r#"{"action":"delete","tags":[{"key":"a"},{"key":"b","value":""},{"key":"c","value":"v"}]}"#;
    assert_eq!(call(&fake, "POST", &format!("{TAGS}/action"), body).await.status, StatusCode::NO_CONTENT);
    let request = fake.request::<pb::BatchQueueTagsRequest>();
    assert_eq!(request.action(), pb::TagAction::Delete);
    let values: Vec<_> = request.tags.iter().map(|tag| tag.value.as_deref()).collect();
    assert_eq!(values, [None, Some(""), Some("v")]);
}

#[tokio::test]
async fn tags_are_listed() {
    let fake = Fake::answering(pb::ListQueueTagsResponse { tags: vec![tag("a", "b")] });
    assert_eq!(get(&fake, TAGS).await.json(), json!({"tags": [{"key": "a", "value": "b"}]}));
    let fake =
        Fake::answering(pb::ListProjectTagsResponse { tags: vec![values("k", &["v1", "v2"])], ..Default::default() });
    let reply = get(&fake, "/v2/p1/queue/tags").await.json();
    assert_eq!(reply, json!({"tags": [{"key": "k", "values": ["v1", "v2"]}]}));
}

#[tokio::test]
async fn a_search_maps_every_condition() {
    let resource = pb::QueueResource { queue_id: "q1".into(), queue_name: "n".into(), tags: vec![tag("a", "b")] };
    let fake = Fake::answering(pb::SearchQueuesResponse { resources: vec![resource], total_count: 7 });
    let body = r#"{"action":"filter","tags":[{"key":"a","values":["1","2"]}],"tags_any":[{"key":"b","values":null}],
        "not_tags":[{"key":"c"}],"not_tags_any":null,"matches":[{"key":"resource_name","value":"que"}],
        "limit":"100","offset":5}"#;
    let reply = call(&fake, "POST", SEARCH, body).await;
    let tags = json!([{"key": "a", "value": "b"}]);
    let found = json!({"resource_detail": null, "resource_id": "q1", "resource_name": "n", "tags": tags});
    assert_eq!((reply.status, reply.json()), (StatusCode::OK, json!({"resources": [found], "total_count": 7})));
    let expected = pb::SearchQueuesRequest {
        project_id: "p1".into(),
        action: pb::SearchAction::Filter.into(),
        tags: vec![values("a", &["1", "2"])],
        tags_any: vec![values("b", &[])],
        not_tags: vec![values("c", &[])],
        not_tags_any: vec![],
        resource_name: "que".into(),
        limit: Some(100),
        offset: Some(5),
    };
    assert_eq!(fake.request::<pb::SearchQueuesRequest>(), expected);
}

#[tokio::test]
async fn a_count_has_no_pages() {
    let fake = Fake::answering(pb::SearchQueuesResponse { resources: vec![], total_count: 7 });
    let reply = call(&fake, "POST", SEARCH, r#"{"action":"count","limit":"many"}"#).await;
    assert_eq!((reply.status, reply.json()), (StatusCode::OK, json!({"total_count": 7})));
    assert_eq!(fake.request::<pb::SearchQueuesRequest>().limit, None);
}

#[tokio::test]
async fn bad_tag_bodies_are_refused_with_the_documented_code() {
    let batch = &format!("{TAGS}/action");
    let cases = [
        (TAGS, "{}", "DMS.10240009"),
        (TAGS, r#"{"tag":"a"}"#, "DMS.10240009"),
        (TAGS, r#"{"tag":{"key":"a"}}"#, "DMS.10240009"),
        (TAGS, r#"{"tag":{"key":1,"value":"v"}}"#, "DMS.10240036"),
        (TAGS, r#"{"tag":{"key":"a","value":1}}"#, "DMS.10240039"),
        (TAGS, "not json", "DMS.10240009"),
        (batch, r#"{"tags":[]}"#, "DMS.10240040"),
        (batch, r#"{"action":"update","tags":[]}"#, "DMS.10240040"),
        (batch, r#"{"action":1,"tags":[]}"#, "DMS.10240040"),
        (batch, r#"{"action":"create"}"#, "DMS.10240009"),
        (batch, r#"{"action":"create","tags":["a"]}"#, "DMS.10240009"),
        (SEARCH, "{}", "DMS.10240041"),
        (SEARCH, r#"{"action":"create"}"#, "DMS.10240041"),
        (SEARCH, r#"{"action":"filter","limit":"many"}"#, "DMS.10240042"),
        (SEARCH, r#"{"action":"filter","limit":99999999999}"#, "DMS.10240042"),
        (SEARCH, r#"{"action":"filter","offset":1.5}"#, "DMS.10240043"),
        (SEARCH, r#"{"action":"filter","tags":{}}"#, "DMS.10240009"),
        (SEARCH, r#"{"action":"filter","matches":[{"key":"id","value":"x"}]}"#, "DMS.10240009"),
    ];
    let fake = Fake::silent();
    for (path, body, code) in cases {
        let reply = call(&fake, "POST", path, body).await;
        assert_eq!((reply.status, reply.code().as_str()), (StatusCode::BAD_REQUEST, code), "{path} {body}");
    }
    assert_eq!(fake.calls(), 0);
}
