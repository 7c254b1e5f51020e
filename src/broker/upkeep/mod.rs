//! What goes on without a call: leases end, delays end, the log is kept to its retention.

pub(super) mod delays;
pub(super) mod leadership;
pub(super) mod next_delay;
pub(super) mod partitions;
pub(super) mod timekeeping;
pub(super) mod timers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ack::{LEASE_BYTES, SettleRequest};
use super::core::Core;
use crate::domain::clock::Timestamp;
use crate::domain::ids::SubscriptionKey;
use crate::domain::limits::RETENTION_DEFAULT;
use crate::domain::{Error, Result};
use crate::observe::metrics::{Expired, Upkeep};
use crate::store;
use crate::store::subscriptions::failed_expiry;
use crate::store::subscriptions::leases::{self, LeaseKey};

/// Leases handed to a settle lane at once: all their messages may have to be read, to become dead letters.
const LEASES_MAX: usize = 64;
/// Leases found by one sweep.
const SWEEP_MAX: i64 = 1000;
/// Groups with failed messages that have expired looked after in one round; the others have their turn in the next.
const FAILED_READERS_MAX: i64 = 1000;
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);
/// What the longest statement may take is added to this; then the database has gone without a word.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// A sweep takes at most this share of the time: it reads the whole table of leases.
const SWEEP_REST_FACTOR: u32 = 20;
/// The longest rest after one that failed: in an outage leases have ended whose replicas did not outlive it.
const SWEEP_REST_FAILED_MAX: Duration = Duration::from_secs(10);

/// A step of the upkeep, which must not wait for ever.
pub(super) async fn in_time<T>(core: &Core, step: impl Future<Output = Result<T>>) -> Result<T> {
    let answered = tokio::time::timeout(core.settings.statement_timeout + ANSWER_GRACE, step).await;
    answered.unwrap_or_else(|_| Err(Error::unavailable("the database did not answer in time")))
}

fn expire(core: &Core, leases: Vec<LeaseKey>) {
    let mut by_subscription: BTreeMap<SubscriptionKey, Vec<LeaseKey>> = BTreeMap::new();
    for lease in leases {
        by_subscription.entry(lease.subscription).or_default().push(lease);
    }
    for (subscription, leases) in by_subscription {
        let bytes = leases.len() * LEASE_BYTES;
        core.settle_lane(subscription.stream).push_event(SettleRequest::Expire(subscription, leases), bytes);
    }
}

/// Ends the leases that this replica gave out, to the moment.
pub(super) async fn expire_own(core: Arc<Core>) {
    loop {
        let wait = async {
            match core.timers.next_end() {
                Some(end) => tokio::select! {
                    () = core.clock.sleep_until(end) => {}
                    () = core.timers.earlier_end() => {}
                },
                None => core.timers.earlier_end().await,
            }
        };
        if core.until_stopped(wait).await.is_none() {
            return;
        }
        let ended = core.timers.take_ended(core.clock.now(), LEASES_MAX);
        expire(&core, ended);
    }
}

/// Ends leases that nobody else ends: those of replicas that are gone.
pub(super) async fn sweep_leases(core: Arc<Core>) {
    let mut pause = core.settings.sweep_interval;
    while core.until_stopped(tokio::time::sleep(pause)).await.is_some() {
        let begun = Instant::now();
        let now = core.clock.now();
        let swept = in_time(&core, leases::expired_in(&core.store.pool, now, SWEEP_MAX)).await;
        core.metrics.replica().kept_up(Upkeep::Leases, begun.elapsed(), swept.is_ok());
        let mut rest = begun.elapsed() * SWEEP_REST_FACTOR;
        match swept {
            Ok(leases) => {
                let late = leases.first().map_or(Duration::ZERO, |(_, ended_at)| now.since(*ended_at));
                core.metrics.replica().late(Upkeep::Leases, late);
                expire(&core, leases.into_iter().map(|(lease, _)| lease).collect());
            }
            Err(error) => {
                tracing::warn!(%error, "expired leases not swept");
                rest = rest.min(SWEEP_REST_FAILED_MAX);
            }
        }
        pause = core.settings.sweep_interval.max(rest);
    }
}

/// Makes partitions ahead and drops those in which everything has expired.
pub(super) async fn keep_retention(core: Arc<Core>) {
    while core.until_stopped(tokio::time::sleep(RETENTION_INTERVAL)).await.is_some() {
        let begun = Instant::now();
        let enforced = enforce_retention(&core).await;
        core.metrics.replica().kept_up(Upkeep::Retention, begun.elapsed(), enforced.is_ok());
        if let Err(error) = enforced {
            tracing::warn!(%error, "retention not enforced; it is tried again in a minute");
        }
    }
}

/// One round of retention; returns how many partitions were dropped.
pub(super) async fn enforce_retention(core: &Core) -> Result<usize> {
    let now = core.clock.now();
    in_time(core, core.renew_partitions(now)).await?;
    let horizon = core.horizon(RETENTION_DEFAULT);
    let failed = drop_failed(core, horizon).await?;
    if failed > 0 {
        tracing::warn!(messages = failed, "failed messages have expired before they were delivered again");
        core.metrics.messages().expired(Expired::Failed(failed));
    }
    let retire = async { Ok(store::log::partitions::retire_expired(&core.store, horizon).await?) };
    let dropped = in_time(core, retire).await?;
    if dropped > 0 {
        tracing::info!(dropped, "dropped expired partitions of the log");
    }
    Ok(dropped)
}

/// Freezes partitions whose day is over. Apart from the rest, for a large one takes its time.
pub(super) async fn freeze_partitions(core: Arc<Core>) {
    while core.until_stopped(tokio::time::sleep(RETENTION_INTERVAL)).await.is_some() {
        let Some(frozen) = core.until_stopped(freeze_past_days(&core)).await else { return };
        if let Err(error) = frozen {
            tracing::warn!(%error, "partitions of past days not frozen; it is tried again in a minute");
        }
    }
}

/// Freezes the partitions that are due; returns their names.
pub(super) async fn freeze_past_days(core: &Core) -> Result<Vec<String>> {
    let (begun, now) = (Instant::now(), core.clock.now());
    let frozen = store::log::partitions::freeze_past_days(&core.store, now, now.minus(RETENTION_DEFAULT)).await?;
    if !frozen.is_empty() {
        tracing::info!(tables = frozen.join(" "), elapsed = ?begun.elapsed(), "froze partitions of past days");
    }
    Ok(frozen)
}

/// Drops failed messages that have expired; says how many.
async fn drop_failed(core: &Core, horizon: Timestamp) -> Result<i64> {
    let pool = &core.store.pool;
    let find = async { Ok(failed_expiry::subscriptions(pool, horizon, FAILED_READERS_MAX).await?) };
    let mut total = 0;
    for subscription in in_time(core, find).await? {
        let mut more = true;
        while more {
            let drop = async { Ok(failed_expiry::drop_batch(pool, subscription, horizon).await?) };
            let (dropped, full) = in_time(core, drop).await?;
            total += dropped;
            more = full && !core.stop.is_cancelled();
        }
    }
    Ok(total)
}
