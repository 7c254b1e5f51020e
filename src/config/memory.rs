//! How much memory a process may hold.

use clap::Args;

use super::units::{self, ByteSize};
use crate::broker::Settings;
use crate::memory;

/// The memory of a service.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Memory")]
pub struct MemoryArgs {
    /// Memory that callers can make the service hold, 128MiB-1024GiB; beyond it calls are refused. Give the container 1.3 times as
    /// much
    #[arg(long, env = "DMS_MEMORY_MAX", value_name = "BYTES", default_value_t = ByteSize(Settings::default().memory_max),
          value_parser = units::bytes(memory::MIN, 1 << 40))]
    pub memory_max: ByteSize,
}

/// The memory of a gateway of its own.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Memory")]
pub struct GatewayMemoryArgs {
    /// Memory that callers can make the gateway hold, 128MiB-1024GiB; beyond it calls are refused. Give the container 1.3 times as
    /// much
    #[arg(long, env = "DMS_MEMORY_MAX", value_name = "BYTES", default_value = "320MiB",
          value_parser = units::bytes(memory::MIN, 1 << 40))]
    pub memory_max: ByteSize,
}
