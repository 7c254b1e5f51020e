//! Wake-ups between replicas: NOTIFY on a connection of its own, LISTEN on another.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Connection as _, PgConnection};

use crate::domain::schema_name::SchemaName;
use crate::domain::{Error, Result};
use crate::store::Store;
use crate::store::sql::{Sql, statements};

/// The channel of an installation: a database has one for all of its schemas. In `public` it is the one that versions without a schema of
/// their own use.
static NOTIFY: Sql<(&str,), ()> = Sql::new(
    "SELECT pg_notify(CASE current_schema() WHEN 'public' THEN 'dms' ELSE 'dms_' || current_schema() END, $1)",
);
static ARE_YOU_THERE: Sql<(), (i32,)> = Sql::new("SELECT 1");
const CHANNEL_IN_PUBLIC: &str = "dms";
/// How long it may take to connect. Without an answer the next attempt may go to another server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After this the connection is tried.
const SILENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(5);

statements![NOTIFY, ARE_YOU_THERE];

/// Sends one notification.
pub(crate) async fn notify(conn: &mut PgConnection, payload: &str) -> sqlx::Result<()> {
    NOTIFY.run((payload,)).execute(conn).await?;
    Ok(())
}

fn channel(schema: &SchemaName) -> String {
    if schema.is_public() { CHANNEL_IN_PUBLIC.to_owned() } else { format!("{CHANNEL_IN_PUBLIC}_{schema}") }
}

/// Receives the notifications of all replicas.
pub(crate) struct Listener {
    listener: PgListener,
    /// It connects again by itself, to the same server only.
    stays: bool,
}

impl Listener {
    /// Connects and listens.
    pub(crate) async fn connect(store: &Store) -> Result<Self> {
        let session = store.session("dms-listen");
        let stays = !store.connector.has_several();
        if !stays {
            // Finds the right server.
            session.connect().await?.close().await?;
        }
        let preparation = Arc::new(session.preparation());
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(CONNECT_TIMEOUT)
            .after_connect(move |connection, _| {
                let preparation = Arc::clone(&preparation);
                Box::pin(async move { preparation.prepare(connection).await })
            })
            .connect_lazy_with(store.connector.options_of_present(&session));
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(stays);
        listener.listen(&channel(store.connector.schema())).await?;
        Ok(Self { listener, stays })
    }

    /// A connection that was silent may have died without a sign.
    async fn check(&mut self) -> Result<()> {
        let asked = ARE_YOU_THERE.run(()).execute(&mut self.listener);
        let answered = tokio::time::timeout(ANSWER, asked).await;
        answered.map_err(|_| Error::unavailable("the database does not answer its listener"))??;
        Ok(())
    }

    /// The next payload, or `None` when the connection was lost and made again: notifications may have been missed.
    pub(crate) async fn next(&mut self) -> Result<Option<String>> {
        loop {
            match tokio::time::timeout(SILENCE, self.listener.try_recv()).await {
                Ok(received) => match received? {
                    None if !self.stays => return Err(Error::unavailable("the database connection was lost")),
                    received => return Ok(received.map(|notification| notification.payload().to_owned())),
                },
                Err(_) => self.check().await?,
            }
        }
    }
}
