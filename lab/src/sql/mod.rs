//! Every SQL statement of the lab: figures, baselines to compare with, and what goes wrong in Postgres on purpose. Nothing of it is
//! in the service.

pub mod faults;
pub mod instance;
pub mod interference;
pub mod peers;
pub mod sabotage;

use std::str::FromStr as _;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

pub use sqlx::Error;

fn connect_options(database_url: &str) -> sqlx::Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(database_url)?.disable_statement_logging())
}
