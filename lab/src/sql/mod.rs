//! Every SQL statement of the lab: figures, baselines to compare with, and what goes wrong in Postgres on purpose. Nothing of it is
//! in the service.

pub mod baselines;
pub mod faults;
pub mod instance;
pub mod interference;
pub mod sabotage;

use std::str::FromStr as _;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

pub use sqlx::Error;

/// Where the tables of the service are, and where versions without a schema of their own have them.
const SEARCH_PATH: &str = "dms,public";

fn connect_options(database_url: &str) -> sqlx::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(database_url)?.options([("search_path", SEARCH_PATH)]);
    Ok(options.disable_statement_logging())
}
