//! A row that somebody has locked, by SQL, for seconds: whoever it belongs to waits or is told to retry, and nobody else notices.

use std::time::{Duration, Instant};

use dms::broker::Settings;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::support::calls::eventually;
use crate::support::rest::{Rest, all};
use crate::support::service::TestService;

/// One lane of each kind, so that all share it.
fn one_lane() -> Settings {
    Settings { append_lanes: 1, claim_lanes: 1, settle_lanes: 1, pool_connections: 4, ..Settings::default() }
}

/// A victim whose rows are locked, and a bystander of another project on the same lanes.
struct Site {
    service: TestService,
    victim: Rest,
    bystander: Rest,
    /// Queue and group of each.
    of_victim: (String, String),
    of_bystander: (String, String),
}

impl Site {
    async fn new(settings: Settings) -> Self {
        let service = TestService::with(settings).await;
        let victim = Rest::new(&service.replica);
        let bystander = victim.at("v1.0", "bystander");
        let of_victim = victim.queue_and_group(&json!({ "name": "q" })).await;
        let of_bystander = bystander.queue_and_group(&json!({ "name": "q" })).await;
        let site = Self { service, victim, bystander, of_victim, of_bystander };
        // Everything is known, and every connection is made.
        site.victim.send_bodies(&site.of_victim.0, &[json!("first")]).await;
        let (bodies, handlers) = site.victim.consume(&site.of_victim.1).await;
        assert_eq!(bodies, [json!("first")]);
        site.victim.ack(&site.of_victim.1, &all(&handlers, "success")).await.ok(200);
        site.goes_on(1).await;
        site
    }

    /// A session that has locked the victim's row of a table.
    async fn locked(&self, table: &str) -> PgConnection {
        let mut sql = self.service.sql().await;
        let queue = &self.of_victim.0;
        let lock = format!(
            "BEGIN; SELECT FROM {table} WHERE stream_id = (SELECT stream_id FROM queues WHERE queue_id = '{queue}') FOR UPDATE"
        );
        sql.execute(AssertSqlSafe(lock)).await.unwrap();
        sql
    }

    /// The bystander sends, receives, fails and acknowledges, time and again.
    async fn goes_on(&self, rounds: u32) {
        let (queue, group) = &self.of_bystander;
        for round in 0..rounds {
            self.bystander.send_bodies(queue, &[json!(round)]).await;
            for status in ["fail", "success"] {
                let (bodies, handlers) = self.bystander.consume(group).await;
                assert_eq!(bodies, [json!(round)], "never an empty answer while there is a message");
                let acked = self.bystander.ack(group, &all(&handlers, status)).await.ok(200);
                assert_eq!(acked[status], json!(1), "{acked}");
            }
        }
    }

    /// The same, in less time than one statement that waits for the lock.
    async fn goes_on_at_once(&self) {
        let begun = Instant::now();
        self.goes_on(20).await;
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }

    /// A call of the victim, under way.
    fn calling(&self, method: &str, path: String, body: Option<Value>) -> tokio::task::JoinHandle<(u16, String)> {
        let (rest, method) = (self.victim.clone(), method.parse().unwrap());
        tokio::spawn(async move {
            let answer = rest.call(method, &path, body.map(|body| body.to_string().into_bytes())).await;
            (answer.status, answer.text)
        })
    }

    fn sending(&self, message: Value) -> tokio::task::JoinHandle<(u16, String)> {
        let path = format!("/queues/{}/messages", self.of_victim.0);
        self.calling("POST", path, Some(json!({ "messages": [message] })))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_stream_holds_up_no_other_send() {
    let site = Site::new(one_lane()).await;
    let mut lock = site.locked("streams").await;
    let sends: Vec<_> = (0..5).map(|number| site.sending(json!({ "body": number }))).collect();
    let hidden = site.sending(json!({ "body": "hidden", "delayTime": 1 }));
    site.goes_on_at_once().await;
    assert!(sends.iter().chain([&hidden]).all(|send| !send.is_finished()), "nothing is said before it is so");
    lock.execute("ROLLBACK").await.unwrap();
    for send in sends.into_iter().chain([hidden]) {
        let (status, text) = send.await.unwrap();
        assert_eq!(status, 201, "{text}");
    }
    site.service.advance(1);
    let mut seen = Vec::new();
    eventually("all are there, once", async || {
        let (bodies, handlers) = site.victim.consume(&site.of_victim.1).await;
        if !handlers.is_empty() {
            site.victim.ack(&site.of_victim.1, &all(&handlers, "success")).await.ok(200);
        }
        seen.extend(bodies.iter().map(Value::to_string));
        seen.len() == 6
    })
    .await;
    seen.sort();
    assert_eq!(seen, ["\"hidden\"", "0", "1", "2", "3", "4"]);
    site.goes_on(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_to_a_stream_that_stays_locked_is_refused_and_not_stored() {
    let settings = Settings { statement_timeout: Duration::from_secs(2), ..one_lane() };
    let site = Site::new(settings).await;
    let mut lock = site.locked("streams").await;
    let (status, text) = site.sending(json!({ "body": "refused" })).await.unwrap();
    assert!(status == 500 && text.contains("DMS.10250003"), "{status} {text}");
    lock.execute("ROLLBACK").await.unwrap();
    assert_eq!(site.sending(json!({ "body": "stored" })).await.unwrap().0, 201);
    assert_eq!(site.victim.consume(&site.of_victim.1).await.0, [json!("stored")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_reader_holds_up_no_other_consumer() {
    let site = Site::new(one_lane()).await;
    let group = &site.of_victim.1;
    let second = site.victim.group(&site.of_victim.0, "second").await;
    site.victim.send_bodies(&site.of_victim.0, &[json!("failed"), json!("new")]).await;
    let leased = site.victim.get(&format!("{group}/messages?time_wait=1&max_msgs=1")).await.ok(200);
    let handler = leased[0]["handler"].as_str().unwrap().to_owned();
    let queue = &site.of_victim.0;
    let lock_first = format!(
        "BEGIN; SELECT FROM subscriptions WHERE subscription_id =
         (SELECT min(subscription_id) FROM consumer_groups WHERE queue_id = '{queue}') FOR UPDATE"
    );
    let mut lock = site.service.sql().await;
    lock.execute(AssertSqlSafe(lock_first)).await.unwrap();
    let ack = json!({ "message": [{ "handler": handler, "status": "fail" }] });
    let failing = site.calling("POST", format!("{group}/ack"), Some(ack));
    let consuming = site.calling("GET", format!("{group}/messages?time_wait=30&max_msgs=1"), None);
    site.goes_on_at_once().await;
    // Another group of the same queue is somebody else too.
    let (bodies, handlers) = site.victim.consume(&second).await;
    assert_eq!(bodies, [json!("first"), json!("failed"), json!("new")]);
    assert_eq!(site.victim.ack(&second, &[(&handlers[0], "fail")]).await.ok(200)["fail"], json!(1));
    assert!(!failing.is_finished() && !consuming.is_finished());
    lock.execute("ROLLBACK").await.unwrap();
    let (status, text) = failing.await.unwrap();
    assert_eq!((status, text.as_str()), (200, r#"{"success":0,"fail":1}"#));
    let (status, text) = consuming.await.unwrap();
    assert!(status == 200 && text.contains("\"handler\""), "{status} {text}");
    site.goes_on(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_lease_holds_up_no_other_acknowledgement() {
    let site = Site::new(one_lane()).await;
    let group = &site.of_victim.1;
    site.victim.send_bodies(&site.of_victim.0, &[json!(1)]).await;
    let (_, handlers) = site.victim.consume(group).await;
    let mut lock = site.locked("leases").await;
    let ack = json!({ "message": [{ "handler": handlers[0], "status": "success" }] });
    let acking = site.calling("POST", format!("{group}/ack"), Some(ack));
    site.goes_on_at_once().await;
    assert!(!acking.is_finished());
    lock.execute("ROLLBACK").await.unwrap();
    assert_eq!(acking.await.unwrap(), (200, r#"{"success":1,"fail":0}"#.to_owned()));
    let left = site.service.number("SELECT count(*) FROM leases").await;
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_of_others_end_while_a_stream_is_locked() {
    let site = Site::new(one_lane()).await;
    for (rest, (queue, _)) in [(&site.victim, &site.of_victim), (&site.bystander, &site.of_bystander)] {
        rest.send_messages(queue, &json!([{ "body": "late", "delayTime": 5000 }])).await;
    }
    let mut lock = site.locked("streams").await;
    site.service.advance(5);
    let (queue, group) = &site.of_bystander;
    eventually("the bystander's delay has ended", async || site.bystander.consume(group).await.0 == [json!("late")])
        .await;
    assert!(site.victim.consume(&site.of_victim.1).await.0.is_empty());
    lock.execute("ROLLBACK").await.unwrap();
    eventually("the victim's delay has ended", async || {
        site.victim.consume(&site.of_victim.1).await.0 == [json!("late")]
    })
    .await;
    site.bystander.send_bodies(queue, &[json!("next")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_failures_of_others_are_dropped_while_a_reader_is_locked() {
    let site = Site::new(one_lane()).await;
    for (rest, (queue, group)) in [(&site.victim, &site.of_victim), (&site.bystander, &site.of_bystander)] {
        rest.send_bodies(queue, &[json!("fails")]).await;
        let (_, handlers) = rest.consume(group).await;
        rest.ack(group, &all(&handlers, "fail")).await.ok(200);
    }
    let retries = "SELECT count(*) FROM retries";
    assert_eq!(site.service.number(retries).await, 2);
    let mut lock = site.locked("subscriptions").await;
    site.service.advance(4 * 86_400);
    let begun = Instant::now();
    site.service.enforce_retention().await;
    assert_eq!(site.service.number(retries).await, 1, "after {:?}", begun.elapsed());
    lock.execute("ROLLBACK").await.unwrap();
    site.service.enforce_retention().await;
    assert_eq!(site.service.number(retries).await, 0);
}

/// Replicas that append to one stream lock its row in turns, and so does somebody who keeps it for longer than a lane waits.
#[tokio::test(flavor = "multi_thread")]
async fn short_locks_lose_and_repeat_nothing() {
    const EACH: i64 = 60;
    let site = Site::new(one_lane()).await;
    let other = site.service.another_replica().await;
    let others = Rest::new(&other);
    let (queue, group) = &site.of_victim;
    let mut lock = site.service.sql().await;
    let row = format!(
        "SELECT FROM streams WHERE stream_id = (SELECT stream_id FROM queues WHERE queue_id = '{queue}') FOR UPDATE"
    );
    let locking = async {
        for _ in 0..8 {
            lock.execute(AssertSqlSafe(format!("BEGIN; {row}"))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(180)).await;
            lock.execute("ROLLBACK").await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let send = async |rest: &Rest, first: i64| {
        for number in first..first + EACH {
            rest.send_bodies(queue, &[json!(number)]).await;
        }
    };
    tokio::join!(
        locking,
        send(&site.victim, 0),
        send(&site.victim, 1000),
        send(&others, 2000),
        send(&others, 3000),
        site.goes_on(10)
    );
    let mut seen = Vec::new();
    while seen.len() < 4 * usize::try_from(EACH).unwrap() {
        let (bodies, handlers) = site.victim.consume(group).await;
        assert!(!bodies.is_empty(), "{} came", seen.len());
        site.victim.ack(group, &all(&handlers, "success")).await.ok(200);
        seen.extend(bodies.iter().map(|body| body.as_i64().unwrap()));
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq((0..4).flat_map(|sender| (0..EACH).map(move |number| 1000 * sender + number))));
    assert!(site.victim.consume(group).await.0.is_empty());
    other.shutdown().await;
}
