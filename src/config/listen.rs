//! Where the service listens and how it ends.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::units::{self, Seconds};
use crate::gateway::RestOptions;
use crate::gateway::cors::Origin;
use crate::net::NetLimits;

/// Both listeners.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct ListenArgs {
    /// Address of the gRPC service, IP:PORT; port 0 takes a free one
    #[arg(long, env = "DMS_GRPC_ADDR", value_name = "ADDRESS", default_value = "127.0.0.1:50051", value_parser = address)]
    pub grpc_addr: SocketAddr,
    /// Age at which a client is asked to reconnect, so that load finds new replicas, 1s-24h; calls in flight finish; never if not set
    #[arg(long, env = "DMS_GRPC_CONNECTION_AGE", value_name = "TIME",
          value_parser = units::time(Duration::from_secs(1), Duration::from_secs(24 * 3600)))]
    pub grpc_connection_age: Option<Seconds>,
    /// The other listener.
    #[command(flatten)]
    pub rest: RestArgs,
    /// How many may come.
    #[command(flatten)]
    pub net: NetArgs,
    /// How long to drain.
    #[command(flatten)]
    pub shutdown: ShutdownArgs,
}

/// The REST listener.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct RestArgs {
    /// Address of the REST gateway, IP:PORT; port 0 takes a free one, "off" turns it off
    #[arg(long, env = "DMS_REST_ADDR", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub rest_addr: RestAddress,
    /// Time that a REST connection is kept without a request, 1s-1h; longer than a load balancer in front keeps it, which otherwise
    /// answers 502 now and then
    #[arg(long, env = "DMS_REST_IDLE", value_name = "TIME", default_value = "75s",
          value_parser = units::time(Duration::from_secs(1), Duration::from_secs(3600)))]
    pub(crate) rest_idle: Seconds,
    /// Origins whose pages may call REST from a browser (CORS), https://HOST or https://HOST:PORT, comma-separated, or "*" for all;
    /// none if not set
    #[arg(long, env = "DMS_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',')]
    pub(crate) cors_origins: Vec<Origin>,
}

impl From<&RestArgs> for RestOptions {
    fn from(args: &RestArgs) -> Self {
        Self { idle: args.rest_idle.0, origins: args.cors_origins.clone() }
    }
}

/// The flags of [`NetLimits`].
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct NetArgs {
    /// Connections of callers, 100-1000000, fewer with less --memory-max; those without valid credentials get a tenth on each listener
    #[arg(long, env = "DMS_CONNECTIONS_MAX", value_name = "COUNT", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub connections_max: u32,
    /// Calls in flight before more are refused, long polls included, 100-1000000; one caller gets at most four fifths
    #[arg(long, env = "DMS_CALLS_MAX", value_name = "COUNT", default_value_t = 20_000,
          value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub calls_max: u32,
}

impl From<&NetArgs> for NetLimits {
    fn from(args: &NetArgs) -> Self {
        Self { connections_max: args.connections_max as usize, calls_max: args.calls_max as usize }
    }
}

/// The end.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct ShutdownArgs {
    /// Time for calls in flight to finish after SIGTERM or Ctrl-C, 1s-10m
    #[arg(long, env = "DMS_SHUTDOWN_LIMIT", value_name = "TIME", default_value = "25s",
          value_parser = units::time(Duration::from_secs(1), Duration::from_secs(600)))]
    pub shutdown_limit: Seconds,
}

/// An address, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestAddress(pub Option<SocketAddr>);

impl FromStr for RestAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        address(text).map(|address| Self(Some(address))).map_err(|error| error + ", or off")
    }
}

impl fmt::Display for RestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give IP:PORT, such as 127.0.0.1:8080 or [::]:8080".to_owned())
}
