//! Consumers that go away: what was meant for them is for the others, and not counted.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use dms::broker::{Broker, BrokerOptions, Settings};
use dms::domain::ids::{GroupId, ProjectId, QueueId};
use dms::domain::message::{ConsumeOptions, GroupAddress, Source};
use dms_client::v1 as pb;

use crate::support::service::{Group, PROJECT, TestService, attempts, bodies, handlers};

async fn with_mode(mode: pb::QueueMode) -> (TestService, Group) {
    let service = TestService::start().await;
    let new = pb::CreateQueueRequest { name: "orders".into(), queue_mode: mode.into(), ..Default::default() };
    let queue = service.create_queue(new).await;
    let group = service.group(&queue, "billing").await;
    (service, group)
}

#[tokio::test]
async fn a_parked_consumer_that_goes_away_swallows_nothing() {
    for mode in [pb::QueueMode::Normal, pb::QueueMode::Fifo] {
        let (service, group) = with_mode(mode).await;
        let (first, second) = (service.parked(&group, 10).await, service.parked(&group, 10).await);
        let third = service.parked(&group, 10).await;
        first.go_away().await;
        third.go_away().await;
        service.send(&group.queue, &["1"]).await;
        let batch = second.answered_at_once().await;
        assert_eq!((bodies(&batch), attempts(&batch)), (vec!["1".to_owned()], vec![1]));
        service.ack(&group, &handlers(&batch, true)).await.unwrap();
        service.send(&group.queue, &["2"]).await;
        let batch = service.take(&group, 10).await;
        assert_eq!((bodies(&batch), attempts(&batch)), (vec!["2".to_owned()], vec![1]));
    }
}

#[tokio::test]
async fn a_rest_consumer_whose_connection_drops_swallows_nothing() {
    let (service, group) = with_mode(pb::QueueMode::Normal).await;
    let url = service.replica.url(&format!("/queues/{}/groups/{}/messages?time_wait=60", group.queue, group.id));
    let waiting = tokio::spawn(reqwest::get(url));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let behind = service.parked(&group, 10).await;
    assert!(!waiting.is_finished());
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    // The end of a TCP connection is not in order with calls on other ones.
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.send(&group.queue, &["1"]).await;
    let batch = behind.answered_at_once().await;
    assert_eq!((bodies(&batch), attempts(&batch)), (vec!["1".to_owned()], vec![1]));
}

fn options(wait: Duration) -> ConsumeOptions {
    ConsumeOptions { max_messages: 10, wait, lease: Duration::from_secs(30), rule: None }
}

fn address(group: &Group) -> GroupAddress {
    GroupAddress {
        project: ProjectId::parse(PROJECT).unwrap(),
        queue: QueueId::parse(&group.queue).unwrap(),
        group: GroupId::parse(&group.id).unwrap(),
        source: Source::Normal,
    }
}

/// A broker of its own on the database of the service, its catalog filled for this group: a call asks its lane when it is
/// polled for the first time.
async fn broker(service: &TestService, address: &GroupAddress) -> Broker {
    let clock = Some(Arc::new(service.clock.clone()) as _);
    let database_url = service.database.url().to_owned();
    let broker = Broker::start(BrokerOptions { database: database_url.into(), settings: Settings::default(), clock })
        .await
        .unwrap();
    assert!(
        broker.consume(address, options(Duration::ZERO), &broker.answer(&address.project)).await.unwrap().is_empty()
    );
    broker
}

/// Behind the network nobody can tell when a call is granted but not answered yet; in front of the broker one can.
#[tokio::test]
async fn a_batch_granted_to_a_call_that_is_cancelled_right_then_is_available_at_once_and_not_counted() {
    for (mode, failures) in [(pb::QueueMode::Normal, 0), (pb::QueueMode::Normal, 2), (pb::QueueMode::Fifo, 2)] {
        let (service, group) = with_mode(mode).await;
        let address = address(&group);
        let broker = broker(&service, &address).await;
        service.send(&group.queue, &["1"]).await;
        for _ in 0..failures {
            service.fail_next(&group, 10).await;
        }
        let memory = broker.answer(&address.project);
        {
            let mut cancelled = pin!(broker.consume(&address, options(Duration::from_secs(60)), &memory));
            assert!(cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            let behind = broker.consume(&address, options(Duration::from_millis(500)), &memory).await.unwrap();
            assert!(behind.is_empty(), "granted to the call before");
        }
        let deliveries = broker.consume(&address, options(Duration::from_secs(4)), &memory).await.unwrap();
        let seen: Vec<_> =
            deliveries.iter().map(|delivery| (delivery.message.body.as_ref(), delivery.attempt)).collect();
        assert_eq!(seen, [(b"1".as_slice(), failures + 1)]);
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn calls_cancelled_at_any_moment_lose_nothing() {
    const COUNT: usize = 40;
    let (service, group) = with_mode(pb::QueueMode::Normal).await;
    let mut expected = Vec::new();
    for number in 0..COUNT {
        let request = group.consume_request(10);
        let mut client = service.replica.messages.clone();
        let call = tokio::spawn(async move { client.consume_messages(request).await });
        let body = number.to_string();
        service.send(&group.queue, &[&body]).await;
        tokio::time::sleep(Duration::from_micros(u64::try_from(number).unwrap() * 100)).await;
        call.abort();
        drop(call.await);
        expected.push(body);
    }
    // A batch that was on its way to its consumer is leased to it; the others are there already.
    let mut seen = Vec::new();
    while seen.len() < COUNT {
        service.advance(31);
        let batch = service.take(&group, 10).await;
        service.ack(&group, &handlers(&batch, true)).await.unwrap();
        seen.extend(bodies(&batch));
    }
    seen.sort_by_key(|body| body.parse::<usize>().unwrap());
    assert_eq!(seen, expected);
    assert!(service.consume(&group, 10).await.is_empty());
    assert_eq!(service.counters(&group).await.consumed_messages, i64::try_from(COUNT).unwrap());
}
