//! How every session with Postgres begins: which server it is with, the schema it works in, its settings.
//!
//! The settings are statements after the log-in, not parameters of it: poolers refuse or drop the latter.

mod connector;
mod session;
mod url;
#[cfg(test)]
mod url_tests;

use std::collections::BTreeMap;
use std::fmt;

pub(in crate::store) use self::connector::Connector;
pub(in crate::store) use self::session::Session;

use crate::domain::Result;
use crate::domain::schema_name::SchemaName;

/// Where an installation is.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// `postgres://...`
    pub url: String,
    /// The schema of its tables.
    pub schema: SchemaName,
    /// Variables of libpq, for what the URL leaves open.
    pub variables: BTreeMap<&'static str, String>,
}

impl Database {
    /// The way there.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(in crate::store) fn connector(&self) -> Result<Connector> {
        Connector::new(self)
    }
}

/// In the schema of whoever does not choose one.
impl From<&str> for Database {
    fn from(url: &str) -> Self {
        url.to_owned().into()
    }
}

impl From<String> for Database {
    fn from(url: String) -> Self {
        Self { url, schema: SchemaName::default(), variables: BTreeMap::new() }
    }
}

impl From<&String> for Database {
    fn from(url: &String) -> Self {
        url.as_str().into()
    }
}

impl From<&Database> for Database {
    fn from(database: &Database) -> Self {
        database.clone()
    }
}

/// Without the URL, which has a password in it.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("schema", &self.schema).finish_non_exhaustive()
    }
}
