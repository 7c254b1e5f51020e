//! Before the migrations: the schema is made, or the tables that an earlier version has put into another one are moved there.
//!
//! Versions without a schema of their own put their tables into `public`, and their record of migrations into `_sqlx_migrations`, where an
//! application may have its own rows, and tables of its own with other names. Only what is ours is taken: rows by version, name and
//! checksum, tables when they have our columns. All of it happens in one transaction, or nothing.

mod found;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use self::found::{Found, TABLES, find, has};
use super::{Failure, TABLE};
use crate::domain::Error;
use crate::domain::schema_name::SchemaName;
use crate::store::session::leadership;
use crate::store::sql::{Sql, Statement, parameters, row, statements, utility};

/// Serialises those who make or move an installation in this database.
const LOCK_KEY: i64 = 0x646d_735f_6d6f_7665;
static SCHEMA: Sql<(&str,), (bool,)> = Sql::new(
    "
SELECT has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1::text",
);

parameters! {
    /// Relations of a schema, by name.
    struct Named<'a> {
        schema: &'a str,
        names: &'a [&'a str],
    }
}

/// Names of ours that are taken in a schema.
static TAKEN: Sql<Named<'static>, (String,)> = Sql::new(
    "
SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $schema::text AND c.relname = ANY ($names::text[]) ORDER BY 1",
);

/// Tables, sequences that no table owns, and days of the log, detached ones too.
static RELATIONS: Sql<Named<'static>, (String,)> = Sql::new(
    "
SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $schema::text
  AND (c.relname = ANY ($names::text[]) AND c.relkind IN ('r', 'p')
       OR c.relname IN ('stream_ids', 'subscription_ids', 'failure_ids') AND c.relkind = 'S'
       OR c.relname ~ '^segments_d[0-9]+$' AND c.relkind = 'r'
          AND EXISTS (SELECT FROM pg_attribute AS a
                      WHERE a.attrelid = c.oid AND a.attname = 'base_offset' AND NOT a.attisdropped))
ORDER BY c.relkind = 'r', c.relname",
);

static LOG: Sql<(&str,), (i64,)> = Sql::new(
    "
SELECT c.oid::bigint FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relname = 'segments'",
);

static LOCK: Sql<(i64,), ()> = Sql::new("SELECT pg_advisory_xact_lock($1)");
static TRY_LOCK: Sql<(i64,), (bool,)> = Sql::new("SELECT pg_try_advisory_xact_lock($1)");

row! {
    struct Rights {
        role: String,
        database: String,
        may_create: bool,
    }
}

static RIGHTS: Sql<(), Rights> = Sql::new(
    "
SELECT current_user::text AS role, current_database()::text AS database,
       has_database_privilege(current_database(), 'CREATE') AS may_create",
);

statements![SCHEMA, TAKEN, RELATIONS, LOG, LOCK, TRY_LOCK, RIGHTS];

pub(super) fn all_statements() -> Vec<Statement> {
    [statements(), found::statements()].concat()
}

/// Has the schema ready for the migrations. Says where an installation was moved from, if one was.
pub(in crate::store) async fn prepare(
    connection: &mut PgConnection,
    target: &SchemaName,
    source: Option<&SchemaName>,
) -> Result<Option<SchemaName>, Failure> {
    let mut tx = connection.begin().await?;
    LOCK.run((LOCK_KEY,)).execute(&mut *tx).await?;
    let moved_from = if has(&mut tx, target, TABLE).await? {
        if let Some(source) = source {
            return Err(refused(format!(
                "--from {source}: the schema {target} has an installation of its own already"
            )));
        }
        None
    } else {
        let found = find(&mut tx, source).await?;
        match found {
            Some(found) if found.schema == *target => {
                copy_record(&mut tx, &found, target).await?;
                None
            }
            Some(found) => {
                relocate(&mut tx, &found, target).await?;
                Some(found.schema)
            }
            None => {
                make_schema(&mut tx, target).await?;
                refuse_taken(&mut tx, target).await?;
                None
            }
        }
    };
    tx.commit().await?;
    Ok(moved_from)
}

async fn relocate(tx: &mut PgConnection, found: &Found, target: &SchemaName) -> Result<(), Failure> {
    refuse_while_in_use(tx, &found.schema).await?;
    make_schema(tx, target).await?;
    refuse_taken(tx, target).await?;
    let names = TABLES.map(|(name, _)| name);
    let named = Named { schema: found.schema.as_str(), names: &names };
    let relations = RELATIONS.scalar(named).fetch_all(&mut *tx).await?;
    for relation in relations {
        let kind = if relation.ends_with("_ids") { "SEQUENCE" } else { "TABLE" };
        run(tx, format!("ALTER {kind} {} SET SCHEMA {}", at(&found.schema, &relation), target.quoted())).await?;
    }
    if found.record == TABLE {
        return run(tx, format!("ALTER TABLE {} SET SCHEMA {}", at(&found.schema, TABLE), target.quoted())).await;
    }
    copy_record(tx, found, target).await?;
    forget_record(tx, found).await
}

/// What was applied, in a table of our own.
async fn copy_record(tx: &mut PgConnection, found: &Found, target: &SchemaName) -> Result<(), Failure> {
    let (from, to) = (at(&found.schema, found.record), at(target, TABLE));
    run(tx, format!("CREATE TABLE {to} (LIKE {from} INCLUDING ALL)")).await?;
    let copy = format!("INSERT INTO {to} SELECT * FROM {from} WHERE version = ANY ($1)");
    sqlx::query(AssertSqlSafe(copy)).bind(&found.versions).execute(tx).await?;
    Ok(())
}

/// The application's tool would take our rows for migrations that it has lost. A table without any other row was made by us.
async fn forget_record(tx: &mut PgConnection, found: &Found) -> Result<(), Failure> {
    let record = at(&found.schema, found.record);
    let delete = format!("DELETE FROM {record} WHERE version = ANY ($1)");
    sqlx::query(AssertSqlSafe(delete)).bind(&found.versions).execute(&mut *tx).await?;
    let left = format!("SELECT EXISTS (SELECT FROM {record})");
    let left: bool = sqlx::query_scalar(AssertSqlSafe(left)).fetch_one(&mut *tx).await?;
    if left { Ok(()) } else { run(tx, format!("DROP TABLE {record}")).await }
}

/// A replica would look for its tables where they were. One of them leads while there is any, and none can while this transaction lasts.
async fn refuse_while_in_use(tx: &mut PgConnection, schema: &SchemaName) -> Result<(), Failure> {
    let log = LOG.scalar((schema.as_str(),)).fetch_one(&mut *tx).await?;
    if TRY_LOCK.scalar((leadership::lock_key(log),)).fetch_one(tx).await? {
        return Ok(());
    }
    Err(refused(format!(
        "replicas use the tables in {schema}, and would not find them elsewhere: stop all replicas (one that was killed counts for some \
         seconds more), then run dms migrate again. To upgrade without a stop, leave them there: --schema {schema} (DMS_SCHEMA)"
    )))
}

async fn make_schema(tx: &mut PgConnection, schema: &SchemaName) -> Result<(), Failure> {
    let usable = SCHEMA.scalar((schema.as_str(),)).fetch_optional(&mut *tx).await?;
    let Rights { role, database, may_create } = RIGHTS.rows(()).fetch_one(&mut *tx).await?;
    match usable {
        Some(true) => Ok(()),
        Some(false) => Err(refused(format!(
            "the role {role} may not make tables in the schema {schema}: as its owner, GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}"
        ))),
        None if may_create => run(tx, format!("CREATE SCHEMA {}", schema.quoted())).await,
        None => Err(refused(format!(
            "the role {role} may not make schemas in the database {database}: as its owner, CREATE SCHEMA {schema} AUTHORIZATION {role}"
        ))),
    }
}

async fn refuse_taken(tx: &mut PgConnection, schema: &SchemaName) -> Result<(), Failure> {
    let names = TABLES.map(|(name, _)| name);
    let taken = TAKEN.scalar(Named { schema: schema.as_str(), names: &names }).fetch_all(tx).await?;
    if taken.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "the schema {schema} has tables of somebody else where those of dms would go ({}): give another --schema (DMS_SCHEMA)",
        taken.join(", ")
    )))
}

/// The names in it have been checked, or are ours.
async fn run(tx: &mut PgConnection, statement: String) -> Result<(), Failure> {
    utility(statement).execute(tx).await?;
    Ok(())
}

fn at(schema: &SchemaName, relation: &str) -> String {
    format!("{}.{relation}", schema.quoted())
}

fn refused(text: String) -> Failure {
    Failure::Refused(Error::internal(text))
}
