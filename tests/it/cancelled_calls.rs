//! Consumers that go away: what was meant for them is for the others, and not counted.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use dms::broker::{Broker, BrokerOptions, Settings};
use dms::domain::ids::{GroupId, ProjectId, QueueId};
use dms::domain::message::{ConsumeOptions, GroupAddress, Source};
use dms::proto::v1 as pb;

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

fn options() -> ConsumeOptions {
    let (wait, lease) = (Duration::from_secs(60), Duration::from_secs(30));
    ConsumeOptions { max_messages: 10, wait, lease, rule: None }
}

fn address(group: &Group) -> GroupAddress {
    GroupAddress {
        project: ProjectId::parse(PROJECT).unwrap(),
        queue: QueueId::parse(&group.queue).unwrap(),
        group: GroupId::parse(&group.id).unwrap(),
        source: Source::Normal,
    }
}

/// Behind the network nobody can tell when a call is granted but not answered yet; in front of the broker one can.
#[tokio::test]
async fn a_batch_that_was_granted_to_a_call_cancelled_right_then_is_available_at_once_and_not_counted() {
    for mode in [pb::QueueMode::Normal, pb::QueueMode::Fifo] {
        let (service, group) = with_mode(mode).await;
        let clock = Some(Arc::new(service.clock.clone()) as _);
        let database_url = service.database.url().to_owned();
        let broker = Broker::start(BrokerOptions { database_url, settings: Settings::default(), clock }).await.unwrap();
        let address = address(&group);
        // Fills the catalog, so that the next call asks its lane when it is polled for the first time.
        let glance = ConsumeOptions { wait: Duration::from_millis(1), ..options() };
        assert!(broker.consume(&address, glance).await.unwrap().is_empty());
        {
            let mut cancelled = pin!(broker.consume(&address, options()));
            assert!(cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            service.send(&group.queue, &["1"]).await;
            let behind = ConsumeOptions { wait: Duration::from_millis(500), ..options() };
            assert!(broker.consume(&address, behind).await.unwrap().is_empty(), "granted to the call before");
        }
        let deliveries = broker.consume(&address, options()).await.unwrap();
        let seen: Vec<_> =
            deliveries.iter().map(|delivery| (delivery.message.body.as_ref(), delivery.attempt)).collect();
        assert_eq!(seen, [(b"1".as_slice(), 1)]);
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
