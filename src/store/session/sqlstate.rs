//! Database errors, classified once: by SQLSTATE and constraint name, never by message.

use sqlx::PgConnection;

use crate::domain::{Error, ErrorKind, Result};
use crate::store::sql::{Sql, statements};

/// A transaction that Postgres ended to let another one through; running it again is safe.
pub(in crate::store) fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("40P01" | "40001" | "55P03"))
}

/// No partition of the log takes the time of an append. Unlike a violated CHECK, it names no constraint.
pub(in crate::store) fn is_missing_partition(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("23514")
        && error.as_database_error().is_some_and(|error| error.constraint().is_none())
}

/// A metadata transaction runs this often before its caller is told that the database is busy.
pub(super) const CONFLICTS_MAX: u32 = 3;

static LIMIT_LOCK_WAITS: Sql<(), ()> = Sql::new("SET LOCAL lock_timeout = '2s'");
statements![LIMIT_LOCK_WAITS];

/// A metadata transaction waits no longer than this for each lock: it holds a connection of the pool, and its locks.
pub(in crate::store) async fn limit_lock_waits(conn: &mut PgConnection) -> sqlx::Result<()> {
    LIMIT_LOCK_WAITS.run(()).execute(conn).await?;
    Ok(())
}

/// Judges one run of a metadata transaction: its outcome, or `None` when it lost a conflict and has to run again. `runs`
/// counts those that did.
pub(in crate::store) fn judge<T>(outcome: sqlx::Result<T>, runs: &mut u32) -> Option<Result<T>> {
    match outcome {
        Ok(value) => Some(Ok(value)),
        Err(error) if !is_conflict(&error) => Some(Err(error.into())),
        Err(error) => {
            tracing::debug!(%error, "a metadata transaction lost a conflict");
            *runs += 1;
            (*runs >= CONFLICTS_MAX).then(|| Err(Error::unavailable("the database is busy")))
        }
    }
}

/// A table is not there.
pub(in crate::store) fn is_missing_table(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("42P01")
}

/// The role of the service may not do this.
pub(in crate::store) fn is_forbidden(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("42501")
}

/// Whether the connection is still good after this error.
pub(super) fn leaves_connection_usable(error: &sqlx::Error) -> bool {
    match error {
        // Class 57 is the operator or the server ending us, but for 57014, a statement that took too long; 25 is a transaction in a
        // bad state.
        sqlx::Error::Database(_) => {
            !code(error).is_some_and(|code| code != "57014" && (code.starts_with("57") || code.starts_with("25")))
        }
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
        _ => false,
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

/// Turns a driver error into an error of the service. The details go to the log only.
pub(crate) fn classify(error: sqlx::Error) -> Error {
    if let Some((kind, _)) = by_constraint(&error) {
        return Error::new(kind, kind.row().meaning);
    }
    match &error {
        sqlx::Error::Database(_) => by_code(&error),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            tracing::error!(%error, "stored data cannot be read");
            Error::new(ErrorKind::DataCorrupt, "stored data cannot be read")
        }
        _ => {
            tracing::warn!(%error, "database connection failed");
            Error::unavailable("the database cannot be reached")
        }
    }
}

/// The same for a statement that gives something a name, which may be taken.
pub(in crate::store) fn classify_naming(error: sqlx::Error, field: &str, name: &str) -> Error {
    match by_constraint(&error) {
        Some((kind, allowed)) => Error::field(kind, field, name, allowed),
        None => classify(error),
    }
}

/// What a violated constraint means, and what it allows.
fn by_constraint(error: &sqlx::Error) -> Option<(ErrorKind, &'static str)> {
    match error.as_database_error()?.constraint()? {
        "queues_project_name" => Some((ErrorKind::QueueExists, "free: a queue of the project has this name")),
        "consumer_groups_queue_name" => Some((ErrorKind::GroupExists, "free: a group of the queue has this name")),
        _ => None,
    }
}

fn by_code(error: &sqlx::Error) -> Error {
    let code = code(error).unwrap_or_default();
    match &code[..code.len().min(2)] {
        // connection, log-in (a password that is being changed), resources, operator intervention, system error, conflict,
        // read-only (a standby)
        "08" | "28" | "53" | "57" | "58" | "40" | "25" => {
            tracing::warn!(%error, code, "database unavailable");
            Error::unavailable("the database is not available")
        }
        _ if code == "55P03" => Error::unavailable("the database is busy"),
        _ => {
            tracing::error!(%error, code, "database refused a statement");
            Error::internal("the database refused a statement")
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        classify(error)
    }
}
