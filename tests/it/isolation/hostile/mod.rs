//! Clients that mean no good: slow ones, huge headers, thousands of connections, calls begun and dropped. They are cut off, and
//! others are served meanwhile.

mod calls;
mod connections;
mod floods;
mod limited;
mod unread;

use std::time::{Duration, Instant};

use dms_client::v1 as pb;
use dms_client::v1::queue_service_client::QueueServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::service::{PROJECT, TestService, bodies};

const CONNECTIONS: usize = 3_000;
const DROPPED_CALLS: usize = 5_000;
/// The limits are 10 s for the first word and 30 s for the headers of HTTP/1.
const PATIENCE: Duration = Duration::from_secs(45);

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// How long the service bears with a connection on which this comes, then a byte of `more` each second.
async fn borne(mut stream: TcpStream, first: &[u8], more: &[u8]) -> Duration {
    let begun = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        let _refused = writer.write_all(first).await;
        for byte in more {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _refused = writer.write_all(&[*byte]).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let end = async {
        tokio::select! {
            _end = reader.read_to_end(&mut answer) => {}
            () = write => {}
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("the service ends the connection");
    begun.elapsed()
}

/// How many connections the service has ended for this reason.
async fn cut(service: &TestService, why: &str) -> u64 {
    let text = reqwest::get(format!("{}/metrics", service.replica.admin())).await.unwrap().text().await.unwrap();
    let series = format!("dms_connections_cut_total{{why=\"{why}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).expect("a metric")
}

/// A send and a consume of somebody else.
async fn others_are_served(service: &TestService) {
    let queue = service.queue(&format!("q{}", uuid::Uuid::new_v4().simple())).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["17"]).await;
    assert_eq!(bodies(&service.take(&group, 1).await), ["17"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_slowly_is_cut_off_and_holds_up_nobody() {
    let service = TestService::start().await;
    let (rest, grpc) = (service.replica.rest().to_owned(), service.replica.grpc());
    let slow_headers = borne(connect(&rest).await, b"GET /v1.0/p/queues HTTP/1.1\r\nx-slow: ", &[b'a'; 60]);
    let slow_preface = borne(connect(&grpc).await, b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let silent = borne(connect(&rest).await, b"", b"");
    let (headers, preface, silence, ()) = tokio::join!(slow_headers, slow_preface, silent, others_are_served(&service));
    assert!((Duration::from_secs(5)..Duration::from_secs(40)).contains(&headers), "{headers:?}");
    assert!(preface < Duration::from_secs(20) && silence < Duration::from_secs(20), "{preface:?} {silence:?}");
    assert_eq!((cut(&service, "silent").await, cut(&service, "slow_head").await), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_headers_are_refused_on_both_ports() {
    let service = TestService::start().await;
    let mut stream = connect(service.replica.rest()).await;
    let mut request = b"GET /v1.0/p/queues HTTP/1.1\r\nhost: x\r\n".to_vec();
    (0..2_000).for_each(|n| request.extend(format!("x-{n}: {}\r\n", "v".repeat(1_000)).bytes()));
    let _refused = stream.write_all(&request).await;
    let mut answer = Vec::new();
    let _closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));

    let mut request = tonic::Request::new(pb::ListQueuesRequest { project_id: PROJECT.into(), ..Default::default() });
    request.metadata_mut().insert("x-large", "v".repeat(1_000_000).parse().unwrap());
    // On a connection of its own, which may end with it.
    let mut queues = QueueServiceClient::connect(service.replica.grpc()).await.unwrap();
    let refused = queues.list_queues(request).await.unwrap_err();
    assert_ne!(refused.code(), Code::Ok);
    others_are_served(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_hinder_nobody() {
    let service = TestService::start().await;
    let mut held = Vec::new();
    for number in 0..CONNECTIONS {
        let url = if number % 2 == 0 { service.replica.rest().to_owned() } else { service.replica.grpc() };
        held.push(connect(&url).await);
    }
    others_are_served(&service).await;
    // None of them has spoken; the service gives all of them up by itself.
    for stream in &mut held {
        // HTTP/2 has settings to tell before.
        let mut said = Vec::new();
        let _ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("closed in time");
    }
    others_are_served(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_begun_and_dropped_leave_nothing_behind() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let poll = pb::ConsumeMessagesRequest {
        project_id: PROJECT.into(),
        queue_id: group.queue.clone(),
        group_id: group.id.clone(),
        options: Some(pb::ConsumeOptions {
            wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..Default::default()
        }),
        ..Default::default()
    };
    for _ in 0..DROPPED_CALLS / 100 {
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let (mut messages, poll) = (service.replica.messages.clone(), poll.clone());
                tokio::spawn(async move { messages.consume_messages(poll).await })
            })
            .collect();
        tokio::task::yield_now().await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }
    service.send(&queue, &["1"]).await;
    assert_eq!(bodies(&service.take(&group, 1).await), ["1"]);
    let in_flight = async || {
        let text = reqwest::get(format!("{}/metrics", service.replica.admin())).await.unwrap().text().await.unwrap();
        text.lines().any(|line| line == "dms_calls_in_flight 0")
    };
    let deadline = Instant::now() + PATIENCE;
    while !in_flight().await {
        assert!(Instant::now() < deadline, "calls are still in flight");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
