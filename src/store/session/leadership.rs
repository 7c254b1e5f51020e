//! Which replica does the work of all: the one whose session has an advisory lock.

use sqlx::{Connection as _, PgConnection};

use crate::domain::Result;
use crate::store::Store;
use crate::store::sql::{Sql, parameters, statements};

/// In the upper half of the key of the lock; the lower half is the log's, for a database may have several.
const LOCK_CLASS: i64 = 0x646d_736c << 32;
/// Postgres ends a session that is silent for [`IDLE_LIMIT_SECONDS`], and its lock goes with it: that of a replica which is frozen, or cut
/// off without a word.
const OPTIONS: [(&str, &str); 2] = [("idle_session_timeout", "5s"), ("statement_timeout", "3s")];
/// What they say, for whoever has to be faster.
pub(crate) const IDLE_LIMIT_SECONDS: u64 = 5;

/// The key of the lock of the log with this oid.
pub(in crate::store) fn lock_key(log: i64) -> i64 {
    LOCK_CLASS | log
}

statements![HEARTBEAT];

parameters! {
    struct Heartbeat {
        elected: bool,
        lock_class: i64,
    }
}

/// Taken once in a session, for it counts.
static HEARTBEAT: Sql<Heartbeat, (bool,)> = Sql::new(
    "
SELECT CASE WHEN $elected THEN true ELSE pg_try_advisory_lock($lock_class | 'segments'::regclass::oid::bigint) END",
);

/// The session that may have the lock.
#[derive(Debug)]
pub struct Candidate {
    connection: PgConnection,
    elected: bool,
}

impl Candidate {
    /// Connects.
    pub async fn connect(store: &Store) -> Result<Self> {
        let session = store.session("dms-leader").with(OPTIONS);
        Ok(Self { connection: session.connect().await?, elected: false })
    }

    /// Takes the lock if it is free, and keeps the session from being taken for dead. Says whether it has the lock.
    pub async fn heartbeat(&mut self) -> Result<bool> {
        let query = HEARTBEAT.scalar(Heartbeat { elected: self.elected, lock_class: LOCK_CLASS });
        self.elected = query.fetch_one(&mut self.connection).await?;
        Ok(self.elected)
    }

    /// Gives up the lock, at once.
    pub async fn close(self) -> Result<()> {
        Ok(self.connection.close().await?)
    }
}
