//! Retention: 72 hours to the moment, by partitions that are dropped whatever still points into them.

use std::collections::BTreeSet;
use std::time::Duration;

use dms::domain::clock::Clock as _;
use dms_client::v1 as pb;
use pb::QueueMode::{Fifo, Normal};

use crate::support::calls::eventually;
use crate::support::service::{TestService, attempts, bodies, handlers};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const MILLISECOND: Duration = Duration::from_millis(1);

/// The days that have a partition, counted from today.
async fn partitions(service: &TestService) -> BTreeSet<i64> {
    let query = "SELECT c.relname::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'segments'::regclass";
    let names: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut service.sql().await).await.unwrap();
    let today = service.clock.now().0 / 86_400_000_000;
    names.iter().map(|name| name.strip_prefix("segments_d").unwrap().parse::<i64>().unwrap() - today).collect()
}

async fn outstanding(service: &TestService) -> i64 {
    service.number("SELECT (SELECT count(*) FROM leases) + (SELECT count(*) FROM retries)").await
}

#[tokio::test]
async fn messages_are_kept_72_hours_to_the_moment() {
    let service = TestService::start().await;
    for (name, mode) in [("normal", Normal), ("fifo", Fifo)] {
        let queue = service.queue_of(name, mode).await;
        let (first, second) = (service.group(&queue, "first").await, service.group(&queue, "second").await);
        service.send(&queue, &["1", "2"]).await;
        service.clock.advance(MILLISECOND);
        service.send(&queue, &["3"]).await;
        service.clock.advance(Duration::from_secs(72 * HOUR) - 2 * MILLISECOND);
        let batch = service.receive(&first, 10).await;
        assert_eq!(bodies(&batch)[..2], ["1", "2"], "{name}: just before");
        assert_eq!(service.counts(&second).await, [3, 0, 3, 0, 0], "{name}");
        service.clock.advance(MILLISECOND);
        assert_eq!(service.counts(&second).await, [1, 0, 1, 0, 0], "{name}");
        assert_eq!(service.work_off(&second, 1).await, ["3"], "{name}: just after");
        // What was leased in time can still be acknowledged.
        service.ack(&first, &handlers(&batch[..2], true)).await.unwrap();
        assert_eq!(service.counts(&first).await[1], 2, "{name}");
    }
}

#[tokio::test]
async fn expired_partitions_are_dropped_and_others_stay() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    for day in 0..6 {
        service.send(&queue, &[&day.to_string()]).await;
        assert!(partitions(&service).await.is_superset(&[0, 1].into()), "made ahead");
        if day < 5 {
            service.advance(DAY);
        }
    }
    let before = partitions(&service).await;
    assert!(before.is_superset(&(-5..=1).collect()), "{before:?}");
    assert_eq!(service.counts(&group).await, [3, 0, 3, 0, 0]);
    let dropped = service.enforce_retention().await;
    let after = partitions(&service).await;
    // Of the day that began between three and four days ago something may live.
    assert_eq!(after.first(), Some(&-3), "{after:?}");
    assert_eq!(before.len() - after.intersection(&before).count(), dropped);
    assert!(dropped >= 2, "{before:?} {after:?}");
    assert_eq!(service.enforce_retention().await, 0);
    assert_eq!(service.counts(&group).await, [3, 0, 3, 0, 0]);
    assert_eq!(service.work_off(&group, 3).await, ["3", "4", "5"]);
    assert_eq!(service.counts(&group).await, [3, 3, 0, 0, 0]);
}

#[tokio::test]
async fn partitions_go_while_leases_and_retries_point_into_them() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", Normal, 2).await;
    let (leased, failed, done) = (
        service.group(&queue, "leased").await,
        service.group(&queue, "failed").await,
        service.group(&queue, "done").await,
    );
    service.send(&queue, &["1", "2", "3"]).await;
    assert_eq!(service.receive(&leased, 2).await.len(), 2);
    let batch = service.receive(&failed, 3).await;
    service.ack(&failed, &handlers(&batch, false)).await.unwrap();
    service.work_off(&done, 3).await;
    service.advance(5 * DAY);
    assert!(service.enforce_retention().await > 0);
    assert_eq!(service.number("SELECT count(*) FROM segments").await, 0);
    assert!(!partitions(&service).await.contains(&-5));
    for (group, consumed) in [(&leased, 0), (&failed, 0), (&done, 3)] {
        assert!(service.consume(group, 10).await.is_empty());
        assert_eq!(service.counts(group).await, [0, consumed, 0, 0, 0]);
    }
    eventually("nothing points below the horizon", async || outstanding(&service).await == 0).await;
    service.send(&queue, &["4"]).await;
    for (group, consumed) in [(&leased, 1), (&failed, 1), (&done, 4)] {
        assert_eq!(service.work_off(group, 1).await, ["4"]);
        assert_eq!(service.counts(group).await, [1, consumed, 0, 0, 0]);
    }
}

#[tokio::test]
async fn failed_messages_of_a_group_that_nobody_consumes_expire_too() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "abandoned").await;
    service.send(&queue, &["1", "2"]).await;
    service.advance(HOUR);
    service.send(&queue, &["3"]).await;
    let batch = [service.receive(&group, 2).await, service.receive(&group, 1).await].concat();
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    service.advance(72 * HOUR - HOUR / 2);
    service.enforce_retention().await;
    assert_eq!(service.number("SELECT count(*) FROM retries").await, 1, "only what has expired");
    assert_eq!(service.counts(&group).await, [1, 0, 1, 0, 0]);
    assert_eq!(service.work_off(&group, 1).await, ["3"]);
    assert_eq!(service.counts(&group).await, [1, 1, 0, 0, 0]);
}

#[tokio::test]
async fn failures_of_expired_messages_make_no_dead_letters() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", Fifo, 1).await;
    let groups = [service.group(&queue, "fails").await, service.group(&queue, "forgets").await];
    service.send(&queue, &["1", "2"]).await;
    service.advance(72 * HOUR - 10);
    let [failing, forgotten] = [service.receive(&groups[0], 10).await, service.receive(&groups[1], 10).await];
    assert_eq!((failing.len(), forgotten.len()), (2, 2));
    service.advance(10);
    let result = service.ack(&groups[0], &handlers(&failing, false)).await.unwrap();
    assert_eq!((result.success_count, result.fail_count), (0, 2));
    service.advance(20);
    eventually("both are gone", async || outstanding(&service).await == 0).await;
    for group in &groups {
        assert_eq!(service.counts(group).await, [0; 5]);
        assert!(service.consume(group, 10).await.is_empty());
        assert!(service.consume_dead_letters(group, 10).await.is_empty());
    }
    // FIFO: nothing is in the way.
    service.send(&queue, &["3"]).await;
    assert_eq!(service.work_off(&groups[1], 1).await, ["3"]);
}

#[tokio::test]
async fn a_failed_message_that_expires_is_not_delivered_again() {
    let service = TestService::start().await;
    let queue = service.queue_of("queue", Fifo).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1"]).await;
    service.advance(HOUR);
    service.send(&queue, &["2"]).await;
    let batch = service.receive(&group, 10).await;
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    assert_eq!(service.counts(&group).await, [2, 0, 2, 0, 0]);
    service.advance(71 * HOUR);
    assert_eq!(service.counts(&group).await, [1, 0, 1, 0, 0]);
    let again = service.receive(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (vec!["2".to_owned()], vec![2]));
    assert_eq!(service.counts(&group).await, [1, 0, 1, 0, 0]);
}

#[tokio::test]
async fn a_group_far_behind_goes_on_with_what_is_kept() {
    let service = TestService::start().await;
    let queue = service.queue_of("queue", Fifo).await;
    let (behind, far_behind) = (service.group(&queue, "behind").await, service.group(&queue, "far").await);
    for day in 0..8 {
        service.send(&queue, &[&day.to_string(), "\"x\""]).await;
        if day == 1 {
            assert_eq!(service.work_off(&behind, 3 + 1).await.len(), 4);
        }
        service.advance(DAY);
    }
    // Three days after the sends of day 5, to the moment: those have just expired.
    assert_eq!(service.counts(&far_behind).await, [4, 0, 4, 0, 0]);
    service.enforce_retention().await;
    assert_eq!(service.work_off(&far_behind, 4).await, ["6", "\"x\"", "7", "\"x\""]);
    assert_eq!(service.work_off(&behind, 4).await, ["6", "\"x\"", "7", "\"x\""]);
    assert_eq!(service.counts(&far_behind).await, [4, 4, 0, 0, 0]);
    assert_eq!(service.counts(&behind).await, [4, 8, 0, 0, 0]);
    service.advance(4 * DAY);
    service.enforce_retention().await;
    let late = service.group(&queue, "late").await;
    assert_eq!(service.counts(&late).await, [0; 5]);
    service.send(&queue, &["8"]).await;
    assert_eq!(service.work_off(&late, 1).await, ["8"]);
}

#[tokio::test]
async fn dead_letters_are_kept_72_hours_from_their_move() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", Normal, 1).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2"]).await;
    service.advance(71 * HOUR);
    let batch = service.receive(&group, 10).await;
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    service.advance(60 * HOUR);
    service.enforce_retention().await;
    assert_eq!(service.counts(&group).await, [0, 0, 0, 2, 2], "outlives its original");
    let dead = service.receive_dead_letters(&group, 1).await;
    assert_eq!(bodies(&dead), ["1"]);
    service.advance(12 * HOUR - 1);
    eventually("the lease has ended", async || service.number("SELECT count(*) FROM leases").await == 0).await;
    let both = service.receive_dead_letters(&group, 10).await;
    assert_eq!((bodies(&both), attempts(&both)), (vec!["2".to_owned(), "1".to_owned()], vec![1, 2]));
    service.advance(1);
    assert_eq!(service.counts(&group).await, [0, 0, 0, 2, 0]);
    service.advance(30);
    assert!(service.consume_dead_letters(&group, 10).await.is_empty());
}

#[tokio::test]
async fn a_service_goes_on_for_weeks() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    for day in 1..=21 {
        service.advance(DAY);
        service.send(&queue, &["1"]).await;
        assert_eq!(service.work_off(&group, 1).await, ["1"]);
        assert_eq!(service.counts(&group).await, [day.min(3), day, 0, 0, 0]);
        if day % 7 == 0 {
            service.enforce_retention().await;
            let days = partitions(&service).await;
            assert!(days.len() <= 8 && days.first() >= Some(&-4), "{days:?}");
        }
    }
}

#[tokio::test]
async fn a_service_starts_long_after_its_last_partition() {
    let mut service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1"]).await;
    service.advance(400 * DAY);
    let next = service.another_replica().await;
    std::mem::replace(&mut service.replica, next).shutdown().await;
    assert!(service.consume(&group, 10).await.is_empty());
    service.send(&queue, &["2"]).await;
    assert_eq!(service.work_off(&group, 1).await, ["2"]);
    assert!(service.enforce_retention().await > 0);
    let days = partitions(&service).await;
    assert!(days.first() >= Some(&-1) && days.contains(&1), "{days:?}");
    assert_eq!(service.counts(&group).await, [1, 1, 0, 0, 0]);
}

#[tokio::test]
async fn sends_and_consumes_go_on_while_partitions_are_dropped() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["0"]).await;
    service.advance(5 * DAY);
    // Somebody reads the partition that is to go: only the drop has to wait.
    let mut reader = service.sql().await;
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM segments").execute(&mut reader).await.unwrap();
    let traffic = async {
        for number in 1..=60 {
            service.send(&queue, &[&number.to_string()]).await;
            assert_eq!(service.work_off(&group, 1).await, [number.to_string()]);
        }
        assert_eq!(service.number("SELECT count(*) FROM segments").await, 61, "not yet dropped");
        sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();
    };
    let (dropped, ()) = tokio::join!(service.enforce_retention(), traffic);
    assert!(dropped > 0);
    assert_eq!(service.number("SELECT count(*) FROM segments").await, 60);
    assert_eq!(service.counts(&group).await, [60, 60, 0, 0, 0]);
}
