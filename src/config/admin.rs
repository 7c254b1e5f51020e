//! The admin listener.

use clap::Args;

use super::listen::RestAddress;
use crate::domain::hosts::HostName;

/// What operators look at.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Administration")]
pub struct AdminArgs {
    /// Where they look.
    #[command(flatten)]
    pub address: AdminAddressArgs,
    /// Groups with metrics of their own, largest backlogs and oldest messages first, 0-100000
    #[arg(long, env = "DMS_METRICS_GROUPS_MAX", value_name = "COUNT", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub metrics_groups_max: u32,
}

/// The admin listener.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Administration")]
pub struct AdminAddressArgs {
    /// Address of metrics, probes and log level, IP:PORT, without authentication: keep it internal; "off" turns it off
    #[arg(long, env = "DMS_ADMIN_ADDR", value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub admin_addr: RestAddress,
    /// What else requests may call it.
    #[command(flatten)]
    pub hosts: HostArgs,
}

/// Hosts of requests without credentials.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Administration")]
pub struct HostArgs {
    /// Host names accepted on the admin port, and on loopback with --auth none, besides IP addresses, localhost and internal names
    /// (.svc, .local, .internal); HOST or HOST:PORT, comma-separated
    #[arg(long, env = "DMS_ALLOWED_HOSTS", value_name = "HOSTS", value_delimiter = ',')]
    pub allowed_hosts: Vec<HostName>,
}
