//! The program: reads the command line, starts the log, runs one command.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Parser as _;
use dms_lab::config::{Cli, Command};
use dms_lab::{bench, chaos};
use tracing_subscriber::EnvFilter;

// A load generator has to cost less than what it loads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(EnvFilter::try_new(&cli.log)?);
    log.try_init().map_err(|error| anyhow!("the log cannot be started: {error}"))?;
    match cli.command {
        Command::Bench(args) => bench::run(args).await,
        Command::Chaos(args) => chaos::run(args).await,
    }
}
