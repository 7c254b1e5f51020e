//! Whole databases: made, cloned from a template, dropped. Not for the service itself, which never does this.

use sqlx::{AssertSqlSafe, Connection};

use crate::domain::Result;
use crate::store::Database;
use crate::store::session::connect::Connector;

/// The database that every server has.
const MAINTENANCE_DATABASE: &str = "postgres";
const NO_SUCH_DATABASE: &str = "3D000";
const DATABASE_EXISTS: &str = "42P04";

/// Makes the database that the URL names, when it is absent.
pub async fn create_if_absent(database: impl Into<Database>) -> Result<()> {
    let connector = database.into().connector()?;
    match connector.session("dms-setup").connect().await {
        Ok(connection) => return Ok(connection.close().await?),
        Err(error) if has_code(&error, NO_SUCH_DATABASE) => {}
        Err(error) => return Err(error.into()),
    }
    let (_, name) = connector.user_and_database();
    // A URL without a database means the one named as the user.
    let created = execute(&connector, format!("CREATE DATABASE {}", quoted(name))).await;
    match created {
        // Another process was faster.
        Err(error) if has_code(&error, DATABASE_EXISTS) => Ok(()),
        other => Ok(other?),
    }
}

/// Makes a copy of a database that nobody is connected to.
pub async fn create_from_template(server: impl Into<Database>, name: &str, template: &str) -> Result<()> {
    let statement = format!("CREATE DATABASE {} TEMPLATE {}", quoted(name), quoted(template));
    Ok(execute(&server.into().connector()?, statement).await?)
}

/// Drops a database and ends the sessions in it.
pub async fn drop_database(server: impl Into<Database>, name: &str) -> Result<()> {
    let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
    Ok(execute(&server.into().connector()?, statement).await?)
}

/// Runs a statement that no bind parameter fits into, on the maintenance database.
async fn execute(connector: &Connector, statement: String) -> sqlx::Result<()> {
    let mut connection = connector.session("dms-setup").in_database(MAINTENANCE_DATABASE).connect().await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

/// An identifier as SQL text.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|found| found == code)
}
