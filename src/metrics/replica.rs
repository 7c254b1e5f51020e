//! This replica: its memory, its pool, its upkeep, and Postgres as it sees it.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Postgres as it was seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PostgresSample {
    /// Dead rows of the hot tables, by name.
    pub dead_rows: Vec<(String, i64)>,
    /// Age of the oldest snapshot that keeps dead rows from being removed.
    pub oldest_snapshot_seconds: f64,
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

/// What belongs to no queue.
#[derive(Debug, Default)]
pub struct Replica {
    cache_hits: Counter,
    cache_misses: Counter,
    cache_bytes: Gauge,
    pool: Family<State, Gauge>,
    upkeep: Family<Task, Gauge<f64, AtomicU64>>,
    upkeep_failures: Family<Task, Counter>,
    postgres_up: Gauge,
    dead_rows: Family<Table, Gauge>,
    oldest_snapshot: Gauge<f64, AtomicU64>,
}

impl Replica {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let replica = Self::default();
        registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("cache_hits", "Segments found in memory", replica.cache_hits.clone());
        registry.register("cache_misses", "Segments read from the log", replica.cache_misses.clone());
        registry.register_with_unit("cache", "Memory for recent segments", Unit::Bytes, replica.cache_bytes.clone());
        registry.register("pool_connections", "Connections of the pool, by state", replica.pool.clone());
        let help = "Time that a step of the upkeep took when it last ran";
        registry.register_with_unit("upkeep", help, Unit::Seconds, replica.upkeep.clone());
        registry.register("upkeep_failures", "Steps of the upkeep that failed", replica.upkeep_failures.clone());
        registry.register("postgres_up", "1 while Postgres answers", replica.postgres_up.clone());
        registry.register("postgres_dead_rows", "Dead rows of the hot tables", replica.dead_rows.clone());
        let help = "Age of the oldest snapshot, which keeps dead rows from being removed";
        registry.register_with_unit("postgres_oldest_snapshot", help, Unit::Seconds, replica.oldest_snapshot.clone());
        replica
    }

    /// A segment was looked for in memory.
    pub fn looked_up(&self, found: bool) {
        if found { &self.cache_hits } else { &self.cache_misses }.inc();
    }

    /// Bytes in the cache.
    pub fn set_cache_bytes(&self, bytes: usize) {
        self.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Connections of the pool.
    pub fn set_pool(&self, idle: usize, used: usize) {
        for (state, count) in [("idle", idle), ("used", used)] {
            self.pool.get_or_create(&State { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A step of the upkeep has ended.
    pub fn kept_up(&self, task: &'static str, elapsed: Duration, well: bool) {
        self.upkeep.get_or_create(&Task { task }).set(elapsed.as_secs_f64());
        let failures = self.upkeep_failures.get_or_create(&Task { task });
        if !well {
            failures.inc();
        }
    }

    /// Whether Postgres answers.
    pub fn set_postgres_up(&self, up: bool) {
        self.postgres_up.set(i64::from(up));
    }

    /// Postgres as it was just seen.
    pub fn show_postgres(&self, sample: &PostgresSample) {
        self.dead_rows.clear();
        for (table, count) in &sample.dead_rows {
            self.dead_rows.get_or_create(&Table { table: table.clone() }).set(*count);
        }
        self.oldest_snapshot.set(sample.oldest_snapshot_seconds);
    }
}
