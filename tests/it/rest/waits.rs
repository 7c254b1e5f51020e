//! Long polls over REST: real time passes while nothing is there, and none once something is.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::rest::{Rest, all};
use crate::support::service::{TestService, message};

/// What an answer that should have been at once may take on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(900);

async fn start() -> (TestService, Rest, String, String) {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let settings = json!({ "name": "q", "redrive_policy": "enable", "max_consume_count": 1 });
    let (queue, group) = rest.queue_and_group(&settings).await;
    (service, rest, queue, group)
}

async fn timed(rest: &Rest, path: &str) -> (Value, Duration) {
    let asked = Instant::now();
    let answer = rest.get(path).await.ok(200);
    (answer, asked.elapsed())
}

#[track_caller]
fn about(elapsed: Duration, seconds: u64) {
    let expected = Duration::from_secs(seconds);
    assert!(elapsed >= expected - Duration::from_millis(60) && elapsed < expected + AT_ONCE, "{elapsed:?}");
}

#[tokio::test]
async fn an_empty_consume_takes_as_long_as_it_says_and_three_seconds_by_default() {
    let (_service, rest, _, group) = start().await;
    for (query, seconds) in [("?time_wait=1", 1), ("?time_wait=2", 2), ("", 3), ("?time_wait=", 3)] {
        for source in ["messages", "deadletters"] {
            let (answer, elapsed) = timed(&rest, &format!("{group}/{source}{query}")).await;
            assert_eq!(answer, json!([]), "{source}{query}");
            about(elapsed, seconds);
        }
    }
}

#[tokio::test]
async fn a_wait_longer_than_the_usual_deadline_of_a_call_is_held() {
    let (_service, rest, queue, group) = start().await;
    let path = format!("{group}/messages?time_wait=60");
    let waiting = {
        let rest = rest.clone();
        tokio::spawn(async move { timed(&rest, &path).await })
    };
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!waiting.is_finished());
    rest.send_bodies(&queue, &[json!(1)]).await;
    let (answer, elapsed) = waiting.await.unwrap();
    assert_eq!(answer[0]["message"]["body"], json!(1));
    about(elapsed, 4);
}

#[tokio::test]
async fn a_message_or_a_dead_letter_ends_the_wait() {
    let (service, rest, queue, group) = start().await;
    let wait = |source: &str| {
        let (rest, path) = (rest.clone(), format!("{group}/{source}?time_wait=60"));
        tokio::spawn(async move { timed(&rest, &path).await })
    };
    let (waiting, dying) = (wait("messages"), wait("deadletters"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Through the other door.
    service.send_messages(&queue, vec![message("1")]).await.unwrap();
    let (answer, elapsed) = waiting.await.unwrap();
    about(elapsed, 1);
    rest.ack(&group, &[(answer[0]["handler"].as_str().unwrap(), "fail")]).await.ok(200);
    let (dead, _) = dying.await.unwrap();
    assert_eq!(dead[0]["message"]["body"], json!(1));
}

#[tokio::test]
async fn a_failed_message_ends_the_wait_of_another_consumer() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    rest.send_bodies(&queue, &[json!(1)]).await;
    let (_, handlers) = rest.consume(&group).await;
    let waiting = {
        let (rest, path) = (rest.clone(), format!("{group}/messages?time_wait=60"));
        tokio::spawn(async move { timed(&rest, &path).await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    rest.ack(&group, &all(&handlers, "fail")).await.ok(200);
    let (answer, elapsed) = waiting.await.unwrap();
    assert_eq!(answer[0]["message"]["body"], json!(1));
    about(elapsed, 1);
}

#[tokio::test]
async fn a_deleted_queue_ends_the_wait_with_not_found() {
    let (_service, rest, queue, group) = start().await;
    let waiting = {
        let (rest, path) = (rest.clone(), format!("{group}/messages?time_wait=60"));
        tokio::spawn(async move { (rest.get(&path).await.code(), Instant::now()) })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let deleted = Instant::now();
    rest.delete(&format!("/queues/{queue}")).await.ok(204);
    let (code, answered) = waiting.await.unwrap();
    assert_eq!(code, (404, "DMS.10240401".into()));
    assert!(answered - deleted < Duration::from_secs(5), "{:?}", answered - deleted);
}
