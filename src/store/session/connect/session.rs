//! One session that is about to begin.

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::connector::Connector;
use super::url::Wanted;

/// A session and its settings.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    connector: Connector,
    pub(super) application_name: String,
    /// Another database than the URL's.
    pub(super) database: Option<&'static str>,
    settings: Vec<(&'static str, String)>,
}

impl Session {
    pub(super) fn new(connector: Connector, application_name: String) -> Self {
        let search_path = connector.schema().quoted();
        Self { connector, application_name, database: None, settings: vec![("search_path", search_path)] }
    }

    /// With these settings too; the last of a name holds.
    pub(crate) fn with(mut self, settings: impl IntoIterator<Item = (&'static str, impl Into<String>)>) -> Self {
        let quoted = |value: String| format!("'{}'", value.replace('\'', "''"));
        self.settings.extend(settings.into_iter().map(|(name, value)| (name, quoted(value.into()))));
        self
    }

    /// With another database of the same server.
    pub(crate) fn in_database(self, name: &'static str) -> Self {
        Self { database: Some(name), ..self }
    }

    /// Begins it with the first server that will do.
    pub(crate) async fn connect(&self) -> sqlx::Result<PgConnection> {
        self.connector.connect(self).await
    }

    /// What a connection has to be told once, however it was made.
    pub(crate) fn preparation(&self) -> Preparation {
        let statements: Vec<String> =
            self.settings.iter().map(|(name, value)| format!("SET {name} TO {value}")).collect();
        Preparation { statements: statements.join("; "), wanted: self.connector.wanted() }
    }
}

/// What makes a connection one of ours.
#[derive(Debug, Clone)]
pub(crate) struct Preparation {
    statements: String,
    wanted: Wanted,
}

impl Preparation {
    /// Sets what is to be set, and looks whether the server will do.
    pub(crate) async fn prepare(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        // Names and values are ours; the name of the schema has been checked.
        sqlx::raw_sql(AssertSqlSafe(self.statements.clone())).execute(&mut *connection).await?;
        let (question, unwanted) = match self.wanted {
            Wanted::Any => return Ok(()),
            Wanted::ReadWrite => ("SHOW transaction_read_only", "it accepts no writes"),
            Wanted::Primary => ("SELECT CASE WHEN pg_is_in_recovery() THEN 'on' ELSE 'off' END", "it is a standby"),
        };
        let answer: String = sqlx::raw_sql(question).fetch_one(connection).await?.try_get(0)?;
        match answer.as_str() {
            "on" => Err(std::io::Error::other(unwanted).into()),
            _ => Ok(()),
        }
    }
}
