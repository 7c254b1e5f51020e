//! Wake-ups between replicas: NOTIFY on a connection of its own, LISTEN on another.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgListener;

use super::Store;
use crate::domain::{Error, Result};

const CHANNEL: &str = "dms";
/// After this the connection is tried.
const SILENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(5);

/// Sends one notification.
pub async fn notify(conn: &mut PgConnection, payload: &str) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(conn).await?;
    Ok(())
}

/// Receives the notifications of all replicas.
pub struct Listener(PgListener);

impl Listener {
    /// Connects and listens.
    pub async fn connect(store: &Store) -> Result<Self> {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(store.options.clone().application_name("dms-listen"));
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self(listener))
    }

    /// A connection that was silent may have died without a sign.
    async fn check(&mut self) -> Result<()> {
        let asked = sqlx::query("SELECT 1").execute(&mut self.0);
        let answered = tokio::time::timeout(ANSWER, asked).await;
        answered.map_err(|_| Error::unavailable("the database does not answer its listener"))??;
        Ok(())
    }

    /// The next payload, or `None` when the connection was lost and made again: notifications may have been missed.
    pub async fn next(&mut self) -> Result<Option<String>> {
        loop {
            match tokio::time::timeout(SILENCE, self.0.try_recv()).await {
                Ok(received) => return Ok(received?.map(|notification| notification.payload().to_owned())),
                Err(_) => self.check().await?,
            }
        }
    }
}
