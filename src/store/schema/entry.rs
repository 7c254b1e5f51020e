//! Whether this is a database that can be used at all: looked at before anything else, and said in words.

use sqlx::{Connection as _, PgConnection, Row as _};

use crate::domain::{Error, Result};
use crate::store::session::connect::{Connector, Session};

/// The encoding that all text of the API has.
const ENCODING: &str = "UTF8";
/// Questions to two sessions. A pool that hands out sessions by transaction gives both the same one, or takes turns.
const QUESTIONS: [usize; 6] = [0, 1, 1, 0, 0, 1];

/// What a look at the way to the database and at itself has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The encoding of the database.
    pub encoding: String,
    /// Whether sessions last no longer than a transaction.
    pub pooled: bool,
}

impl Entry {
    /// What to do about the encoding, if it will not do.
    pub(crate) fn wrong_encoding(&self) -> Option<String> {
        (self.encoding != ENCODING).then(|| {
            format!(
                "the database has the encoding {} and needs {ENCODING}: make another one (CREATE DATABASE ... TEMPLATE template0 \
                 ENCODING '{ENCODING}' LOCALE 'C'), and name it in the URL",
                self.encoding
            )
        })
    }

    /// What to do about the pool, if there is one that will not do.
    pub(crate) fn wrong_pool(&self) -> Option<&'static str> {
        self.pooled.then_some(
            "a pool in front of Postgres (PgBouncer, for instance) gives out its sessions by transaction, and the service needs whole \
             sessions: point the URL at Postgres itself, or at a pool in session mode (pool_mode = session)",
        )
    }

    /// # Errors
    /// `Internal`, saying what to do, when this cannot be used.
    fn check(self) -> Result<()> {
        match self.wrong_pool().map(str::to_owned).or_else(|| self.wrong_encoding()) {
            Some(wrong) => Err(Error::internal(wrong)),
            None => Ok(()),
        }
    }
}

/// Looks, in two sessions, of which it gives one back: whoever may have few must not wait for the end of both. Nothing is prepared, for
/// through a wrong pool that would fail.
pub(in crate::store) async fn look(connector: &Connector, session: &Session) -> Result<(Entry, PgConnection)> {
    let connect = async || session.connect().await.map_err(|error| unreachable(connector, &error));
    let mut sessions = [connect().await?, connect().await?];
    let encoding = ask(&mut sessions[0], "SHOW server_encoding").await?;
    let mut backends = [const { Vec::new() }; 2];
    for number in QUESTIONS {
        backends[number].push(ask(&mut sessions[number], "SELECT pg_backend_pid()::text").await?);
    }
    let lasting = |backends: &[String]| backends.windows(2).all(|pair| pair[0] == pair[1]);
    let pooled = !backends.iter().all(|backends| lasting(backends)) || backends[0] == backends[1];
    let [first, second] = sessions;
    let _ = second.close().await;
    Ok((Entry { encoding, pooled }, first))
}

/// The same for callers that cannot go on with a wrong pool or encoding.
///
/// # Errors
/// `Unavailable` when Postgres cannot be reached, and `Internal`, saying what to do, when the database cannot be used.
pub(in crate::store) async fn enter(connector: &Connector, session: &Session) -> Result<PgConnection> {
    let (entry, connection) = look(connector, session).await?;
    match entry.check() {
        Ok(()) => Ok(connection),
        Err(error) => {
            let _ = connection.close().await;
            Err(error)
        }
    }
}

async fn ask(connection: &mut PgConnection, question: &'static str) -> sqlx::Result<String> {
    sqlx::raw_sql(question).fetch_one(connection).await?.try_get(0)
}

/// Why Postgres cannot be reached, for the operator: where it should be, and what it or the network says. Never the password.
pub(in crate::store) fn unreachable(connector: &Connector, error: &sqlx::Error) -> Error {
    let (user, _) = connector.user_and_database();
    let cause = match error {
        sqlx::Error::Database(said) => {
            format!("{} (SQLSTATE {})", said.message(), said.code().unwrap_or_default())
        }
        other => other.to_string(),
    };
    Error::unavailable(format!("Postgres cannot be reached at {} as {user}: {cause}", connector.place()))
}
