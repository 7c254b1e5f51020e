//! The log: readable messages with fields, on standard error, never a message body, a handler or a token.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogArgs, LogFormat};

/// Starts the log of the process. Call it once.
pub fn init(args: &LogArgs) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&args.filter))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match args.format {
        LogFormat::Pretty => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
