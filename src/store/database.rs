//! Whole databases: made, cloned from a template, dropped. Not for the service itself, which never does this.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::connect_options;
use crate::domain::Result;

/// The database that every server has.
const MAINTENANCE_DATABASE: &str = "postgres";
const NO_SUCH_DATABASE: &str = "3D000";
const DATABASE_EXISTS: &str = "42P04";

/// Makes the database that the URL names, when it is absent.
pub async fn create_if_absent(database_url: &str) -> Result<()> {
    let options = connect_options(database_url)?;
    match options.connect().await {
        Ok(connection) => return Ok(connection.close().await?),
        Err(error) if has_code(&error, NO_SUCH_DATABASE) => {}
        Err(error) => return Err(error.into()),
    }
    // A URL without a database means the one named as the user.
    let name = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
    let created = execute(&options, format!("CREATE DATABASE {}", quoted(&name))).await;
    match created {
        // Another process was faster.
        Err(error) if has_code(&error, DATABASE_EXISTS) => Ok(()),
        other => Ok(other?),
    }
}

/// Makes a copy of a database that nobody is connected to.
pub async fn create_from_template(server_url: &str, name: &str, template: &str) -> Result<()> {
    let statement = format!("CREATE DATABASE {} TEMPLATE {}", quoted(name), quoted(template));
    Ok(execute(&connect_options(server_url)?, statement).await?)
}

/// Drops a database and ends the sessions in it.
pub async fn drop_database(server_url: &str, name: &str) -> Result<()> {
    let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
    Ok(execute(&connect_options(server_url)?, statement).await?)
}

/// Runs a statement that no bind parameter fits into, on the maintenance database.
async fn execute(options: &PgConnectOptions, statement: String) -> sqlx::Result<()> {
    let mut connection: PgConnection = options.clone().database(MAINTENANCE_DATABASE).connect().await?;
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
