//! The command line. Every setting is a flag with an environment variable and a help line, checked here once; nothing else
//! reads the environment. `docs/configuration.md` is generated from it.

mod admin;
mod auth;
mod broker;
mod environment;
mod listen;
mod log;
mod memory;
mod reference;
mod tls;
mod traces;
mod traffic;
mod units;

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::units::Seconds;
use crate::domain::schema_name::SchemaName;
use crate::observe::telemetry::TraceOptions;
use crate::store::Database;

pub use admin::{AdminAddressArgs, AdminArgs, HostArgs};
pub use auth::{AuthArgs, AuthMethod};
pub use broker::BrokerArgs;
pub use listen::{ListenArgs, NetArgs, RestAddress, RestArgs, ShutdownArgs};
pub use log::LogArgs;
pub use memory::{GatewayMemoryArgs, MemoryArgs};
pub use reference::reference;
pub use tls::{GrpcTlsArgs, TlsArgs, UpstreamTlsArgs};
pub use traces::TraceArgs;
pub use traffic::TrafficArgs;

/// DMS v1.0 message queues on Postgres: gRPC service and REST gateway.
#[derive(Debug, Parser)]
#[command(name = "dms", version, propagate_version = true)]
pub struct Cli {
    /// What to write to the log.
    #[command(flatten)]
    pub log: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service on an existing database (run `dms migrate` on it first)
    Serve(ServeArgs),
    /// Run the service with a private Postgres server: set-up, service and examples in one command
    Dev(DevArgs),
    /// Run the REST gateway alone, in front of a remote gRPC service
    Gateway(GatewayArgs),
    /// Bring the schema of a database up to date
    Migrate(MigrateArgs),
    /// Check a database as the service would use it, and say what to do
    Doctor(DoctorArgs),
    /// Exit with 0 if a service is ready: a probe for containers
    Healthcheck(HealthcheckArgs),
    /// Print the folder of the Postgres server that `dms dev` would use
    #[command(hide = true)]
    PostgresBin(PostgresArgs),
}

impl Cli {
    /// Reads the command line and the environment; ends the process when there is something wrong with them.
    pub fn read() -> Self {
        let mut command = Self::command();
        let matches = command.get_matches_mut();
        if let Some(flag) = secret_flag(&matches) {
            let message = format!(
                "--{flag}: every account of this machine can read a command line; give a file, or the variable"
            );
            command.error(ErrorKind::ArgumentConflict, message).exit();
        }
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// A secret that is on the command line.
fn secret_flag(matches: &ArgMatches) -> Option<&'static str> {
    let (_, matches) = matches.subcommand()?;
    let given =
        |id: &str| matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine);
    given("auth_aksk").then_some("auth-aksk")
}

impl Command {
    /// Where the spans of this command go, if there is a collector.
    pub fn traces(&self) -> Option<TraceOptions> {
        match self {
            Self::Serve(args) => args.traces.options("dms"),
            Self::Dev(args) => args.traces.options("dms"),
            Self::Gateway(args) => args.traces.options("dms-gateway"),
            _ => None,
        }
    }
}

/// Settings of `dms serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Who may call.
    #[command(flatten)]
    pub auth: AuthArgs,
    /// How much.
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// TLS of the listeners.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// TLS of the gRPC listener.
    #[command(flatten)]
    pub grpc_tls: GrpcTlsArgs,
    /// What operators look at.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Where spans go.
    #[command(flatten)]
    pub traces: TraceArgs,
    /// How much it may hold.
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// The message engine.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

/// Settings of `dms dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Database to use instead of a private server; created if absent
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Which schema of it.
    #[command(flatten)]
    pub schema: SchemaArgs,
    /// Data folder of the private Postgres server
    #[arg(long, env = "DMS_DATA_DIR", value_name = "FOLDER", default_value = "./.dms")]
    pub data_dir: PathBuf,
    /// Which server to run.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Who may call.
    #[command(flatten)]
    pub auth: AuthArgs,
    /// How much.
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Address of metrics, probes and log level, IP:PORT; port 0 takes a free one, "off" turns it off
    #[arg(
        long,
        env = "DMS_ADMIN_ADDR",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:0",
        help_heading = "Administration"
    )]
    pub admin_addr: RestAddress,
    /// What else requests may call it.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// Where spans go.
    #[command(flatten)]
    pub traces: TraceArgs,
    /// How much it may hold.
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// The message engine.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

/// Settings of `dms gateway`.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// URL of the gRPC service, such as http://dms:50051 or https://dms:50051
    #[arg(long, env = "DMS_UPSTREAM", value_name = "URL", value_parser = units::upstream)]
    pub upstream: String,
    /// Connections to the service, each with up to 900 calls in flight, long polls included, 1-64
    #[arg(long, env = "DMS_UPSTREAM_CONNECTIONS", value_name = "COUNT", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) upstream_connections: u16,
    /// How old such a connection gets before another one takes its place, so that calls find new replicas, 1s-24h
    #[arg(long, env = "DMS_UPSTREAM_CONNECTION_AGE", value_name = "TIME", default_value = "1m",
          value_parser = units::time(Duration::from_secs(1), Duration::from_secs(24 * 3600)))]
    pub(crate) upstream_connection_age: Seconds,
    /// How to trust the service.
    #[command(flatten)]
    pub(crate) upstream_tls: UpstreamTlsArgs,
    /// Where to listen.
    #[command(flatten)]
    pub rest: RestArgs,
    /// How many may come.
    #[command(flatten)]
    pub net: NetArgs,
    /// TLS of the listener.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// What operators look at.
    #[command(flatten)]
    pub admin: AdminAddressArgs,
    /// Where spans go.
    #[command(flatten)]
    pub traces: TraceArgs,
    /// How much it may hold.
    #[command(flatten)]
    pub memory: GatewayMemoryArgs,
    /// How long to drain.
    #[command(flatten)]
    pub shutdown: ShutdownArgs,
}

/// A database that must exist.
#[derive(Debug, Args)]
pub struct DatabaseArgs {
    /// URL of the database, postgres://user:password@host:port/database; several hosts for failover: host1:port,host2:port
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: String,
    /// Which schema of it.
    #[command(flatten)]
    pub schema: SchemaArgs,
}

impl From<DatabaseArgs> for Database {
    fn from(args: DatabaseArgs) -> Self {
        Self { url: args.database_url, schema: args.schema.schema, variables: environment::of_libpq() }
    }
}

/// Where the tables are.
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// Schema of the database that has the tables, lower-case letters, digits and underscores; all replicas have the same
    #[arg(long, env = "DMS_SCHEMA", value_name = "NAME", default_value_t = SchemaName::default())]
    pub schema: SchemaName,
}

/// Settings of `dms migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Schema to move the tables from, with what is in them; those of an earlier version in "public" are moved without it
    #[arg(long, env = "DMS_MIGRATE_FROM", value_name = "NAME")]
    pub from: Option<SchemaName>,
}

/// Settings of `dms doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Replicas that are to run on it, 1-1000
    #[arg(long, env = "DMS_REPLICAS", value_name = "COUNT", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub replicas: u32,
    /// The message engine.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

/// Settings of `dms healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// What to ask: /readyz or /healthz of the REST address; https must have a certificate that this machine trusts
    #[arg(long, env = "DMS_HEALTHCHECK_URL", value_name = "URL", default_value = "http://127.0.0.1:8080/readyz")]
    pub url: http::Uri,
}

/// A Postgres server on this machine.
#[derive(Debug, Args)]
pub struct PostgresArgs {
    /// Folder with the server binaries initdb and postgres, version 15 or newer; looked for when not given
    #[arg(long, env = "DMS_POSTGRES_BIN", value_name = "FOLDER")]
    pub postgres_bin: Option<PathBuf>,
}
