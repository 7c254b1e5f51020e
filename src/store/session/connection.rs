//! The connection a lane holds: made when needed, dropped after an error that spoils it.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio::time::error::Elapsed;

use super::sqlstate;
use crate::domain::{Error, Result};
use crate::store::Store;
use crate::store::sql::{Sql, statements};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A flush that outlives its statement timeout by this much is on a dead connection.
const GRACE: Duration = Duration::from_secs(5);
/// Statements of lanes look rows up by key, however small their table was when they were planned: a plan that reads a small
/// table whole would still be there when it is large.
const LOOKUP_ONLY_PLANS: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_memoize", "off"),
    ("jit", "off"),
];
/// A connection not used for this long is tried before use.
const IDLE_PING_AFTER: Duration = Duration::from_millis(250);
/// A lane waits no longer than this for a lock. Other replicas hold those of hot rows for as long as their commits take; whoever
/// holds one for longer is somebody else, and others of the flush need not wait for it.
const LOCK_PATIENCE: &str = "100ms";
/// The smallest transaction whose commit waits for the disk: one that has written to the WAL.
static CONFIRM: Sql<(), ()> =
    Sql::new("SELECT set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'dms', '')");

statements![CONFIRM];

/// When a commit is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After it is on disk (`synchronous_commit = on`).
    Synchronous,
    /// Before: a crash of Postgres may take back the last instants.
    Asynchronous,
}

/// Why a flush was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A lock was not to be had in time, or was given up to end a deadlock. Nothing was written.
    Locked,
    /// Postgres refused it, and would take another one on the same connection. Nothing was written.
    Refused,
    /// The connection or Postgres has gone. What was written is not known.
    Lost,
}

/// A flush that was not carried out.
#[derive(Debug, Clone)]
pub struct FlushError {
    /// Why, for who can do something about it.
    pub failure: Failure,
    /// What callers are told.
    pub error: Error,
}

/// One connection, held over many flushes.
#[derive(Debug)]
pub struct LaneConnection {
    store: Store,
    name: &'static str,
    durability: Durability,
    connection: Option<PgConnection>,
    /// Since when the present flush has lost conflicts.
    conflicts_since: Option<Instant>,
    used_at: Instant,
    session: u64,
}

impl LaneConnection {
    /// No connection is made yet.
    pub fn new(store: &Store, name: &'static str, durability: Durability) -> Self {
        let (store, used_at) = (store.clone(), Instant::now());
        Self { store, name, durability, connection: None, conflicts_since: None, used_at, session: 0 }
    }

    /// The connection, made if there is none.
    pub async fn open(&mut self) -> Result<&mut PgConnection> {
        self.drop_dead().await;
        if self.connection.is_none() {
            let commit = match self.durability {
                Durability::Synchronous => "on",
                Durability::Asynchronous => "off",
            };
            let settings = [("synchronous_commit", commit), ("lock_timeout", LOCK_PATIENCE)];
            let session = self.store.session(self.name).with(settings).with(LOOKUP_ONLY_PLANS);
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, session.connect());
            let connected =
                connecting.await.map_err(|_| Error::unavailable("the database did not answer in time"))??;
            self.connection = Some(connected);
            self.session += 1;
        }
        self.connection.as_mut().ok_or_else(|| Error::internal("no connection"))
    }

    /// Whether there is a connection, as far as is known: an error that left it there was one of a statement.
    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Tells connections apart: while it stays the same, Postgres has not crashed.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// A connection that has rested may have died unnoticed; better to find out before work is entrusted to it.
    async fn drop_dead(&mut self) {
        let rested = self.used_at.elapsed() > IDLE_PING_AFTER;
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

    /// Judges one run of a flush. The connection is given up when it is spoilt or silent.
    pub fn judge<T>(&mut self, outcome: std::result::Result<sqlx::Result<T>, Elapsed>) -> Result<T, FlushError> {
        let error = match outcome {
            Ok(Ok(value)) => {
                self.conflicts_since = None;
                return Ok(value);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.connection = None;
                let error = Error::unavailable("the database did not answer in time");
                return Err(FlushError { failure: Failure::Lost, error });
            }
        };
        let failure = if sqlstate::is_conflict(&error) {
            Failure::Locked
        } else if sqlstate::leaves_connection_usable(&error) {
            Failure::Refused
        } else {
            self.connection = None;
            Failure::Lost
        };
        Err(FlushError { failure, error: error.into() })
    }

    /// The same for a flush that waits for its locks as long as a statement may take: `None` when it has to run again.
    pub(crate) fn judge_patiently<T>(
        &mut self,
        outcome: std::result::Result<sqlx::Result<T>, Elapsed>,
    ) -> Option<Result<T>> {
        match self.judge(outcome) {
            Ok(value) => Some(Ok(value)),
            Err(FlushError { failure: Failure::Locked, error }) => {
                let since = *self.conflicts_since.get_or_insert_with(Instant::now);
                if since.elapsed() < self.store.statement_timeout {
                    tracing::debug!(%error, lane = self.name, "flush runs again after a conflict");
                    return None;
                }
                self.conflicts_since = None;
                Some(Err(error))
            }
            Err(FlushError { error, .. }) => Some(Err(error)),
        }
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
        let outcome = tokio::time::timeout(limit, CONFIRM.run(()).execute(connection)).await;
        self.judge(outcome).map(drop).map_err(|failed| failed.error)
    }

    /// Says goodbye to Postgres.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = tokio::time::timeout(CONNECT_TIMEOUT, connection.close()).await;
        }
    }
}

/// Runs one flush, a statement or a transaction, on a [`LaneConnection`]: `flush!(connection, conn => future)`. It is run
/// again while what it needs is locked, for as long as a statement may take.
///
/// A macro, because the compiler cannot yet see that the future of an async closure over borrowed data is `Send`.
macro_rules! flush {
    ($connection:expr, $conn:ident => $run:expr) => {
        loop {
            let outcome = match $crate::store::session::connection::run!($connection, $conn => $run) {
                Ok(outcome) => outcome,
                Err(error) => break Err(error),
            };
            if let Some(result) = $connection.judge_patiently(outcome) {
                break result;
            }
        }
    };
}

/// The same once, for who can do without what is locked or refused: fails with a [`FlushError`].
macro_rules! try_flush {
    ($connection:expr, $conn:ident => $run:expr) => {
        match $crate::store::session::connection::run!($connection, $conn => $run) {
            Ok(outcome) => $connection.judge(outcome),
            Err(error) => {
                Err($crate::store::session::connection::FlushError { failure: $crate::store::session::connection::Failure::Lost, error })
            }
        }
    };
}

/// One run, within its time; an error when there is no connection.
macro_rules! run {
    ($connection:expr, $conn:ident => $run:expr) => {{
        let limit = $connection.limit();
        match $connection.open().await {
            Ok($conn) => {
                let statement = $crate::store::session::statement::Statement::begin(stringify!($run));
                let outcome = tokio::time::timeout(limit, statement.run($run)).await;
                statement.end();
                Ok(outcome)
            }
            Err(error) => Err(error),
        }
    }};
}
pub(crate) use {flush, run, try_flush};
