//! The way to one of several servers.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection, PgPool};

use super::Database;
use super::session::Session;
use super::url::{ConnectionUrl, ServerAddress, Wanted};
use crate::domain::schema_name::SchemaName;
use crate::domain::{Error, Result};

/// How long one server may take to let us in, unless the URL says so.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same when there is another one to try.
const TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(2);
/// What names of our sessions begin with, unless the URL has another name.
const APPLICATION: &str = "dms";

/// Connects; shared by all that do.
#[derive(Debug, Clone)]
pub(crate) struct Connector(Arc<Servers>);

#[derive(Debug)]
struct Servers {
    options: Vec<PgConnectOptions>,
    wanted: Wanted,
    timeout: Option<Duration>,
    application: String,
    schema: SchemaName,
    place: String,
    /// The one to try first: the last that would do, or the one after the last that was tried.
    first: AtomicUsize,
    follower: Mutex<Option<Follower>>,
}

/// A pool, which connects by itself and to one server only.
#[derive(Debug)]
struct Follower {
    pool: PgPool,
    server: usize,
    since: Arc<Mutex<Instant>>,
}

impl Connector {
    pub(super) fn new(database: &Database) -> Result<Self> {
        let wrong = |error: String| Error::internal(format!("database-url: {error}"));
        let url = ConnectionUrl::parse(&database.url, |name| database.variables.get(name).cloned()).map_err(wrong)?;
        let options = url.servers.iter().map(|server| driver_options(&url, server));
        let options = options.collect::<sqlx::Result<Vec<_>>>().map_err(|error| wrong(error.to_string()))?;
        let usual = if options.len() > 1 { TIMEOUT_OF_SEVERAL } else { TIMEOUT };
        Ok(Self(Arc::new(Servers {
            place: place(&options),
            options,
            wanted: url.wanted,
            timeout: Some(url.connect_timeout.unwrap_or(usual)).filter(|timeout| !timeout.is_zero()),
            application: url.parameters.get("application_name").map_or_else(|| APPLICATION.to_owned(), Clone::clone),
            schema: database.schema.clone(),
            first: AtomicUsize::new(0),
            follower: Mutex::new(None),
        })))
    }

    /// A session that has a name of ours, which begins with `dms`.
    pub(crate) fn session(&self, name: &str) -> Session {
        let rest = name.strip_prefix(APPLICATION).map(|rest| format!("{}{rest}", self.0.application));
        Session::new(self.clone(), rest.unwrap_or_else(|| name.to_owned()))
    }

    /// The schema that sessions work in.
    pub(crate) fn schema(&self) -> &SchemaName {
        &self.0.schema
    }

    pub(super) fn wanted(&self) -> Wanted {
        self.0.wanted
    }

    /// Hosts, ports and the database, for the log and for people.
    pub(crate) fn place(&self) -> &str {
        &self.0.place
    }

    /// Who logs in, and into which database.
    pub(crate) fn user_and_database(&self) -> (&str, &str) {
        let options = &self.0.options[0];
        (options.get_username(), options.get_database().unwrap_or(options.get_username()))
    }

    /// Whether there are several servers, of which the right one can become another one.
    pub(crate) fn has_several(&self) -> bool {
        self.0.options.len() > 1
    }

    /// The options for whoever connects by itself, for the server that was the right one last.
    pub(crate) fn options_of_present(&self, session: &Session) -> PgConnectOptions {
        self.options(self.0.first.load(Ordering::Relaxed), session)
    }

    fn options(&self, server: usize, session: &Session) -> PgConnectOptions {
        let options = self.0.options[server].clone().application_name(&session.application_name);
        match session.database {
            Some(name) => options.database(name),
            None => options,
        }
    }

    /// Tries one server after the other, beginning with the one that was right last.
    pub(super) async fn connect(&self, session: &Session) -> sqlx::Result<PgConnection> {
        let count = self.0.options.len();
        let begin = self.0.first.load(Ordering::Relaxed);
        let mut failed = None;
        for server in (begin..begin + count).map(|index| index % count) {
            // Whoever waits may lose patience: the next attempt then begins with the next server.
            self.0.first.store((server + 1) % count, Ordering::Relaxed);
            match self.connect_to(server, session).await {
                Ok(connection) => {
                    self.0.first.store(server, Ordering::Relaxed);
                    self.lead_follower(server);
                    return Ok(connection);
                }
                // What a server says is worth more than that another one is away.
                Err(error) => failed = failed.filter(said).or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| std::io::Error::other("no server is known").into()))
    }

    async fn connect_to(&self, server: usize, session: &Session) -> sqlx::Result<PgConnection> {
        let options = self.options(server, session);
        let preparation = session.preparation();
        let connecting = async {
            let mut connection = options.connect().await?;
            preparation.prepare(&mut connection).await?;
            Ok(connection)
        };
        let Some(timeout) = self.0.timeout else { return connecting.await };
        let connected = tokio::time::timeout(timeout, connecting).await;
        connected.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", timeout.as_secs());
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into())
        })
    }

    /// Has a pool connect to the right server from now on. `since` is when that became another one: older connections are not with it.
    pub(crate) fn lead(&self, pool: &PgPool, since: Arc<Mutex<Instant>>) {
        let server = self.0.first.load(Ordering::Relaxed);
        *lock(&self.0.follower) = Some(Follower { pool: pool.clone(), server, since });
    }

    fn lead_follower(&self, server: usize) {
        let mut follower = lock(&self.0.follower);
        let Some(follower) = follower.as_mut().filter(|follower| follower.server != server) else { return };
        tracing::info!(server = place(&self.0.options[server..=server]), "Postgres is used at another server");
        follower.pool.set_connect_options(self.0.options[server].clone().application_name(&self.0.application));
        follower.server = server;
        *lock(&follower.since) = Instant::now();
    }
}

fn said(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(_))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The driver's options for one server: by a URL of its own form, for that is when it looks for the password in a password file.
fn driver_options(url: &ConnectionUrl, server: &ServerAddress) -> sqlx::Result<PgConnectOptions> {
    let port = server.port.to_string();
    let host = server.host.iter().map(|host| ("host", host.as_str()));
    let others = url.parameters.iter().map(|(name, value)| (*name, value.as_str()));
    // `system` is what the driver trusts without a file.
    let others = others.filter(|parameter| *parameter != ("sslrootcert", "system"));
    let pairs: Vec<String> = host
        .chain([("port", port.as_str())])
        .chain(others)
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
        .collect();
    let options = PgConnectOptions::from_str(&format!("postgres:///?{}", pairs.join("&")))?;
    // Poolers refuse this parameter, and Postgres's own default loses nothing.
    Ok(options.extra_float_digits(None::<i8>).disable_statement_logging())
}

fn place(options: &[PgConnectOptions]) -> String {
    let server = |options: &PgConnectOptions| match options.get_socket() {
        Some(folder) => format!("{}:{}", folder.display(), options.get_port()),
        None if options.get_host().contains(':') => format!("[{}]:{}", options.get_host(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let servers: Vec<String> = options.iter().map(server).collect();
    let database = options.first().map_or("", |options| options.get_database().unwrap_or(options.get_username()));
    format!("{}/{database}", servers.join(","))
}
