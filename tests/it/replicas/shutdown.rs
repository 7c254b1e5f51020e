//! A replica that is told to stop: not ready any more, long polls answered empty, calls in flight ended, nothing answered lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dms_client::v1 as pb;
use dms_client::v1::message_service_client::MessageServiceClient;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::service::{PROJECT, TestService, bodies, handlers, message};

const SENDERS: i64 = 8;
/// Well below the limit of the tests' replicas, 10 s: nothing holds it up.
const SOON: Duration = Duration::from_secs(8);

/// Sends numbers from `first` on until it fails; those that were answered with success.
async fn send_until_refused(mut client: MessageServiceClient<Channel>, queue: String, first: i64) -> Vec<i64> {
    let mut answered = Vec::new();
    for number in first.. {
        let messages = vec![message(&number.to_string())];
        let request = pb::SendMessagesRequest {
            project_id: PROJECT.into(),
            queue_id: queue.clone(),
            messages,
            return_ids: false,
        };
        if client.send_messages(request).await.is_err() {
            break;
        }
        answered.push(number);
    }
    answered
}

/// What a watcher of the health hears until its stream ends.
async fn heard(channel: Channel) -> Vec<ServingStatus> {
    let watch = HealthClient::new(channel).watch(HealthCheckRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    let mut heard = Vec::new();
    while let Ok(Some(change)) = watch.message().await {
        heard.push(change.status());
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_in_order_and_nothing_answered_is_lost() {
    let mut service = TestService::start().await;
    let (queue, empty) = (service.queue("queue").await, service.queue("empty").await);
    let (group, nothing) = (service.group(&queue, "group").await, service.group(&empty, "group").await);
    let parked = service.parked(&nothing, 10).await;
    let other = service.another_replica().await;
    let stopped = std::mem::replace(&mut service.replica, other);
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| tokio::spawn(send_until_refused(stopped.messages.clone(), queue.clone(), number * 1_000_000)))
        .collect();
    let watch = tokio::spawn(heard(stopped.channel.clone()));
    let rest = stopped.rest().to_owned();
    tokio::time::sleep(Duration::from_millis(500)).await;

    let asked = Instant::now();
    stopped.shutdown().await;
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert_eq!(parked.answered_at_once().await, []);
    let heard = watch.await.unwrap();
    assert_eq!(heard[..2], [ServingStatus::Serving, ServingStatus::NotServing], "{heard:?}");
    assert!(reqwest::get(format!("{rest}/healthz")).await.is_err(), "nobody listens");

    let mut answered = BTreeSet::new();
    for sender in senders {
        let sent = sender.await.unwrap();
        assert!(!sent.is_empty());
        answered.extend(sent);
    }
    // One more may have been sent by each without an answer.
    let mut seen = BTreeSet::new();
    while !answered.is_subset(&seen) {
        let batch = service.take(&group, 10).await;
        service.ack(&group, &handlers(&batch, true)).await.unwrap();
        seen.extend(bodies(&batch).iter().map(|body| body.parse::<i64>().unwrap()));
    }
}
