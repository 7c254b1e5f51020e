//! The short form of row r of the benchmark: whatever a hostile project does to itself, no call of a quiet project beside it
//! fails, and the lanes that serve both run hardly more statements for it. Counts only, which don't depend on the machine.

mod neighbour;
mod quiet;

use dms::broker::Settings;

use self::neighbour::{Acting, Broken};
use self::quiet::{MESSAGES, Quiet, calm};
use crate::support::calls::{PATIENCE, eventually};
use crate::support::service::{TestService, handlers};
use crate::support::statements::Statements;

/// A send, a claim and an acknowledgement each run a statement, and a claim may have to read its subscription first.
const STATEMENTS_OF_A_MESSAGE: u64 = 4;
/// What the lanes do by themselves once in a while.
const CHORES: u64 = 20;
/// Queues and groups that come and go.
const COMINGS: usize = 40;
/// Batches that fail.
const FAILURES: usize = 40;
/// Groups that look for a label.
const LABELLED_GROUPS: usize = 10;
/// Bytes that may wait in front of a lane, few enough for a flood to be refused.
const LANE_BYTES_MAX: usize = 512 << 10;

/// A service, and a quiet project on it that has felt no neighbour yet.
struct Scene {
    statements: Statements,
    service: TestService,
    quiet: Quiet,
}

impl Scene {
    /// Quotas are large enough for any neighbour.
    async fn begin() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let settings = Settings { pool_connections: 4, queues_per_project: 1_000, groups_per_queue: 100, ..settings };
        let statements = Statements::count();
        let service = TestService::with(settings).await;
        let mut quiet = Quiet::park(&service, &statements).await;
        statements.take();
        assert_eq!(quiet.exchange().await, [""; 0], "alone");
        let mut scene = Self { statements, service, quiet };
        scene.assert_statements("alone", 1, 0).await;
        scene
    }

    /// The lanes have run no more than this many statements for so many exchanges, since the last time they were counted.
    async fn assert_statements(&mut self, what: &str, exchanges: u64, others: u64) {
        calm(&self.statements).await;
        let counted = self.statements.take();
        let (total, max) = (counted.values().sum::<u64>(), exchanges * u64::from(MESSAGES) * STATEMENTS_OF_A_MESSAGE);
        assert!(total <= max + others + CHORES, "{what}: {total} statements instead of {max} + {others}: {counted:?}");
    }
}

#[tokio::test]
async fn queues_and_groups_that_come_and_go_cost_parked_consumers_nothing() {
    let mut scene = Scene::begin().await;
    neighbour::come_and_go(&scene.service, COMINGS).await;
    scene.assert_statements("while nobody sends", 0, 0).await;
    let (failures, ()) = tokio::join!(scene.quiet.exchange(), neighbour::come_and_go(&scene.service, COMINGS));
    assert_eq!(failures, [""; 0]);
    scene.assert_statements("while messages come", 1, 0).await;
}

#[tokio::test]
async fn a_project_that_fails_all_its_messages_costs_a_few_statements_for_each_batch() {
    let mut scene = Scene::begin().await;
    let group = neighbour::failed_backlog(&scene.service).await;
    scene.statements.take();
    let (failures, ()) = tokio::join!(scene.quiet.exchange(), neighbour::fail(&scene.service, &group, FAILURES));
    assert_eq!(failures, [""; 0]);
    scene.assert_statements("while batches fail", 1, 6 * FAILURES as u64).await;
}

#[tokio::test]
async fn label_rules_over_large_segments_read_each_of_them_once_a_group() {
    // Hardly a segment is in memory.
    let mut scene = Scene::with(Settings { cache_bytes: 1 << 20, ..Settings::default() }).await;
    let (groups, segments) = neighbour::labelled_backlog(&scene.service, LABELLED_GROUPS).await;
    scene.statements.take();
    let (failures, ()) = tokio::join!(scene.quiet.exchange(), neighbour::scan(&scene.service, &groups));
    assert_eq!(failures, [""; 0]);
    // Reads, claims and acknowledgements, and the rule.
    scene.assert_statements("while groups scan", 1, groups.len() as u64 * (3 * segments + 4)).await;
}

#[tokio::test]
async fn rows_that_a_project_locks_hold_up_nobody_else() {
    let mut scene = Scene::begin().await;
    let groups = neighbour::used_groups(&scene.service).await;
    let mut locks = neighbour::interfere(&scene.service, &groups).await;
    locks.lock().await.unwrap();
    let acting = Acting::begin(&scene.service, &groups);
    for round in 0..2 {
        assert_eq!(scene.quiet.exchange().await, [""; 0], "round {round}, while its neighbour's rows are locked");
    }
    locks.unlock().await.unwrap();
    acting.end().await;
    for group in &groups {
        eventually("the neighbour's queues work again", async || {
            neighbour::send(&scene.service, &group.queue).await.is_ok()
        })
        .await;
        let batch = scene.service.receive(group, 1).await;
        scene.service.ack(group, &handlers(&batch, true)).await.unwrap();
    }
}

async fn streams_that_cannot_be_appended_to(broken: Broken) {
    const EXCHANGES: u64 = 3;
    let mut scene = Scene::begin().await;
    let groups = neighbour::used_groups(&scene.service).await;
    broken.refuse(&scene.service, &groups).await;
    scene.statements.take();
    let acting = Acting::begin(&scene.service, &groups);
    for round in 0..EXCHANGES {
        assert_eq!(scene.quiet.exchange().await, [""; 0], "round {round}, beside streams that refuse appends");
    }
    let calls = acting.end().await;
    assert_eq!((calls.sent, calls.refused > 0), (0, true), "sends of the neighbour");
    scene.assert_statements("while appends fail", EXCHANGES, 4 * (calls.refused + calls.consumed)).await;
    broken.mend(&scene.service, &groups).await;
    for group in &groups {
        eventually("the neighbour can send again", async || {
            neighbour::send(&scene.service, &group.queue).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn offsets_that_overflow_fail_nobody_elses_sends() {
    streams_that_cannot_be_appended_to(Broken::Offsets).await;
}

#[tokio::test]
async fn segments_that_are_refused_fail_nobody_elses_sends() {
    streams_that_cannot_be_appended_to(Broken::Segments).await;
}

#[tokio::test]
async fn a_flood_is_refused_and_nobody_else_is() {
    let mut scene = Scene::with(Settings { lane_bytes_max: LANE_BYTES_MAX, ..Settings::default() }).await;
    let groups = neighbour::used_groups(&scene.service).await;
    let acting = Acting::flood(&scene.service, &groups);
    for round in 0..3 {
        assert_eq!(scene.quiet.exchange().await, [""; 0], "round {round}, beside a flood");
    }
    let calls = acting.end().await;
    assert!(calls.sent > 0 && calls.refused > 0, "{} sent, {} refused", calls.sent, calls.refused);
}

#[tokio::test]
async fn all_of_them_together_fail_no_call_of_a_quiet_project() {
    let mut scene = Scene::with(Settings { lane_bytes_max: LANE_BYTES_MAX, ..Settings::default() }).await;
    let service = &scene.service;
    let failed = neighbour::failed_backlog(service).await;
    let (labelled, _) = neighbour::labelled_backlog(service, LABELLED_GROUPS).await;
    let (locked, broken, flooded) = (
        neighbour::used_groups(service).await,
        neighbour::used_groups(service).await,
        neighbour::used_groups(service).await,
    );
    let mut locks = neighbour::interfere(service, &locked).await;
    locks.lock().await.unwrap();
    Broken::Offsets.refuse(service, &broken).await;
    let acting = [Acting::begin(service, &locked), Acting::begin(service, &broken), Acting::flood(service, &flooded)];
    let (failures, (), (), ()) = tokio::join!(
        scene.quiet.exchange(),
        neighbour::come_and_go(service, COMINGS),
        neighbour::fail(service, &failed, FAILURES),
        neighbour::scan(service, &labelled),
    );
    assert_eq!(failures, [""; 0]);
    locks.unlock().await.unwrap();
    for acting in acting {
        acting.end().await;
    }
}
