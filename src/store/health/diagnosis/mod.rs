//! What `dms doctor` asks Postgres.

mod durability;
mod partitions;
mod wraparound;

use sqlx::{Connection as _, PgConnection};

use super::dead_rows::{self, SnapshotHolder};
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::store::schema::entry::{self, Entry};
use crate::store::session::{clock, sqlstate};
use crate::store::sql::{Sql, Statement, from_row, row, statements};
use crate::store::{Database, Store, schema};

/// Whoever asks why something is stuck must not get stuck there too.
const LOCK_TIMEOUT: &str = "2s";

/// A session to look around in.
#[derive(Debug)]
pub(crate) struct Diagnosis(PgConnection);

/// How many connections there may be. Superusers are let in whatever the limits of their role and of the database say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// The role that has logged in, whatever role it has set since: its limit counts.
    pub role: String,
    /// Whether that is a superuser.
    pub(crate) superuser: bool,
    /// `CONNECTION LIMIT` of the role.
    pub(crate) role_limit: Option<i64>,
    /// `CONNECTION LIMIT` of the database.
    pub(crate) database_limit: Option<i64>,
    /// Sessions there are on the server.
    pub sessions: i64,
    /// Those of the role.
    pub(crate) role_sessions: i64,
    /// Those in the database.
    pub(crate) database_sessions: i64,
}

from_row!(ConnectionLimits { role, superuser, role_limit, database_limit, sessions, role_sessions, database_sessions });

statements![
    CONNECTION_LIMITS,
    MISSING_RIGHTS,
    SEES_MIGRATIONS,
    SETTINGS_OF,
    MAX_WAL_BYTES,
    MAY_EMIT_MESSAGES,
    SEES_ALL_SESSIONS,
    LATEST_TIMES,
];

pub(in crate::store) fn all_statements() -> Vec<Statement> {
    [statements(), durability::statements(), partitions::statements()].concat()
}

const SETTINGS: [&str; 14] = [
    "server_version_num",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "synchronous_standby_names",
    "autovacuum",
    "track_counts",
    "data_checksums",
    "max_connections",
    "superuser_reserved_connections",
    // From Postgres 16 on.
    "reserved_connections",
    "max_wal_size",
    "default_transaction_read_only",
    // On at a standby, whatever its settings are.
    "transaction_read_only",
];

/// -1 is no limit.
static CONNECTION_LIMITS: Sql<(), ConnectionLimits> = Sql::new(
    "
SELECT r.rolname::text AS role, r.rolsuper AS superuser, nullif(r.rolconnlimit, -1)::bigint AS role_limit,
       nullif(d.datconnlimit, -1)::bigint AS database_limit,
       s.sessions, s.role_sessions, s.database_sessions
FROM (SELECT count(*) AS sessions, count(*) FILTER (WHERE usename = session_user) AS role_sessions,
             count(*) FILTER (WHERE datname = current_database()) AS database_sessions
      FROM pg_stat_activity WHERE datname IS NOT NULL) AS s
CROSS JOIN pg_roles AS r CROSS JOIN pg_database AS d WHERE r.rolname = session_user AND d.datname = current_database()",
);

/// By name, for who may not look into a schema finds nothing in it.
static MISSING_RIGHTS: Sql<(), (String,)> = Sql::new("
WITH home AS (SELECT oid, nspname FROM pg_namespace WHERE nspname = trim('\"' FROM current_setting('search_path'))),
     ours AS (SELECT c.oid, c.relname, c.relowner FROM pg_class AS c JOIN home ON home.oid = c.relnamespace)
SELECT format('%s on %s', r.privilege, ours.relname)
FROM ours CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r (privilege)
WHERE ours.relname IN ('queues', 'queue_tags', 'consumer_groups', 'streams', 'segments', 'subscriptions', 'leases', 'retries',
                       'delayed_messages')
  AND NOT has_table_privilege(ours.oid, r.privilege)
UNION ALL
SELECT format('USAGE on %s', relname) FROM ours
WHERE relname IN ('stream_ids', 'subscription_ids') AND NOT has_sequence_privilege(oid, 'USAGE')
UNION ALL
SELECT 'ownership of segments' FROM ours WHERE relname = 'segments' AND NOT pg_has_role(relowner, 'USAGE')
UNION ALL
SELECT format('%s on schema %s', r.privilege, nspname) FROM home CROSS JOIN unnest(ARRAY['USAGE', 'CREATE']) AS r (privilege)
WHERE NOT has_schema_privilege(oid, r.privilege)");

/// Whether this role may read the table of migrations; nothing when there is none.
static SEES_MIGRATIONS: Sql<(), (bool,)> = Sql::new(
    "
SELECT has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname = 'dms_migrations' AND n.nspname = trim('\"' FROM current_setting('search_path'))",
);

row! {
    struct Setting {
        name: String,
        value: String,
    }
}

row! {
    struct LatestTimes {
        appended_at: Option<Timestamp>,
        lease_ends_at: Option<Timestamp>,
    }
}

static SETTINGS_OF: Sql<(&[&str],), Setting> =
    Sql::new("SELECT name, current_setting(name) AS value FROM pg_settings WHERE name = ANY ($1) ORDER BY name");
static MAX_WAL_BYTES: Sql<(), (i64,)> = Sql::new("SELECT pg_size_bytes(current_setting('max_wal_size'))");
static MAY_EMIT_MESSAGES: Sql<(), (bool,)> =
    Sql::new("SELECT has_function_privilege('pg_logical_emit_message(boolean, text, text)', 'EXECUTE')");
static SEES_ALL_SESSIONS: Sql<(), (bool,)> = Sql::new("SELECT pg_has_role('pg_read_all_stats', 'USAGE')");
static LATEST_TIMES: Sql<(), LatestTimes> = Sql::new("
SELECT (SELECT max(last_appended_at) FROM streams) AS appended_at, (SELECT max(expires_at) FROM leases) AS lease_ends_at");

impl Diagnosis {
    /// Connects, and looks first whether this is a way into a database that can be used.
    ///
    /// # Errors
    /// `Unavailable`, saying where Postgres should be and why it cannot be reached.
    pub(crate) async fn connect(database: &Database) -> Result<(Self, Entry)> {
        let connector = database.connector()?;
        let session = connector.session("dms-doctor").with([("lock_timeout", LOCK_TIMEOUT)]);
        let (entry, connection) = entry::look(&connector, &session).await?;
        Ok((Self(connection), entry))
    }

    /// The session in which a starting service looks whether it can use its database.
    ///
    /// # Errors
    /// `Unavailable` when Postgres cannot be reached, and `Internal`, saying what to do, when the database cannot be used.
    pub(crate) async fn at_start(store: &Store) -> Result<Self> {
        let session = store.session("dms-start").with([("lock_timeout", LOCK_TIMEOUT)]);
        Ok(Self(entry::enter(&store.connector, &session).await?))
    }

    /// Settings that matter, by name.
    pub(crate) async fn settings(&mut self) -> Result<Vec<(String, String)>> {
        let settings = SETTINGS_OF.rows((&SETTINGS,)).fetch_all(&mut self.0).await?;
        Ok(settings.into_iter().map(|setting| (setting.name, setting.value)).collect())
    }

    /// `max_wal_size` as a number.
    pub(crate) async fn max_wal_bytes(&mut self) -> Result<i64> {
        Ok(MAX_WAL_BYTES.scalar(()).fetch_one(&mut self.0).await?)
    }

    /// How many connections the role may have here.
    pub(crate) async fn connection_limits(&mut self) -> Result<ConnectionLimits> {
        Ok(CONNECTION_LIMITS.rows(()).fetch_one(&mut self.0).await?)
    }

    /// The version of the schema, 0 when there is none, nothing when this role may not see it; and the one that this program
    /// needs.
    pub(crate) async fn schema(&mut self) -> Result<(Option<i64>, i64)> {
        let applied = match self.sees_migrations().await? {
            Some(true) => Some(schema::APPLIED.scalar(()).fetch_one(&mut self.0).await?),
            Some(false) => None,
            None => Some(0),
        };
        Ok((applied, schema::needed()))
    }

    /// Migrations that have begun and not ended; nothing when this role may not see them, or there are none at all.
    pub(crate) async fn half_applied(&mut self) -> Result<Option<Vec<i64>>> {
        Ok(match self.sees_migrations().await? {
            Some(true) => Some(schema::HALF_APPLIED.scalar(()).fetch_all(&mut self.0).await?),
            _ => None,
        })
    }

    /// Whether this role may read the table of migrations; nothing when there is no such table.
    async fn sees_migrations(&mut self) -> Result<Option<bool>> {
        Ok(SEES_MIGRATIONS.scalar(()).fetch_optional(&mut self.0).await?)
    }

    /// What the role of this session lacks to run the service.
    pub(crate) async fn missing_rights(&mut self) -> Result<Vec<String>> {
        Ok(MISSING_RIGHTS.scalar(()).fetch_all(&mut self.0).await?)
    }

    /// Whether the service's statements are allowed: what a large flush needs beside its tables.
    pub(crate) async fn may_emit_messages(&mut self) -> Result<bool> {
        Ok(MAY_EMIT_MESSAGES.scalar(()).fetch_one(&mut self.0).await?)
    }

    /// Whether this role sees what sessions of other roles do.
    pub(crate) async fn sees_all_sessions(&mut self) -> Result<bool> {
        Ok(SEES_ALL_SESSIONS.scalar(()).fetch_one(&mut self.0).await?)
    }

    /// What keeps dead rows from being removed, the oldest first.
    pub(crate) async fn snapshot_holders(&mut self) -> Result<Vec<SnapshotHolder>> {
        dead_rows::holders(&mut self.0).await
    }

    /// Live and dead rows of the hot tables.
    pub(crate) async fn hot_rows(&mut self) -> Result<Vec<(String, i64, i64)>> {
        dead_rows::hot_rows(&mut self.0).await
    }

    /// Hot tables that autovacuum has been told to leave alone.
    pub(crate) async fn autovacuum_off(&mut self) -> Result<Vec<String>> {
        dead_rows::autovacuum_off(&mut self.0).await
    }

    /// Postgres's clock.
    pub(crate) async fn now(&mut self) -> Result<Timestamp> {
        Ok(clock::now(&mut self.0).await?)
    }

    /// When the stream that is furthest ahead was last appended to, and when the last lease ends; nothing without a schema, or when
    /// this role may not read it.
    pub(crate) async fn latest_times(&mut self) -> Result<Option<(Option<Timestamp>, Option<Timestamp>)>> {
        match LATEST_TIMES.rows(()).fetch_one(&mut self.0).await {
            Ok(latest) => Ok(Some((latest.appended_at, latest.lease_ends_at))),
            Err(error) if sqlstate::is_missing_table(&error) || sqlstate::is_forbidden(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}
