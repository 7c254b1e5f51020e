//! This replica: its memory, its pool, its upkeep, and Postgres as it sees it.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Postgres as it was seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PostgresSample {
    /// Live and dead rows of the hot tables, by name.
    pub(crate) hot_rows: Vec<(String, i64, i64)>,
    /// Age of the oldest transaction that keeps dead rows from being removed, as far as it is known.
    pub(crate) oldest_snapshot_seconds: f64,
    /// Transactions begun since the oldest one that keeps dead rows from being removed.
    pub(crate) oldest_snapshot_transactions: i64,
    /// Transactions begun since the oldest id that a database of the server has not frozen.
    pub(crate) unfrozen_transactions: i64,
    /// The same of multixacts.
    pub(crate) unfrozen_multixacts: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Table {
    table: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Task {
    task: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// A step of the upkeep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// Ends leases of replicas that are gone.
    Leases,
    /// Makes delayed messages available.
    Delays,
    /// Drops what has expired.
    Retention,
}

impl Upkeep {
    const ALL: [Self; 3] = [Self::Leases, Self::Delays, Self::Retention];
}

impl From<Upkeep> for Task {
    fn from(step: Upkeep) -> Self {
        let task = match step {
            Upkeep::Leases => "leases",
            Upkeep::Delays => "delays",
            Upkeep::Retention => "retention",
        };
        Self { task }
    }
}

/// What belongs to no queue.
#[derive(Debug, Default)]
pub struct Replica {
    cache_hits: Counter,
    cache_misses: Counter,
    cache_bytes: Gauge,
    pool: Family<State, Gauge>,
    pool_max: Gauge,
    upkeep: Family<Task, Gauge<f64, AtomicU64>>,
    upkeep_lag: Family<Task, Gauge<f64, AtomicU64>>,
    upkeep_failures: Family<Task, Counter>,
    upkeep_success: Family<Task, Gauge<f64, AtomicU64>>,
    postgres_up: Gauge,
    leader: Gauge,
    figures_read: Gauge,
    live_rows: Family<Table, Gauge>,
    dead_rows: Family<Table, Gauge>,
    oldest_snapshot: Gauge<f64, AtomicU64>,
    oldest_snapshot_transactions: Gauge<f64, AtomicU64>,
    unfrozen_transactions: Gauge<f64, AtomicU64>,
    unfrozen_multixacts: Gauge<f64, AtomicU64>,
}

impl Replica {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let replica = Self::default();
        registry.register("cache_hits", "Segments found in memory", replica.cache_hits.clone());
        registry.register("cache_misses", "Segments read from the log", replica.cache_misses.clone());
        registry.register_with_unit("cache", "Memory for recent segments", Unit::Bytes, replica.cache_bytes.clone());
        registry.register("pool_connections", "Connections of the pool, by state", replica.pool.clone());
        registry.register("pool_connections_max", "Connections that the pool may have", replica.pool_max.clone());
        replica.register_upkeep(registry);
        replica.register_postgres(registry);
        replica
    }

    fn register_upkeep(&self, registry: &mut Registry) {
        let help = "Time that a step of the upkeep took when it last ran";
        registry.register_with_unit("upkeep", help, Unit::Seconds, self.upkeep.clone());
        let help = "How late the upkeep was with the oldest lease that has ended, or delay, when it last looked";
        registry.register_with_unit("upkeep_lag", help, Unit::Seconds, self.upkeep_lag.clone());
        for step in [Upkeep::Leases, Upkeep::Delays] {
            self.late(step, Duration::ZERO);
        }
        registry.register("upkeep_failures", "Steps of the upkeep that failed", self.upkeep_failures.clone());
        let help = "When a step of the upkeep last succeeded, in Unix time; at first when the replica started";
        registry.register_with_unit("upkeep_last_success_timestamp", help, Unit::Seconds, self.upkeep_success.clone());
        for step in Upkeep::ALL {
            drop(self.upkeep_failures.get_or_create(&step.into()));
            self.succeeded(step);
        }
    }

    fn register_postgres(&self, registry: &mut Registry) {
        registry.register("postgres_up", "1 while Postgres answers", self.postgres_up.clone());
        let help =
            "1 while this replica does the work of all: sweeps, delays, retention, figures of groups and of Postgres";
        registry.register("leader", help, self.leader.clone());
        let help = "1 while the leader can read figures of groups and of Postgres in time; else they are not shown";
        registry.register("figures_read", help, self.figures_read.clone());
        let help = "Rows of the hot tables, as Postgres estimates them: of delayed_messages, messages under delay";
        registry.register("postgres_live_rows", help, self.live_rows.clone());
        registry.register("postgres_dead_rows", "Dead rows of the hot tables", self.dead_rows.clone());
        let help =
            "Age of the oldest transaction that keeps dead rows from being removed, of those that the role may see";
        registry.register_with_unit("postgres_oldest_snapshot", help, Unit::Seconds, self.oldest_snapshot.clone());
        let help = "Transactions begun since the oldest session, prepared transaction or slot that keeps dead rows";
        registry.register("postgres_oldest_snapshot_transactions", help, self.oldest_snapshot_transactions.clone());
        let help = "Age of the oldest transaction id that a database of the server has not frozen; writes stop at two thousand million";
        registry.register("postgres_unfrozen_transactions", help, self.unfrozen_transactions.clone());
        let help = "The same of multixacts";
        registry.register("postgres_unfrozen_multixacts", help, self.unfrozen_multixacts.clone());
    }

    /// A segment was looked for in memory.
    pub fn looked_up(&self, found: bool) {
        if found { &self.cache_hits } else { &self.cache_misses }.inc();
    }

    /// Bytes in the cache.
    pub(crate) fn set_cache_bytes(&self, bytes: usize) {
        self.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Connections of the pool, now and at most.
    pub(crate) fn set_pool(&self, idle: usize, used: usize, max: u32) {
        self.pool_max.set(i64::from(max));
        for (state, count) in [("idle", idle), ("used", used)] {
            self.pool.get_or_create(&State { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A step of the upkeep has ended.
    pub(crate) fn kept_up(&self, step: Upkeep, elapsed: Duration, well: bool) {
        self.upkeep.get_or_create(&step.into()).set(elapsed.as_secs_f64());
        if well {
            self.succeeded(step);
        } else {
            self.upkeep_failures.get_or_create(&step.into()).inc();
        }
    }

    /// How late a step was with the oldest of what it had to end.
    pub fn late(&self, step: Upkeep, lag: Duration) {
        self.upkeep_lag.get_or_create(&step.into()).set(lag.as_secs_f64());
    }

    /// Unix time is for whoever looks at the metric; the service decides nothing by it.
    fn succeeded(&self, step: Upkeep) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.upkeep_success.get_or_create(&step.into()).set(now.as_secs_f64());
    }

    /// Whether Postgres answers.
    pub(crate) fn set_postgres_up(&self, up: bool) {
        self.postgres_up.set(i64::from(up));
    }

    /// Postgres could not be asked for figures in time: what was seen before may be true no longer.
    pub(crate) fn clear_postgres(&self) {
        self.figures_read.set(0);
        self.live_rows.clear();
        self.dead_rows.clear();
        self.oldest_snapshot.set(f64::NAN);
        self.oldest_snapshot_transactions.set(f64::NAN);
        self.unfrozen_transactions.set(f64::NAN);
        self.unfrozen_multixacts.set(f64::NAN);
    }

    /// Whether this replica does the work of all.
    pub(crate) fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Another replica reads figures and does the upkeep from now on: what was seen last would stand here for ever.
    pub(crate) fn clear_figures(&self) {
        self.clear_postgres();
        self.upkeep.clear();
        self.upkeep_lag.clear();
    }

    /// Postgres as it was just seen.
    pub(crate) fn show_postgres(&self, sample: &PostgresSample) {
        self.figures_read.set(1);
        for (table, live, dead) in &sample.hot_rows {
            let table = Table { table: table.clone() };
            self.live_rows.get_or_create(&table).set(*live);
            self.dead_rows.get_or_create(&table).set(*dead);
        }
        self.oldest_snapshot.set(sample.oldest_snapshot_seconds);
        for (gauge, age) in [
            (&self.oldest_snapshot_transactions, sample.oldest_snapshot_transactions),
            (&self.unfrozen_transactions, sample.unfrozen_transactions),
            (&self.unfrozen_multixacts, sample.unfrozen_multixacts),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "ages are far below 2^52")]
            gauge.set(age as f64);
        }
    }
}
