//! Postgres's clock, read on a connection of its own: what waits for a connection of the pool would count as round trip.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use crate::domain::clock::Timestamp;
use crate::domain::{Error, Result};
use crate::store::Store;
use crate::store::sql::{Sql, statements};

/// A reading that takes longer is given up, and its connection with it.
const LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
static NOW: Sql<(), (Timestamp,)> = Sql::new("SELECT clock_timestamp()");

statements![NOW];

/// What Postgres's clock showed at some instant between two.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    /// Before the question left.
    pub asked: Instant,
    /// After the answer came.
    pub answered: Instant,
    /// What it showed.
    pub shown: Timestamp,
}

/// The connection for readings: made when needed, dropped after an error.
#[derive(Debug)]
pub struct ClockConnection {
    store: Store,
    connection: Option<PgConnection>,
}

impl ClockConnection {
    /// No connection is made yet.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), connection: None }
    }

    /// Reads the clock: one statement, one round trip.
    ///
    /// # Errors
    /// `Unavailable` when Postgres does not answer in time.
    #[tracing::instrument(name = "clock::read", level = "debug", skip_all)]
    pub async fn read(&mut self) -> Result<ClockReading> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => in_time(CONNECT_LIMIT, connect(&self.store)).await?,
        };
        let asked = Instant::now();
        let shown = in_time(LIMIT, now(&mut connection)).await?;
        let answered = Instant::now();
        self.connection = Some(connection);
        Ok(ClockReading { asked, answered, shown })
    }

    /// Says goodbye to Postgres.
    pub async fn close(self) {
        if let Some(connection) = self.connection {
            let _ = timeout(CONNECT_LIMIT, connection.close()).await;
        }
    }
}

/// A first reading, which also prepares the statement, would take two round trips: nobody goes by it.
async fn connect(store: &Store) -> sqlx::Result<PgConnection> {
    let mut connection = store.session("dms-clock").connect().await?;
    now(&mut connection).await?;
    Ok(connection)
}

/// What Postgres's clock shows.
pub(in crate::store) async fn now(connection: &mut PgConnection) -> sqlx::Result<Timestamp> {
    NOW.scalar(()).fetch_one(connection).await
}

async fn in_time<T>(limit: Duration, step: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    let ended = timeout(limit, step).await;
    Ok(ended.map_err(|_| Error::unavailable("the database did not answer in time"))??)
}
