//! Limits: quotas, sizes, and bounds that are reached without losing anything.

use std::collections::BTreeSet;
use std::time::Duration;

use dms::broker::Settings;
use dms_client::v1 as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::service::{PROJECT, TestService, bodies, code, message};

const BATCH_BYTES: usize = 524_288;

async fn create(service: &TestService, project: &str, name: &str) -> Result<String, Status> {
    let request = pb::CreateQueueRequest { project_id: project.into(), name: name.into(), ..Default::default() };
    Ok(service.replica.queues.clone().create_queue(request).await?.into_inner().queue.unwrap().id)
}

async fn create_groups(service: &TestService, queue: &str, names: &[&str]) -> Result<Vec<String>, Status> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let request = pb::CreateConsumerGroupsRequest { project_id: PROJECT.into(), queue_id: queue.into(), names };
    let created = service.replica.queues.clone().create_consumer_groups(request).await?.into_inner();
    Ok(created.groups.into_iter().map(|group| group.name).collect())
}

async fn group_names(service: &TestService, queue: &str) -> Vec<String> {
    let request =
        pb::ListConsumerGroupsRequest { project_id: PROJECT.into(), queue_id: queue.into(), ..Default::default() };
    let groups = service.replica.queues.clone().list_consumer_groups(request).await.unwrap().into_inner().groups;
    groups.into_iter().map(|group| group.name).collect()
}

async fn quota(service: &TestService, project: &str) -> (i32, i32) {
    let request = pb::GetQuotasRequest { project_id: project.into() };
    let quotas = service.replica.queues.clone().get_quotas(request).await.unwrap().into_inner().quotas;
    assert_eq!((quotas.len(), quotas[0].r#type.as_str()), (1, "queue"));
    (quotas[0].quota, quotas[0].used)
}

fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings { pool_connections: 4, ..Settings::default() };
    change(&mut settings);
    settings
}

/// A JSON string of so many bytes.
fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

#[tokio::test]
async fn a_project_has_30_queues_and_frees_places_by_deletion() {
    let service = TestService::start().await;
    let mut ids = Vec::new();
    for number in 0..30 {
        assert_eq!(quota(&service, PROJECT).await, (30, number));
        ids.push(create(&service, PROJECT, &format!("queue-{number}")).await.unwrap());
    }
    let refused = create(&service, PROJECT, "queue-30").await.unwrap_err();
    assert_eq!((code(&refused).as_str(), quota(&service, PROJECT).await), ("DMS.10240020", (30, 30)));
    create(&service, "another-project", "queue-30").await.unwrap();
    assert_eq!(quota(&service, "another-project").await, (30, 1));
    let request = pb::DeleteQueueRequest { project_id: PROJECT.into(), queue_id: ids.swap_remove(7) };
    service.replica.queues.clone().delete_queue(request).await.unwrap();
    create(&service, PROJECT, "queue-30").await.unwrap();
    assert_eq!(code(&create(&service, PROJECT, "queue-31").await.unwrap_err()), "DMS.10240020");
}

#[tokio::test]
async fn concurrent_creation_never_exceeds_the_quota() {
    let service = TestService::with(with(|settings| settings.queues_per_project = 5)).await;
    let names: Vec<String> = (0..20).map(|number| format!("queue-{number}")).collect();
    let tasks: Vec<_> = names.iter().map(|name| (service.replica.queues.clone(), name.clone())).collect();
    let tasks = tasks.into_iter().map(|(mut queues, name)| {
        let request = pb::CreateQueueRequest { project_id: PROJECT.into(), name, ..Default::default() };
        tokio::spawn(async move { queues.create_queue(request).await })
    });
    let mut created = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(_) => created += 1,
            Err(status) => assert_eq!(code(&status), "DMS.10240020"),
        }
    }
    assert_eq!((created, quota(&service, PROJECT).await), (5, (5, 5)));
}

#[tokio::test]
async fn a_name_is_given_once_also_to_concurrent_callers() {
    let service = TestService::start().await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let mut queues = service.replica.queues.clone();
            let name = "queue".to_owned();
            let request = pb::CreateQueueRequest { project_id: PROJECT.into(), name, ..Default::default() };
            tokio::spawn(async move { queues.create_queue(request).await.map(drop) })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => created += 1,
            Err(status) => assert_eq!((code(&status).as_str(), status.code()), ("DMS.10240017", Code::AlreadyExists)),
        }
    }
    assert_eq!(created, 1);
    create(&service, "another-project", "queue").await.unwrap();
    create(&service, PROJECT, "Queue").await.unwrap();
}

#[tokio::test]
async fn a_queue_has_3_groups_and_creation_is_all_or_nothing() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let refused = async |names: &[&str]| code(&create_groups(&service, &queue, names).await.unwrap_err());
    assert_eq!(refused(&["a", "b", "c", "d"]).await, "DMS.10240019");
    assert_eq!(refused(&["a", "a"]).await, "DMS.10240018");
    assert_eq!(refused(&["a", "b!"]).await, "DMS.10240007");
    assert_eq!(refused(&["a", ""]).await, "DMS.10240012");
    assert!(group_names(&service, &queue).await.is_empty());
    assert_eq!(create_groups(&service, &queue, &["b", "a"]).await.unwrap(), ["b", "a"]);
    assert_eq!(refused(&["c", "d"]).await, "DMS.10240019");
    assert_eq!(refused(&["a"]).await, "DMS.10240018");
    assert_eq!(group_names(&service, &queue).await, ["b", "a"]);
    create_groups(&service, &queue, &["c"]).await.unwrap();
    assert_eq!(refused(&["d"]).await, "DMS.10240019");
    let other = service.queue("other").await;
    create_groups(&service, &other, &["a", "b", "c"]).await.unwrap();
}

#[tokio::test]
async fn concurrent_creation_never_exceeds_the_groups_of_a_queue() {
    let service = TestService::with(with(|settings| settings.groups_per_queue = 5)).await;
    let queue = service.queue("queue").await;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let mut queues = service.replica.queues.clone();
            let names = vec![format!("g{number}"), format!("h{number}")];
            let (project_id, queue_id) = (PROJECT.into(), queue.clone());
            let request = pb::CreateConsumerGroupsRequest { project_id, queue_id, names };
            tokio::spawn(async move { queues.create_consumer_groups(request).await.map(drop) })
        })
        .collect();
    for task in tasks {
        if let Err(status) = task.await.unwrap() {
            assert_eq!(code(&status), "DMS.10240019");
        }
    }
    let names = group_names(&service, &queue).await;
    let pairs: BTreeSet<&str> = names.iter().map(|name| &name[1..]).collect();
    assert_eq!((names.len(), pairs.len()), (4, 2), "whole pairs only: {names:?}");
}

#[tokio::test]
async fn a_send_has_1_to_10_messages() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    for count in [0, 11, 100] {
        let refused = service.send_messages(&queue, vec![message("1"); count]).await.unwrap_err();
        assert_eq!(code(&refused), "DMS.10540010", "{count}");
    }
    service.send_messages(&queue, vec![message("1"); 10]).await.unwrap();
    assert_eq!(service.counts(&group).await, [10, 0, 10, 0, 0]);
}

#[tokio::test]
async fn a_send_has_at_most_512_kb_of_bodies_attributes_and_labels() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let attributes = format!("{{\"a\":{}}}", text(1000));
    let around = |body: usize| pb::NewMessage {
        attributes: attributes.clone().into(),
        tags: vec!["l".repeat(64)],
        ..message(&text(body))
    };
    let most = BATCH_BYTES - attributes.len() - 64;
    let batches = [
        (vec![message(&text(BATCH_BYTES))], vec![message(&text(BATCH_BYTES + 1))]),
        (vec![around(most)], vec![around(most + 1)]),
        (
            vec![message(&text(BATCH_BYTES / 2)); 2],
            vec![message(&text(BATCH_BYTES / 2)), message(&text(BATCH_BYTES / 2 + 1))],
        ),
    ];
    for (fits, too_large) in batches {
        service.send_messages(&queue, fits).await.unwrap();
        let refused = service.send_messages(&queue, too_large).await.unwrap_err();
        assert_eq!(code(&refused), "DMS.10540011");
    }
    assert_eq!(service.counts(&group).await, [4, 0, 4, 0, 0]);
    let mut sizes = Vec::new();
    while sizes.len() < 4 {
        let batch = service.receive(&group, 10).await;
        sizes.extend(bodies(&batch).iter().map(String::len));
    }
    assert_eq!(sizes, [BATCH_BYTES, most, BATCH_BYTES / 2, BATCH_BYTES / 2]);
}

#[tokio::test]
async fn a_consume_answer_has_at_most_512_kb() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    for _ in 0..2 {
        service.send_messages(&queue, vec![message(&text(100_000)); 5]).await.unwrap();
    }
    // Exactly the limit, and one byte above it.
    service.send_messages(&queue, vec![message(&text(BATCH_BYTES / 2)); 2]).await.unwrap();
    service
        .send_messages(&queue, vec![message(&text(BATCH_BYTES / 2 - 1)), message(&text(BATCH_BYTES / 2))])
        .await
        .unwrap();
    service.send_messages(&queue, vec![message(&text(2))]).await.unwrap();
    let mut batches = Vec::new();
    while batches.iter().sum::<usize>() < 15 {
        batches.push(service.receive(&group, 10).await.len());
    }
    assert_eq!(batches, [5, 5, 2, 2, 1]);
    service.advance(30);
    // Their leases have ended in the same instant, so any of the batches may come first.
    let mut again = 0;
    while again < 15 {
        let batch = service.receive(&group, 10).await;
        let bytes: usize = bodies(&batch).iter().map(String::len).sum();
        assert!(bytes <= BATCH_BYTES, "also when they come again");
        again += batch.len();
    }
}

#[tokio::test]
async fn a_consume_answer_has_at_most_the_messages_asked_for() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    for _ in 0..3 {
        service.send_messages(&queue, vec![message("1"); 10]).await.unwrap();
    }
    for max in [1, 7, 10] {
        assert_eq!(service.receive(&group, max).await.len(), usize::try_from(max).unwrap());
    }
    for max in [0, -1, 11] {
        let refused = group.consume_from(&service.replica, max).await.unwrap_err();
        assert_eq!(code(&refused), "DMS.10240014", "{max}");
    }
}

/// Nothing fits into the cache, or little does: what is delivered is the same.
#[tokio::test]
async fn a_cache_smaller_than_the_data_gives_the_same_results() {
    for cache_bytes in [0, 1, 5_000, 64 << 20] {
        let service = TestService::with(with(|settings| settings.cache_bytes = cache_bytes)).await;
        let queue = service.redrive_queue("queue", pb::QueueMode::Fifo, 2).await;
        let group = service.group(&queue, "group").await;
        let sent: Vec<String> = (0..90).map(|number| format!("{number}{}", " ".repeat(100))).collect();
        for chunk in sent.chunks(9) {
            service.send_messages(&queue, chunk.iter().map(|body| message(body)).collect()).await.unwrap();
        }
        let mut seen = Vec::new();
        let mut sizes = (1..=10).cycle();
        while seen.len() < sent.len() {
            let batch = service.receive(&group, sizes.next().unwrap()).await;
            assert!(!batch.is_empty(), "cache of {cache_bytes} bytes: only {} came", seen.len());
            // Each batch fails once before it succeeds.
            let fails = batch[0].delivery_attempt == 1;
            let entries: Vec<_> = batch.iter().map(|leased| (leased.handler.as_str(), !fails)).collect();
            service.ack(&group, &entries).await.unwrap();
            if !fails {
                seen.extend(bodies(&batch));
            }
        }
        assert_eq!(seen, sent, "cache of {cache_bytes} bytes");
        assert_eq!(service.counts(&group).await, [90, 90, 0, 0, 0]);
    }
}

#[tokio::test]
async fn a_dead_letter_is_made_of_a_message_that_is_not_in_the_cache() {
    let service = TestService::with(with(|settings| settings.cache_bytes = 0)).await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2", "3"]).await;
    let batch = service.receive(&group, 10).await;
    service.ack(&group, &[(&batch[0].handler, true), (&batch[1].handler, false)]).await.unwrap();
    assert_eq!(bodies(&service.receive_dead_letters(&group, 10).await), ["2"]);
}

#[tokio::test]
async fn a_send_too_large_for_its_lane_is_refused_with_a_hint_and_nothing_is_stored() {
    let service = TestService::with(with(|settings| settings.lane_bytes_max = 10_000)).await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let refused = service.send_messages(&queue, vec![message(&text(10_001))]).await.unwrap_err();
    assert_eq!((refused.code(), code(&refused).as_str()), (Code::ResourceExhausted, "DMS.10240407"));
    let hint = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(!hint.is_zero() && hint < Duration::from_secs(10), "{hint:?}");
    service.send_messages(&queue, vec![message(&text(10_000))]).await.unwrap();
    assert_eq!(service.counts(&group).await, [1, 0, 1, 0, 0]);
    assert_eq!(service.work_off(&group, 1).await.len(), 1);

    let body = format!("{{\"messages\":[{{\"body\":{}}}]}}", text(10_001));
    let answer = reqwest::Client::new()
        .post(service.replica.url(&format!("/queues/{queue}/messages")))
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 404);
    let retry_after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..10).contains(&retry_after), "{retry_after}");
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["error_code"], "DMS.10240407");
}

#[tokio::test]
async fn calls_beyond_a_full_lane_are_refused_and_nothing_is_lost() {
    let service = TestService::with(with(|settings| settings.lane_calls_max = 2)).await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let sends: Vec<_> = (0..300)
        .map(|number| {
            let mut messages = service.replica.messages.clone();
            let request = pb::SendMessagesRequest {
                project_id: PROJECT.into(),
                queue_id: queue.clone(),
                messages: vec![message(&number.to_string())],
                return_ids: false,
            };
            tokio::spawn(async move { (number.to_string(), messages.send_messages(request).await.map(drop)) })
        })
        .collect();
    let (mut sent, mut refused) = (BTreeSet::new(), 0);
    for send in sends {
        match send.await.unwrap() {
            (body, Ok(())) => drop(sent.insert(body)),
            (_, Err(status)) => {
                assert_eq!((status.code(), code(&status).as_str()), (Code::ResourceExhausted, "DMS.10240407"));
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && !sent.is_empty(), "{refused} refused, {} sent", sent.len());
    assert_eq!(sent.len() + refused, 300);
    // Every send that was answered with success, and no other, is there.
    let received: BTreeSet<String> = service.work_off(&group, sent.len()).await.into_iter().collect();
    assert_eq!(received, sent);
    let count = i64::try_from(sent.len()).unwrap();
    assert_eq!(service.counts(&group).await, [count, count, 0, 0, 0]);
}

#[tokio::test]
async fn consumers_refused_by_a_full_lane_get_everything_when_they_come_again() {
    let service = TestService::with(with(|settings| settings.lane_calls_max = 1)).await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    for _ in 0..30 {
        service.send_messages(&queue, vec![message("1"); 10]).await.unwrap();
    }
    let consumers: Vec<_> = (0..100).map(|_| group.waiting_at(&service.replica, group.consume_request(10))).collect();
    let (mut leased, mut refused) = (Vec::new(), 0);
    for consumer in consumers {
        // Thirty batches for a hundred consumers: what is left waits, or was refused.
        if leased.len() == 300 {
            consumer.abort();
            continue;
        }
        match consumer.await.unwrap() {
            Ok(batch) => leased.extend(batch),
            Err(status) => {
                assert_eq!((status.code(), code(&status).as_str()), (Code::ResourceExhausted, "DMS.10240407"));
                refused += 1;
            }
        }
    }
    while leased.len() < 300 {
        leased.extend(service.receive(&group, 10).await);
    }
    assert!(refused > 0);
    let offsets: BTreeSet<i64> = leased.iter().map(|leased| leased.message.as_ref().unwrap().offset).collect();
    assert_eq!((offsets.len(), leased.len()), (300, 300), "each leased once");
    assert_eq!(service.counts(&group).await, [300, 0, 300, 0, 0]);
}
