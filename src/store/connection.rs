//! The connection a lane holds: made when needed, dropped after an error that spoils it.

use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::error::Elapsed;

use super::{Store, sqlstate};
use crate::domain::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A flush that outlives its statement timeout by this much is on a dead connection.
const GRACE: Duration = Duration::from_secs(5);
/// Statements of lanes look rows up by key, however small their table was when they were planned: a plan that reads a small
/// table whole would still be there when it is large.
const STEADY_PLANS: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_memoize", "off"),
    ("jit", "off"),
];
/// A connection not used for this long is tried before use.
const REST: Duration = Duration::from_millis(250);
const CONFLICTS_MAX: u32 = 5;
/// The smallest transaction whose commit waits for the disk: one that has written to the WAL.
const CONFIRM: &str = "SELECT set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'dms', '')";

/// When a commit is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After it is on disk (`synchronous_commit = on`).
    Synchronous,
    /// Before: a crash of Postgres may take back the last instants.
    Asynchronous,
}

/// One connection, held over many flushes.
#[derive(Debug)]
pub struct LaneConnection {
    store: Store,
    name: &'static str,
    durability: Durability,
    connection: Option<PgConnection>,
    conflicts: u32,
    used_at: Instant,
    session: u64,
}

impl LaneConnection {
    /// No connection is made yet.
    pub fn new(store: &Store, name: &'static str, durability: Durability) -> Self {
        let (store, used_at) = (store.clone(), Instant::now());
        Self { store, name, durability, connection: None, conflicts: 0, used_at, session: 0 }
    }

    /// The connection, made if there is none.
    pub async fn open(&mut self) -> Result<&mut PgConnection> {
        self.drop_dead().await;
        if self.connection.is_none() {
            let commit = match self.durability {
                Durability::Synchronous => "on",
                Durability::Asynchronous => "off",
            };
            let options = self
                .store
                .options
                .clone()
                .application_name(self.name)
                .options([("synchronous_commit", commit)])
                .options(STEADY_PLANS);
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, options.connect());
            let connected =
                connecting.await.map_err(|_| Error::unavailable("the database did not answer in time"))??;
            self.connection = Some(connected);
            self.session += 1;
        }
        self.connection.as_mut().ok_or_else(|| Error::internal("no connection"))
    }

    /// Tells connections apart: while it stays the same, Postgres has not crashed.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// A connection that has rested may have died unnoticed; better to find out before work is entrusted to it.
    async fn drop_dead(&mut self) {
        let rested = self.used_at.elapsed() > REST;
        self.used_at = Instant::now();
        if let Some(connection) = self.connection.as_mut().filter(|_| rested) {
            let ping = tokio::time::timeout(CONNECT_TIMEOUT, connection.ping()).await;
            if !matches!(ping, Ok(Ok(()))) {
                self.connection = None;
            }
        }
    }

    /// How long one run of a flush may take.
    pub fn limit(&self) -> Duration {
        self.store.statement_timeout + GRACE
    }

    /// Judges one run of a flush: `None` when it lost a conflict and has to run again. The connection is given up when it is
    /// spoilt or silent.
    pub fn judge<T>(&mut self, outcome: std::result::Result<sqlx::Result<T>, Elapsed>) -> Option<Result<T>> {
        let error = match outcome {
            Ok(Ok(value)) => {
                self.conflicts = 0;
                return Some(Ok(value));
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.connection = None;
                return Some(Err(Error::unavailable("the database did not answer in time")));
            }
        };
        if !sqlstate::leaves_connection_usable(&error) {
            self.connection = None;
        }
        if !sqlstate::is_conflict(&error) {
            return Some(Err(error.into()));
        }
        self.conflicts += 1;
        if self.conflicts > CONFLICTS_MAX {
            self.conflicts = 0;
            return Some(Err(Error::unavailable("the database is busy")));
        }
        tracing::debug!(%error, lane = self.name, "flush runs again after a conflict");
        None
    }

    /// Waits until what was committed in this session is on disk (and on synchronous standbys): the WAL is flushed in order.
    ///
    /// # Errors
    /// `Unavailable` when the session has ended: a crash may have taken back what was committed in it.
    pub async fn confirm(&mut self, session: u64) -> Result<()> {
        let lost = || Error::unavailable("the database connection was lost");
        let limit = self.limit();
        let Some(connection) = self.connection.as_mut().filter(|_| self.session == session) else {
            return Err(lost());
        };
        let outcome = tokio::time::timeout(limit, sqlx::query(CONFIRM).execute(connection)).await;
        self.judge(outcome).unwrap_or_else(|| Err(lost())).map(drop)
    }

    /// Says goodbye to Postgres.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = tokio::time::timeout(CONNECT_TIMEOUT, connection.close()).await;
        }
    }
}

/// Runs one flush, a statement or a transaction, on a [`LaneConnection`]: `flush!(connection, conn => future)`. It is run
/// again when Postgres ended it in favour of another one.
///
/// A macro, because the compiler cannot yet see that the future of an async closure over borrowed data is `Send`.
macro_rules! flush {
    ($connection:expr, $conn:ident => $run:expr) => {
        loop {
            let limit = $connection.limit();
            let outcome = match $connection.open().await {
                Ok($conn) => {
                    let statement = $crate::store::statement::Statement::begin(stringify!($run));
                    let outcome = tokio::time::timeout(limit, statement.run($run)).await;
                    statement.end();
                    outcome
                }
                Err(error) => break Err(error),
            };
            if let Some(result) = $connection.judge(outcome) {
                break result;
            }
        }
    };
}
pub(crate) use flush;
