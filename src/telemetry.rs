//! The log: structured lines on standard error, with the request id and the trace of the call they belong to. Never bodies,
//! never tokens.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anyhow::Context as _;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

/// Changes the filter of the running log.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Starts the log; `filter` is a list of directives such as `info,dms=debug`. Fails on a malformed filter and when a log
/// was started before.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(filter)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Pretty => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        // All spans: the innermost one may be a statement, and the outermost one has the id and the trace.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed(),
    };
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))?;
    let _only_one_log = FILTER.set(handle);
    Ok(())
}

/// Changes what is logged from now on, until the process ends.
pub fn set_filter(filter: &str) -> anyhow::Result<()> {
    let parsed = EnvFilter::try_new(filter)?;
    FILTER.get().context("no log was started")?.reload(parsed)?;
    tracing::info!(filter, "the filter of the log was changed");
    Ok(())
}
