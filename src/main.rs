//! The program: reads the command line, starts the log, runs one command.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use dms::app::{dev, service};
use dms::config::{Cli, Command};
use dms::doctor;
use dms::observe::telemetry;
use dms::reload::http_get;
use dms::store::{self, Database};
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What still blocks a thread at the end, a name that no server resolves for one, is left alone after this time.
const BLOCKED_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::read();
    if let Err(error) = in_runtime(cli) {
        // Said whatever the filter: whoever looks for the reason has nothing else.
        tracing::error!(target: telemetry::AUDIT, "{error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn in_runtime(cli: Cli) -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(start(cli));
    runtime.shutdown_timeout(BLOCKED_LIMIT);
    ended
}

async fn start(cli: Cli) -> anyhow::Result<()> {
    let export = telemetry::init(&cli.log.filter, cli.log.format, cli.command.traces())?;
    let ended = run(cli.command).await;
    if let Some(export) = export {
        tokio::task::spawn_blocking(|| export.end()).await?;
    }
    ended
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => service::service(args).await,
        Command::Dev(args) => dev::run(args).await,
        Command::Gateway(args) => service::gateway(args).await,
        Command::Migrate(args) => {
            let migrated = store::schema::migrate_from(Database::from(args.database), args.from.as_ref()).await?;
            writeln!(std::io::stdout(), "{migrated}").context("cannot write")
        }
        Command::Doctor(args) => doctor::run(args).await,
        Command::Healthcheck(args) => {
            http_get::get(&args.url).await?;
            Ok(())
        }
        Command::PostgresBin(args) => {
            let binaries = dms_postgres::find_binaries(args.postgres_bin.as_deref())?;
            writeln!(std::io::stdout(), "{}", binaries.folder.display()).context("cannot write")
        }
    }
}
