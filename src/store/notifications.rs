//! Wake-ups between replicas: NOTIFY on a connection of its own, LISTEN on another.

use sqlx::PgConnection;
use sqlx::postgres::PgListener;

use super::Store;
use crate::domain::Result;

const CHANNEL: &str = "dms";

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

    /// The next payload, or `None` when the connection was lost and made again: notifications may have been missed.
    pub async fn next(&mut self) -> Result<Option<String>> {
        Ok(self.0.try_recv().await?.map(|notification| notification.payload().to_owned()))
    }
}
