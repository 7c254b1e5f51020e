//! Labels: what a rule selects, that the first rule binds, and what becomes of the messages passed over.

use std::time::{Duration, Instant};

use dms::broker::Settings;
use dms_client::v1 as pb;
use pb::TagMatch::{All, Any, Unspecified};
use serde_json::{Value, json};

use crate::support::calls::{eventually, tagged};
use crate::support::rest::Rest;
use crate::support::service::{Group, PROJECT, Replica, TestService, attempts, bodies, code, handlers};

const OTHER_RULE: &str = "DMS.10542204";

/// A queue with one message for each way to be labelled, and a group.
async fn labelled(service: &TestService, name: &str) -> Group {
    let queue = service.queue(name).await;
    let group = service.group(&queue, "group").await;
    let messages = vec![
        tagged("1", &["a"]),
        tagged("2", &["b"]),
        tagged("3", &["a", "b"]),
        tagged("4", &[]),
        tagged("5", &["c"]),
        tagged("6", &["c", "b", "a"]),
    ];
    service.send_messages(&queue, messages).await.unwrap();
    group
}

async fn consume(service: &TestService, group: &Group, tags: &[&str], tag_match: pb::TagMatch) -> Vec<String> {
    let batch = group.poll_at(&service.replica, group.labelled_request(tags, tag_match)).await.unwrap();
    if !batch.is_empty() {
        service.ack(group, &handlers(&batch, true)).await.unwrap();
    }
    bodies(&batch)
}

async fn refusal(service: &TestService, group: &Group, tags: &[&str], tag_match: pb::TagMatch) -> String {
    code(&group.glance_at(&service.replica, group.labelled_request(tags, tag_match)).await.unwrap_err())
}

#[tokio::test]
async fn a_rule_selects_messages_with_any_or_with_all_of_its_labels() {
    let service = TestService::start().await;
    let cases: [(&[&str], _, &[&str]); 8] = [
        (&["a"], Any, &["1", "3", "6"]),
        (&["a"], All, &["1", "3", "6"]),
        (&["a", "b"], Any, &["1", "2", "3", "6"]),
        (&["a", "b"], Unspecified, &["1", "2", "3", "6"]),
        (&["a", "b"], All, &["3", "6"]),
        (&["c", "b", "a"], All, &["6"]),
        (&["A"], Any, &[]),
        (&[], All, &["1", "2", "3", "4", "5", "6"]),
    ];
    for (index, (tags, tag_match, expected)) in cases.into_iter().enumerate() {
        let group = labelled(&service, &format!("queue-{index}")).await;
        assert_eq!(consume(&service, &group, tags, tag_match).await, expected, "{tags:?} {tag_match:?}");
        // What was passed over never comes, and nobody waits for it.
        let request = group.labelled_request(tags, tag_match);
        assert!(group.glance_at(&service.replica, request).await.unwrap().is_empty(), "{tags:?} {tag_match:?}");
        let consumed = i64::try_from(expected.len()).unwrap();
        assert_eq!(service.counts(&group).await, [6, consumed, 0, 0, 0], "{tags:?} {tag_match:?}");
    }
}

#[tokio::test]
async fn the_labels_come_with_the_message() {
    let service = TestService::start().await;
    let group = labelled(&service, "queue").await;
    let batch = service.receive(&group, 10).await;
    let tags: Vec<_> = batch.into_iter().map(|leased| leased.message.unwrap().tags).collect();
    let expected: [&[&str]; 6] = [&["a"], &["b"], &["a", "b"], &[], &["c"], &["c", "b", "a"]];
    assert_eq!(tags, expected);
}

#[tokio::test]
async fn another_rule_or_none_is_refused_once_a_group_is_bound() {
    let service = TestService::start().await;
    let group = labelled(&service, "queue").await;
    assert_eq!(consume(&service, &group, &["a", "b"], All).await, ["3", "6"]);
    let others: [(&[&str], _); 6] = [
        (&[], All),
        (&[], Unspecified),
        (&["a", "b"], Any),
        (&["a"], Any),
        (&["a", "c"], All),
        (&["a", "b", "c"], All),
    ];
    for (tags, tag_match) in others {
        assert_eq!(refusal(&service, &group, tags, tag_match).await, OTHER_RULE, "{tags:?} {tag_match:?}");
    }
    service.send_messages(&group.queue, vec![tagged("7", &["a"]), tagged("8", &["b", "a"])]).await.unwrap();
    for (tags, tag_match) in others {
        assert_eq!(refusal(&service, &group, tags, tag_match).await, OTHER_RULE, "{tags:?} {tag_match:?}");
    }
    for (tags, tag_match, asked) in
        [(&["c", "a"][..], Any, "'a' or 'c'"), (&["a"], All, "'a'"), (&[], Unspecified, "no label")]
    {
        let request = group.labelled_request(tags, tag_match);
        let refused = group.glance_at(&service.replica, request).await.unwrap_err();
        let words = format!(
            "tags: asked for {asked}, but the first retrieval with labels has bound this group to 'a' and 'b' for good"
        );
        assert!(
            refused.message().starts_with(&words) && refused.message().contains("make a group of its own"),
            "{refused:?}"
        );
    }
    // The same rule in other words; a refused retrieval has taken nothing.
    assert_eq!(consume(&service, &group, &["b", "a", "b"], All).await, ["8"]);
}

#[tokio::test]
async fn a_single_label_means_the_same_with_any_and_all() {
    let service = TestService::start().await;
    let group = labelled(&service, "queue").await;
    assert_eq!(consume(&service, &group, &["a"], All).await, ["1", "3", "6"]);
    service.send_messages(&group.queue, vec![tagged("7", &["a"])]).await.unwrap();
    assert_eq!(consume(&service, &group, &["a"], Any).await, ["7"]);
}

#[tokio::test]
async fn retrievals_without_labels_do_not_bind() {
    let service = TestService::start().await;
    let group = labelled(&service, "queue").await;
    let first = service.receive(&group, 1).await;
    assert_eq!(bodies(&first), ["1"]);
    service.ack(&group, &handlers(&first, true)).await.unwrap();
    assert_eq!(consume(&service, &group, &["c"], Any).await, ["5", "6"]);
    assert_eq!(refusal(&service, &group, &[], Unspecified).await, OTHER_RULE);
    assert_eq!(service.counts(&group).await, [6, 3, 0, 0, 0]);
}

#[tokio::test]
async fn a_retrieval_that_finds_nothing_binds_too() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    assert!(consume(&service, &group, &["a"], Any).await.is_empty());
    assert_eq!(refusal(&service, &group, &["b"], Any).await, OTHER_RULE);
    assert_eq!(refusal(&service, &group, &[], Any).await, OTHER_RULE);
}

#[tokio::test]
async fn invalid_labels_do_not_bind() {
    let service = TestService::start().await;
    let group = labelled(&service, "queue").await;
    let long = "x".repeat(65);
    let invalid: [&[&str]; 4] = [&["a", "b", "c", "d"], &[""], &["a b"], &[&long]];
    for tags in invalid {
        assert_eq!(refusal(&service, &group, tags, Any).await, "DMS.10240004", "{tags:?}");
    }
    assert_eq!(consume(&service, &group, &["c"], Any).await, ["5", "6"]);
}

#[tokio::test]
async fn each_group_has_its_own_rule() {
    let service = TestService::start().await;
    let first = labelled(&service, "queue").await;
    let second = service.group(&first.queue, "second").await;
    let third = service.group(&first.queue, "third").await;
    assert_eq!(consume(&service, &first, &["a"], Any).await, ["1", "3", "6"]);
    assert_eq!(consume(&service, &second, &["b"], Any).await, ["2", "3", "6"]);
    assert_eq!(consume(&service, &third, &[], Any).await.len(), 6);
    assert_eq!(refusal(&service, &first, &["b"], Any).await, OTHER_RULE);
    assert_eq!(refusal(&service, &second, &["a"], Any).await, OTHER_RULE);
    assert_eq!(service.counts(&third).await, [6, 6, 0, 0, 0]);
}

#[tokio::test]
async fn a_failed_message_that_the_later_rule_does_not_select_is_passed_over() {
    let service = TestService::start().await;
    let group = labelled(&service, "queue").await;
    let batch = service.receive(&group, 3).await;
    assert_eq!(bodies(&batch), ["1", "2", "3"]);
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    let again = group.poll_at(&service.replica, group.labelled_request(&["b"], Any)).await.unwrap();
    assert_eq!((bodies(&again), attempts(&again)), (["6", "2", "3"].map(String::from).to_vec(), vec![1, 2, 2]));
    service.ack(&group, &handlers(&again, true)).await.unwrap();
    assert_eq!(service.counts(&group).await, [6, 3, 0, 0, 0]);
}

#[tokio::test]
async fn dead_letters_are_read_without_the_rule() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Fifo, 1).await;
    let group = service.group(&queue, "group").await;
    let messages = vec![tagged("1", &["b"]), tagged("2", &["a"]), tagged("3", &["a", "b"])];
    service.send_messages(&queue, messages).await.unwrap();
    let batch = group.poll_at(&service.replica, group.labelled_request(&["a"], Any)).await.unwrap();
    assert_eq!(bodies(&batch), ["2", "3"]);
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    let dead = service.receive_dead_letters(&group, 10).await;
    assert_eq!(bodies(&dead), ["2", "3"]);
    assert_eq!(dead[1].message.as_ref().unwrap().tags, ["a", "b"]);
    assert_eq!(service.counts(&group).await, [3, 0, 0, 2, 2]);
}

/// 1200 messages in 120 segments of which two are selected; read from memory, then from Postgres.
#[tokio::test]
async fn a_long_run_of_other_messages_is_passed_over() {
    for cache_bytes in [64 << 20, 0] {
        let service = TestService::with(Settings { pool_connections: 4, cache_bytes, ..Settings::default() }).await;
        let queue = service.queue("queue").await;
        let group = service.group(&queue, "group").await;
        for index in 0..120 {
            let mut messages = vec![tagged("0", &["other"]); 10];
            if index == 70 || index == 119 {
                messages[9] = tagged(&index.to_string(), &["wanted", "other"]);
            }
            service.send_messages(&queue, messages).await.unwrap();
        }
        let request = group.labelled_request(&["wanted"], Any);
        let mut found = Vec::new();
        while found.len() < 2 {
            let batch = group.waiting_at(&service.replica, request.clone()).await.unwrap().unwrap();
            assert!(!batch.is_empty(), "only {found:?} came");
            service.ack(&group, &handlers(&batch, true)).await.unwrap();
            found.extend(bodies(&batch));
        }
        assert_eq!(found, ["70", "119"], "cache of {cache_bytes} bytes");
        assert_eq!(service.counts(&group).await, [1200, 2, 0, 0, 0]);
    }
}

#[tokio::test]
async fn a_parked_consumer_sleeps_through_messages_it_does_not_select() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let consumer = group.park_at(&service.replica, group.labelled_request(&["a"], Any)).await;
    for _ in 0..3 {
        service.send_messages(&queue, vec![tagged("0", &["b"]), tagged("0", &[])]).await.unwrap();
    }
    eventually("all six passed over", async || service.counts(&group).await == [6, 0, 0, 0, 0]).await;
    assert!(!consumer.is_finished());
    service.send_messages(&queue, vec![tagged("0", &[]), tagged("1", &["a"])]).await.unwrap();
    assert_eq!(bodies(&consumer.await.unwrap().unwrap()), ["1"]);
}

#[tokio::test]
async fn a_parked_consumer_without_the_rule_is_refused_when_another_binds_the_group() {
    let service = TestService::start().await;
    let other = service.another_replica().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let here = group.park_at(&service.replica, group.consume_request(10)).await;
    let there = group.park_at(&other, group.consume_request(10)).await;
    let bound = group.park_at(&service.replica, group.labelled_request(&["a"], Any)).await;
    for refused in [here, there] {
        assert_eq!(code(&refused.await.unwrap().unwrap_err()), OTHER_RULE);
    }
    service.send_messages(&queue, vec![tagged("1", &[]), tagged("2", &["a"])]).await.unwrap();
    assert_eq!(bodies(&bound.await.unwrap().unwrap()), ["2"]);
    other.shutdown().await;
}

#[tokio::test]
async fn a_rule_binds_on_every_replica() {
    let service = TestService::start().await;
    let other = service.another_replica().await;
    let group = labelled(&service, "queue").await;
    // The other replica knows the group as unbound, and that there is nothing left.
    let all = group.receive_from(&other, 10).await;
    group.ack_at(&other, &handlers(&all, true)).await.unwrap();
    assert!(group.consume_from(&other, 10).await.unwrap().is_empty());
    assert!(consume(&service, &group, &["a"], Any).await.is_empty());
    // Without labels too, although nothing is there to be taken; the news takes its milliseconds.
    let mut refused = Vec::new();
    let begun = Instant::now();
    eventually("the other replica knows", async || {
        refused.extend(group.consume_from(&other, 10).await.err());
        !refused.is_empty()
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let third = service.another_replica().await;
    refused.extend(group.consume_from(&third, 10).await.err());
    let differing: [&[&str]; 2] = [&["b"], &["a", "b"]];
    for tags in differing {
        refused.push(group.glance_at(&other, group.labelled_request(tags, Any)).await.unwrap_err());
    }
    assert_eq!(refused.iter().map(code).collect::<Vec<_>>(), [OTHER_RULE; 4]);
    assert!(group.glance_at(&other, group.labelled_request(&["a"], All)).await.unwrap().is_empty());
    other.shutdown().await;
    third.shutdown().await;
}

/// The one group of a queue, as it is listed.
async fn listed(service: &TestService, queue: &str) -> pb::ConsumerGroup {
    let request = pb::ListConsumerGroupsRequest {
        project_id: PROJECT.into(),
        queue_id: queue.into(),
        ..pb::ListConsumerGroupsRequest::default()
    };
    let answer = service.replica.queues.clone().list_consumer_groups(request).await.unwrap().into_inner();
    answer.groups.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_group_is_listed_with_its_rule_and_what_that_has_passed_over() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let group = labelled(&service, "queue").await;
    let of_rest = async || rest.get(&format!("/queues/{}/groups", group.queue)).await.ok(200)["groups"][0].clone();
    assert!(of_rest().await.get("tag").is_none(), "as documented while there is no rule");
    assert_eq!(consume(&service, &group, &["a", "b"], All).await, ["3", "6"]);
    let shown = listed(&service, &group.queue).await;
    let rule = pb::LabelRule { tags: vec!["a".into(), "b".into()], tag_match: All.into() };
    assert_eq!((shown.label_rule, shown.passed_over_messages), (Some(rule), 4));
    service
        .send_messages(&group.queue, vec![tagged("7", &["a"]), tagged("8", &["b", "a"]), tagged("9", &[])])
        .await
        .unwrap();
    assert_eq!(consume(&service, &group, &["a", "b"], All).await, ["8"]);
    let entry = of_rest().await;
    assert_eq!((&entry["tag"], &entry["tag_type"]), (&json!(["a", "b"]), &json!("and")));
    // The last one stands behind what was delivered: it is passed over when the group looks for more.
    let request = group.labelled_request(&["a", "b"], All);
    assert!(group.glance_at(&service.replica, request).await.unwrap().is_empty());
    assert_eq!(of_rest().await["passed_over_messages"], 6);
    let other = service.another_replica().await;
    assert_eq!(
        rest_of(&other, &group.queue).await["passed_over_messages"],
        6,
        "another replica, or the same restarted"
    );
    other.shutdown().await;
}

async fn rest_of(replica: &Replica, queue: &str) -> Value {
    Rest::new(replica).get(&format!("/queues/{queue}/groups")).await.ok(200)["groups"][0].clone()
}

#[tokio::test]
async fn what_has_expired_or_fails_later_is_counted_for_what_it_is() {
    let service = TestService::start().await;
    let group = labelled(&service, "queue").await;
    let batch = service.receive(&group, 3).await;
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    // Of the failed ones `1` is not selected, of the new ones `4` and `5`.
    let again = group.poll_at(&service.replica, group.labelled_request(&["b"], Any)).await.unwrap();
    assert_eq!(bodies(&again), ["6", "2", "3"]);
    assert_eq!(listed(&service, &group.queue).await.passed_over_messages, 3);
    service.ack(&group, &handlers(&again, true)).await.unwrap();
    service.send_messages(&group.queue, vec![tagged("7", &["a"])]).await.unwrap();
    service.advance(73 * 3600);
    service.send_messages(&group.queue, vec![tagged("8", &["b"])]).await.unwrap();
    assert_eq!(consume(&service, &group, &["b"], Any).await, ["8"]);
    assert_eq!(
        listed(&service, &group.queue).await.passed_over_messages,
        3,
        "the expired one would have been lost anyway"
    );
}
