//! The semantics: batching, claims, acknowledgements, long polls, expiry, dead letters, retention. No SQL text.
//!
//! ```text
//! send ----> append lane --(segment committed)--> claim lane ----> consume
//! ack  ----> settle lane --(failed, dead letter)------^
//! ```

mod ack;
mod batching;
pub mod clock;
mod consume;
mod core;
mod metadata;
mod replicas;
mod send;
mod settings;
mod upkeep;

use std::sync::Arc;

use tokio_util::task::TaskTracker;

pub use self::settings::Settings;

use self::batching::apart::Apart;
use self::clock::DatabaseClock;
use self::core::Core;
use crate::domain::Result;
use crate::domain::clock::Clock;
use crate::domain::ids::ProjectId;
use crate::memory::{Answer, Memory, Owner, Use};
use crate::observe::metrics::Lane;
use crate::store::health::diagnosis::Diagnosis;
use crate::store::session::clock::ClockConnection;
use crate::store::session::connection::Durability;
use crate::store::session::leadership::Candidate;
use crate::store::session::notifications::Listener;
use crate::store::{self, Database, Store, StoreOptions};

/// How to start a broker.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Where the data is.
    pub database: Database,
    /// What the operator set.
    pub settings: Settings,
    /// `None`: Postgres's own clock.
    pub clock: Option<Arc<dyn Clock>>,
}

/// One replica: stateless but for what Postgres holds.
#[derive(Debug, Clone)]
pub struct Broker {
    core: Arc<Core>,
    /// Lanes that end when they are closed and empty.
    claims: TaskTracker,
    writes: TaskTracker,
    /// Loops that end when the service stops.
    loops: TaskTracker,
}

impl Broker {
    /// Connects, and starts the lanes and the upkeep. The schema must be up to date.
    pub async fn start(options: BrokerOptions) -> Result<Self> {
        Self::start_if(options, async |_, _| Ok(())).await
    }

    /// The same, unless `usable` finds something against the database.
    pub(crate) async fn start_if(
        options: BrokerOptions,
        usable: impl AsyncFnOnce(&mut Diagnosis, &Settings) -> Result<()>,
    ) -> Result<Self> {
        let store = Store::new(&StoreOptions {
            database: options.database,
            pool_connections: options.settings.pool_connections,
            statement_timeout: options.settings.statement_timeout,
        })?;
        // Says why Postgres cannot be reached, which the pool would not.
        let mut diagnosis = Diagnosis::at_start(&store).await?;
        usable(&mut diagnosis, &options.settings).await?;
        diagnosis.close().await?;
        store::schema::check(&store.pool, store.schema()).await?;
        let (clock, own): (Arc<dyn Clock>, _) = match options.clock {
            Some(clock) => (clock, None),
            None => {
                let mut connection = ClockConnection::new(&store);
                let clock = DatabaseClock::start(&mut connection).await?;
                (Arc::new(clock.clone()), Some((clock, connection)))
            }
        };
        let core = Arc::new(Core::new(store, options.settings, clock)?);
        core.ensure_partitions(core.clock.now()).await?;
        // Before anything is known that a wake-up could change.
        let listener = Listener::connect(&core.store).await?;
        let broker = Self { core, claims: TaskTracker::new(), writes: TaskTracker::new(), loops: TaskTracker::new() };
        broker.start_lanes();
        let candidate = upkeep::leadership::first(&broker.core).await;
        broker.start_loops(own, listener, candidate);
        Ok(broker)
    }

    fn start_lanes(&self) {
        let core = || Arc::clone(&self.core);
        let metrics = || self.core.metrics.clone();
        let unflushed = (&self.core.lanes.append_unflushed, Durability::Asynchronous);
        let apart = Arc::new(Apart::new(core(), "dms-append-apart", self.writes.clone()));
        for (lane, durability) in
            self.core.lanes.append.iter().map(|lane| (lane, Durability::Synchronous)).chain([unflushed])
        {
            let (core, lane, apart) = (core(), Arc::clone(lane), Arc::clone(&apart));
            let run = move || send::run(Arc::clone(&core), Arc::clone(&lane), Arc::clone(&apart), durability);
            self.writes.spawn(batching::lane::keep_running(Lane::Append, metrics(), run));
        }
        let apart = Arc::new(Apart::new(core(), "dms-settle-apart", self.writes.clone()));
        for lane in &self.core.lanes.settle {
            let (core, lane, apart) = (core(), Arc::clone(lane), Arc::clone(&apart));
            let run = move || ack::run(Arc::clone(&core), Arc::clone(&lane), Arc::clone(&apart));
            self.writes.spawn(batching::lane::keep_running(Lane::Settle, metrics(), run));
        }
        for lane in &self.core.lanes.claim {
            let (core, lane) = (core(), Arc::clone(lane));
            let run = move || consume::run(Arc::clone(&core), Arc::clone(&lane));
            self.claims.spawn(batching::lane::keep_running(Lane::Claim, metrics(), run));
        }
    }

    fn start_loops(
        &self,
        clock: Option<(DatabaseClock, ClockConnection)>,
        listener: Listener,
        candidate: Option<Candidate>,
    ) {
        let core = || Arc::clone(&self.core);
        self.loops.spawn(replicas::wakeups::send_loop(core()));
        self.loops.spawn(replicas::wakeups::receive_loop(core(), listener));
        self.loops.spawn(upkeep::expire_own(core()));
        self.loops.spawn(upkeep::leadership::stand(core(), candidate));
        self.loops.spawn(upkeep::leadership::lead(core(), upkeep::sweep_leases));
        self.loops.spawn(upkeep::leadership::lead(core(), upkeep::delays::end_delays));
        self.loops.spawn(upkeep::leadership::lead(core(), upkeep::keep_retention));
        self.loops.spawn(upkeep::leadership::lead(core(), upkeep::freeze_partitions));
        if let Some((clock, connection)) = clock {
            self.loops.spawn(upkeep::timekeeping::set_clock(core(), clock, connection));
        }
    }

    /// Where the database is, for the log.
    pub fn database(&self) -> &str {
        self.core.store.place()
    }

    /// What the replica may hold in memory.
    pub fn memory(&self) -> &Memory {
        &self.core.memory
    }

    /// The memory of an answer to a call of this project.
    pub fn answer(&self, project: &ProjectId) -> Answer {
        Answer::new(self.core.memory.part(Use::Answers), Some(Owner::project(project)))
    }

    /// Whether Postgres answers.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.core.store.ping().await
    }

    /// Drops what has expired now instead of within a minute; returns the partitions dropped.
    pub async fn enforce_retention(&self) -> Result<usize> {
        upkeep::enforce_retention(&self.core).await
    }

    /// Freezes partitions of past days now instead of within a minute; returns their names.
    pub async fn freeze_partitions(&self) -> Result<Vec<String>> {
        upkeep::freeze_past_days(&self.core).await
    }

    /// First step of the end: parked consumers, and those to come, are answered at once.
    pub(crate) fn stop_waiting(&self) {
        self.core.stop_waiting.cancel();
    }

    /// Second step: what has arrived is committed, then connections are closed.
    pub async fn shutdown(&self) {
        self.stop_waiting();
        self.core.lanes.claim.iter().for_each(|lane| lane.close());
        self.claims.close();
        self.claims.wait().await;
        self.core.lanes.close_writes();
        self.writes.close();
        self.writes.wait().await;
        self.core.stop.cancel();
        self.loops.close();
        self.loops.wait().await;
        self.core.store.close().await;
    }
}
