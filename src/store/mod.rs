//! Every SQL statement of the project, in typed functions, one module per table family.
//!
//! Nobody else imports sqlx. Functions take a connection or a pool and return domain types.

pub(crate) mod health;
pub mod log;
pub mod metadata;
pub mod row_location;
pub mod schema;
pub mod session;
pub mod sql;
pub mod subscriptions;

/// In SQL, what tells the locks of one installation from those of another in the same database. In `public` it is nothing, as in versions
/// without a schema of their own, which may run beside this one there.
macro_rules! installation {
    () => {
        "CASE WHEN current_schema() = 'public' THEN 0 ELSE 'segments'::regclass::oid::bigint END"
    };
}
use installation;

/// Every statement that can be prepared.
pub fn statements() -> Vec<sql::Statement> {
    [
        health::statements(),
        log::statements(),
        metadata::statements(),
        schema::all_statements(),
        session::statements(),
        subscriptions::all_statements(),
    ]
    .concat()
}

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgPool};

use self::session::connect::{Connector, Session};

pub use self::schema::migrate;
pub use self::session::connect::Database;

use crate::domain::{Error, Result};

/// How long a call waits for a connection of the pool, also while Postgres refuses connections.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a look whether Postgres answers waits for a connection of the pool.
const PING_POOL_LIMIT: Duration = Duration::from_millis(500);

/// How to reach Postgres and how to behave there.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Where the data is.
    pub database: Database,
    /// Connections for everything that has no lane.
    pub pool_connections: u32,
    /// The longest a statement may run.
    pub statement_timeout: Duration,
}

/// The database: a pool for the calls that are not hot, and the way there for connections that lanes hold.
#[derive(Debug, Clone)]
pub struct Store {
    /// For metadata, upkeep and counters.
    pub pool: PgPool,
    connector: Connector,
    statement_timeout: Duration,
}

impl Store {
    /// Checks the URL; connections are made when they are needed.
    pub fn new(options: &StoreOptions) -> Result<Self> {
        let connector = options.database.connector()?;
        let statement_timeout = options.statement_timeout;
        let session = session(&connector, "dms", statement_timeout);
        let pool = pool(options.pool_connections, &connector, &session);
        Ok(Self { pool, connector, statement_timeout })
    }

    /// A session of the service that is about to begin; its name begins with `dms`.
    fn session(&self, name: &str) -> Session {
        session(&self.connector, name, self.statement_timeout)
    }

    /// Whether Postgres answers. A message of the protocol, not a statement. A pool whose connections are all in use says nothing of
    /// Postgres, and one that gets none does not say why: a connection of its own finds out.
    pub(crate) async fn ping(&self) -> Result<()> {
        match tokio::time::timeout(PING_POOL_LIMIT, self.pool.acquire()).await {
            Ok(Ok(mut connection)) => Ok(connection.ping().await?),
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => self.try_connect().await,
            // The pool knows one server only.
            Ok(Err(_)) if self.connector.has_several() => self.try_connect().await,
            Ok(Err(error)) => Err(error.into()),
        }
    }

    async fn try_connect(&self) -> Result<()> {
        let connecting = async { self.session("dms").connect().await?.close().await };
        let tried = tokio::time::timeout(ACQUIRE_TIMEOUT, connecting);
        Ok(tried.await.map_err(|_| Error::unavailable("the database did not answer in time"))??)
    }

    /// Where it is, for the log.
    pub fn place(&self) -> &str {
        self.connector.place()
    }

    /// The schema of its tables, for the log.
    pub fn schema(&self) -> &str {
        self.connector.schema().as_str()
    }

    /// Closes the pool.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn session(connector: &Connector, name: &str, statement_timeout: Duration) -> Session {
    connector.session(name).with([
        ("statement_timeout", statement_timeout.as_millis().to_string().as_str()),
        // Nothing here waits in a transaction: a replica that does is frozen or cut off, and others wait for its locks.
        ("idle_in_transaction_session_timeout", "10000"),
        // Lanes that may answer earlier say so themselves.
        ("synchronous_commit", "on"),
        // Planning over many partitions costs more than the statements.
        ("plan_cache_mode", "force_generic_plan"),
    ])
}

/// It connects by itself, to the server that was the right one last.
fn pool(connections: u32, connector: &Connector, session: &Session) -> PgPool {
    let preparation = Arc::new(session.preparation());
    let since = Arc::new(Mutex::new(Instant::now()));
    let mut options = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT).after_connect(
        move |connection, _| {
            let preparation = Arc::clone(&preparation);
            Box::pin(async move { preparation.prepare(connection).await })
        },
    );
    if connector.has_several() {
        let since = Arc::clone(&since);
        options = options.before_acquire(move |_, metadata: PoolConnectionMetadata| {
            let present = metadata.age <= since.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            Box::pin(async move { Ok(present) })
        });
    }
    let pool = options.connect_lazy_with(connector.options_of_present(session));
    if connector.has_several() {
        connector.lead(&pool, since);
    }
    pool
}
