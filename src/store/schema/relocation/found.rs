//! Which installation there is to move, and whether it is whole.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{at, refused};
use crate::domain::schema_name::SchemaName;
use crate::store::schema::{Failure, MIGRATIONS, TABLE};
use crate::store::sql::{Sql, parameters, statements};

/// Where sqlx keeps what was applied, unless it is told otherwise.
const SHARED_TABLE: &str = "_sqlx_migrations";
/// Our tables since the first migration, each with a column by which it is known.
pub(super) const TABLES: [(&str, &str); 9] = [
    ("queues", "stream_id"),
    ("queue_tags", "tag_value"),
    ("consumer_groups", "dead_letter_stream_id"),
    ("streams", "last_appended_at"),
    ("segments", "base_offset"),
    ("subscriptions", "cursor_offset"),
    ("leases", "appended_ats"),
    ("retries", "message_offset"),
    ("delayed_messages", "delayed_id"),
];

statements![HAS_COLUMN, MAY_READ];

parameters! {
    struct HasColumn<'a> {
        schema: &'a str,
        table: &'a str,
        column: &'a str,
    }
}

static HAS_COLUMN: Sql<HasColumn<'static>, (bool,)> = Sql::new(
    "
SELECT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                      JOIN pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped
               WHERE n.nspname = $schema::text AND c.relname = $table::text AND a.attname = $column::text AND c.relkind IN ('r', 'p'))",
);

parameters! {
    struct MayRead<'a> {
        schema: &'a str,
        table: &'a str,
    }
}

static MAY_READ: Sql<MayRead<'static>, (bool,)> = Sql::new(
    "
SELECT coalesce((SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE n.nspname = $schema::text AND c.relname = $table::text), false)",
);

/// A row of a table of migrations.
type Applied = (i64, String, Vec<u8>, bool);

/// An installation that was found.
pub(super) struct Found {
    pub schema: SchemaName,
    /// Where its migrations are recorded.
    pub record: &'static str,
    pub versions: Vec<i64>,
}

/// The installation that is to be moved: the one that was named, or one of an earlier version, which is in `public`. One that was put into
/// `public` on purpose has a table of its own there, and stays unless it is named.
pub(super) async fn find(tx: &mut PgConnection, source: Option<&SchemaName>) -> Result<Option<Found>, Failure> {
    let schema = source.cloned().unwrap_or_else(SchemaName::public);
    let record = match has(tx, &schema, TABLE).await? {
        true if source.is_none() => return Ok(None),
        true => TABLE,
        false => SHARED_TABLE,
    };
    let versions = ours(tx, &schema, record).await?;
    match (versions.is_empty(), source) {
        (true, Some(source)) => {
            Err(refused(format!("--from {source}: there is no installation of dms in this schema")))
        }
        (true, None) => Ok(None),
        (false, _) => {
            refuse_unless_complete(tx, &schema, record, &versions).await?;
            Ok(Some(Found { schema, record, versions }))
        }
    }
}

/// The migrations of ours that are recorded there.
async fn ours(tx: &mut PgConnection, schema: &SchemaName, record: &str) -> Result<Vec<i64>, Failure> {
    let may_read = MAY_READ.scalar(MayRead { schema: schema.as_str(), table: record }).fetch_one(&mut *tx).await?;
    if !may_read || !has_column(tx, schema, record, "checksum").await? {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT version, description, checksum, success FROM {} ORDER BY version", at(schema, record));
    let rows: Vec<Applied> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut *tx).await?;
    let is_ours = |(version, description, checksum, _): &Applied| {
        // What a newer version has recorded in a table of its own is not known here, and ours all the same.
        record == TABLE
            || MIGRATIONS.iter().any(|known| {
                known.version == *version
                    && known.description == description.as_str()
                    && known.checksum.as_ref() == checksum.as_slice()
            })
    };
    let rows: Vec<Applied> = rows.into_iter().filter(is_ours).collect();
    if let Some((version, ..)) = rows.iter().find(|(.., success)| !success) {
        let table = at(schema, record);
        return Err(refused(format!(
            "migration {version} of dms has stopped half way (see {table}): undo by hand what it has done"
        )));
    }
    Ok(rows.into_iter().map(|(version, ..)| version).collect())
}

/// What is recorded and what is there have to agree: otherwise somebody has moved or removed a part by hand.
async fn refuse_unless_complete(
    tx: &mut PgConnection,
    schema: &SchemaName,
    record: &str,
    versions: &[i64],
) -> Result<(), Failure> {
    let (first, last) = (versions.first().copied().unwrap_or_default(), versions.last().copied().unwrap_or_default());
    let mut missing: Vec<String> = MIGRATIONS
        .iter()
        .filter(|known| known.version < last && !versions.contains(&known.version))
        .map(|known| format!("the record of migration {}", known.version))
        .collect();
    for (table, column) in TABLES {
        if !has_column(tx, schema, table, column).await? {
            missing.push(format!("the table {table} with a column {column}"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let record = at(schema, record);
    Err(refused(format!(
        "{record} says that migrations {first} to {last} of dms were applied, but {schema} lacks {}: nothing was changed. Bring back what \
         is missing, or, if there is no installation, delete these rows",
        missing.join(", ")
    )))
}

pub(super) async fn has(tx: &mut PgConnection, schema: &SchemaName, table: &str) -> sqlx::Result<bool> {
    has_column(tx, schema, table, "version").await
}

async fn has_column(tx: &mut PgConnection, schema: &SchemaName, table: &str, column: &str) -> sqlx::Result<bool> {
    HAS_COLUMN.scalar(HasColumn { schema: schema.as_str(), table, column }).fetch_one(tx).await
}
