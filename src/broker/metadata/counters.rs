//! Metrics that are read instead of counted: brought up to date when somebody asks, and not more often than every few seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::broker::Broker;
use crate::broker::batching::lane::LaneQueue;
use crate::broker::core::Core;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{GroupId, QueueId, SubscriptionKey};
use crate::domain::limits::RETENTION_DEFAULT;
use crate::domain::{Error, Result};
use crate::observe::metrics::{GroupIds, GroupSample, Lane, Metrics, PostgresSample};
use crate::store::health::observe::{self, GroupBacklog};
use crate::store::health::{dead_rows, wraparound};

/// What was read of Postgres less than this ago is fresh.
const FRESH: Duration = Duration::from_secs(5);
/// A scrape waits for Postgres no longer than this: Prometheus gives it ten seconds, and wants the other metrics above all when
/// Postgres hangs.
const READ_LIMIT: Duration = Duration::from_secs(3);
const SECONDS_PER_HOUR: f64 = 3600.0;

/// What was read of Postgres for metrics. Whoever asks meanwhile waits for the same reading.
#[derive(Debug, Default)]
pub(crate) struct LastRead(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When figures were last read.
    at: Option<Instant>,
    /// Names of the groups to which this replica has given messages again; none for a subscription that is no group's, or gone.
    names: HashMap<SubscriptionKey, Option<[String; 3]>>,
}

impl Broker {
    /// The metrics of this replica.
    pub fn metrics(&self) -> &Metrics {
        &self.core.metrics
    }

    /// Brings the metrics up to date that nothing counts; shows at most `groups_max` groups. What cannot be read within three
    /// seconds is not shown.
    pub async fn observe(&self, groups_max: u32) {
        let core = &self.core;
        core.show_lanes();
        core.metrics.replica().set_cache_bytes(core.cache.bytes());
        core.metrics.memory().show(&core.memory, Some(core.metrics.calls().in_flight()));
        core.show_pool();
        core.metrics.clock().set_error(core.clock.error());
        let deadline = Instant::now() + READ_LIMIT;
        // Whoever has the lock reads already, and has a deadline too.
        let Ok(mut known) = timeout_at(deadline, core.observed.0.lock()).await else { return };
        if !core.leadership.leads() {
            let _in_time = timeout_at(deadline, show_redelivered(core, &mut known.names, groups_max)).await;
            return;
        }
        if known.at.is_some_and(|last| last.elapsed() < FRESH) {
            return;
        }
        let read = timeout_at(deadline, show_figures(core, groups_max)).await;
        if let Err(error) = read.unwrap_or_else(|_| Err(Error::unavailable("the database did not answer in time"))) {
            tracing::debug!(%error, "metrics of queues and Postgres not read");
            core.metrics.groups().clear();
            core.metrics.replica().clear_postgres();
        }
        known.at = Some(Instant::now());
    }

    /// Reads and shows the figures of groups and of Postgres now, whichever replica does that for all.
    pub async fn observe_groups(&self, groups_max: u32) -> Result<()> {
        show_figures(&self.core, groups_max).await
    }
}

/// What only this replica knows of groups, for the others are read by the leader. Asks Postgres for names that it does not know.
async fn show_redelivered(core: &Core, names: &mut HashMap<SubscriptionKey, Option<[String; 3]>>, groups_max: u32) {
    let most = core.metrics.messages().most_redelivered(usize::try_from(groups_max).unwrap_or(usize::MAX));
    names.retain(|subscription, _| most.iter().any(|(shown, _)| shown == subscription));
    let unknown: Vec<SubscriptionKey> = most
        .iter()
        .map(|(subscription, _)| *subscription)
        .filter(|subscription| !names.contains_key(subscription))
        .collect();
    if !unknown.is_empty() {
        let Ok(found) = observe::names(&core.store.pool, &unknown).await else { return };
        names.extend(unknown.into_iter().map(|subscription| (subscription, None)));
        names.extend(
            found
                .into_iter()
                .filter(|(subscription, _)| most.iter().any(|(shown, _)| shown == subscription))
                .map(named),
        );
    }
    let counts = most.into_iter().filter_map(|(subscription, count)| Some((names.get(&subscription)?.clone()?, count)));
    core.metrics.groups().show_redelivered(counts.collect());
}

fn named((subscription, names): (SubscriptionKey, [String; 3])) -> (SubscriptionKey, Option<[String; 3]>) {
    (subscription, Some(names))
}

impl Core {
    fn show_lanes(&self) {
        let lanes = &self.lanes;
        let append = lanes.append.iter().chain([&lanes.append_unflushed]);
        self.show_waiting(Lane::Append, append);
        self.show_waiting(Lane::Claim, &lanes.claim);
        self.show_waiting(Lane::Settle, &lanes.settle);
    }

    fn show_waiting<'a, T: 'a>(&self, lane: Lane, queues: impl IntoIterator<Item = &'a Arc<LaneQueue<T>>>) {
        self.metrics.lanes().set_waiting(lane, queues.into_iter().map(|queue| queue.waiting()));
    }

    fn show_pool(&self) {
        let pool = &self.store.pool;
        let idle = pool.num_idle();
        let used = (pool.size() as usize).saturating_sub(idle);
        self.metrics.replica().set_pool(idle, used, self.settings.pool_connections);
    }
}

async fn show_figures(core: &Core, groups_max: u32) -> Result<()> {
    show_groups(core, groups_max).await?;
    show_postgres(core).await
}

async fn show_groups(core: &Core, groups_max: u32) -> Result<()> {
    let now = core.clock.now();
    let pool = &core.store.pool;
    let groups =
        observe::groups(pool, core.clock.expiry_now(), core.horizon(RETENTION_DEFAULT), i64::from(groups_max)).await?;
    let total = match groups.first() {
        Some(group) => group.total,
        // No group, or none may be shown.
        None => observe::group_count(pool).await?,
    };
    let samples: Vec<GroupSample> = groups
        .into_iter()
        .map(|group| GroupSample {
            redelivered: core.metrics.messages().redelivered(group.reader()),
            ..sample(group, now)
        })
        .collect();
    core.metrics.groups().show(&samples, total - i64::try_from(samples.len()).unwrap_or(i64::MAX));
    Ok(())
}

fn sample(group: GroupBacklog, now: Timestamp) -> GroupSample {
    let oldest_seconds = group.oldest.map(|oldest| now.since(oldest).as_secs_f64());
    let kept_seconds = f64::from(group.retention_hours) * SECONDS_PER_HOUR;
    let ids = GroupIds {
        queue_id: QueueId(group.queue_id).to_string(),
        group_id: GroupId(group.group_id).to_string(),
        stream: group.stream_id,
        subscription: group.subscription_id,
    };
    GroupSample {
        ids,
        claims: group.version,
        cursor_offset: group.cursor_offset,
        passed_over: group.passed_over,
        project: group.project_id,
        queue: group.queue,
        group: group.name,
        backlog: group.unclaimed + group.leased + group.failed,
        expired: group.expired,
        redelivered: 0,
        in_flight: group.leased,
        failed: group.failed,
        dead_letters: group.dead_letters,
        dead_waiting: group.dead_waiting,
        dead_oldest_seconds: group.dead_oldest.map(|oldest| now.since(oldest).as_secs_f64()),
        oldest_seconds,
        retention_left_seconds: oldest_seconds.map(|age| kept_seconds - age),
    }
}

async fn show_postgres(core: &Core) -> Result<()> {
    let pool = &core.store.pool;
    let holders = dead_rows::holders(pool).await?;
    let unfrozen = wraparound::oldest_database(pool).await?;
    let sample = PostgresSample {
        hot_rows: dead_rows::hot_rows(pool).await?,
        oldest_snapshot_seconds: holders.iter().filter_map(|holder| holder.seconds).fold(0.0, f64::max),
        oldest_snapshot_transactions: holders.first().map_or(0, |oldest| oldest.age),
        unfrozen_transactions: unfrozen.transactions,
        unfrozen_multixacts: unfrozen.multixacts,
    };
    core.metrics.replica().show_postgres(&sample);
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn ages_and_what_is_left_of_the_retention_come_from_the_oldest_message() {
        let group = GroupBacklog {
            project_id: "p".into(),
            queue: "q".into(),
            name: "g".into(),
            retention_hours: 2,
            queue_id: Uuid::nil(),
            group_id: Uuid::nil(),
            stream_id: 1,
            subscription_id: 2,
            version: 6,
            cursor_offset: 8,
            passed_over: 9,
            unclaimed: 5,
            expired: 4,
            leased: 3,
            failed: 1,
            dead_letters: 7,
            oldest: Some(Timestamp(0)),
            dead_waiting: 2,
            dead_oldest: Some(Timestamp(0).plus(Duration::from_secs(1800))),
            total: 1,
        };
        let hour = Timestamp(0).plus(Duration::from_secs(3600));
        let shown = sample(group.clone(), hour);
        assert_eq!((shown.backlog, shown.in_flight, shown.failed, shown.expired), (9, 3, 1, 4));
        assert_eq!((shown.oldest_seconds, shown.retention_left_seconds), (Some(3600.0), Some(3600.0)));
        assert_eq!((shown.dead_waiting, shown.dead_oldest_seconds), (2, Some(1800.0)));
        assert_eq!((shown.claims, shown.cursor_offset, shown.passed_over), (6, 8, 9));
        let empty = sample(GroupBacklog { oldest: None, dead_oldest: None, ..group }, hour);
        let ages = (empty.oldest_seconds, empty.retention_left_seconds, empty.dead_oldest_seconds);
        assert_eq!(ages, (None, None, None));
    }
}
