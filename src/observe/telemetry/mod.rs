//! What the program tells of itself beside metrics: spans to a collector if somebody wants them, and the log.
//!
//! The log is structured lines on standard error, with the request id and the trace of the call they belong to. Never bodies,
//! never tokens.

mod otlp;
mod plain;

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anyhow::Context as _;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

pub use self::otlp::Export;
use self::plain::{Escape, PlainStderr};
use crate::config::{LogArgs, TraceArgs};
use crate::observe::spans;

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

/// Starts the log, and the export of spans if there is a collector for them; `traces` has the name of the service beside.
/// Fails when a log was started before. Needs a runtime.
pub fn init(log: &LogArgs, traces: Option<(&'static str, &TraceArgs)>) -> anyhow::Result<Option<Export>> {
    let (filter, handle) = reload::Layer::new(audited(&log.filter)?);
    let collector = traces.and_then(|(service, args)| Some((service, args, args.otlp_endpoint.as_deref()?)));
    let Some((service, args, endpoint)) = collector else {
        // A filter of everything costs less than one of the log alone.
        started(tracing_subscriber::registry().with(filter).with(lines(log.format)).try_init(), handle)?;
        return Ok(None);
    };
    let export = Export::start(service, endpoint)?;
    // None of other crates: those that carry the spans away would have theirs carried away too.
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::DEBUG);
    let log = lines(log.format).with_filter(filter);
    started(tracing_subscriber::registry().with(log).with(export.layer().with_filter(ours)).try_init(), handle)?;
    spans::export(args.otlp_sample_ratio);
    Ok(Some(export))
}

fn lines<S: Subscriber + for<'a> LookupSpan<'a>>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync> {
    let coloured = std::io::stderr().is_terminal();
    let escape = match format {
        LogFormat::Pretty => Escape::Text { coloured },
        LogFormat::Json => Escape::Json,
    };
    let lines = fmt::layer().with_writer(PlainStderr(escape));
    match format {
        LogFormat::Pretty => lines.with_ansi(coloured).boxed(),
        // All spans: the innermost one may be a statement, and the outermost one has the id and the trace.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed(),
    }
}

fn started<E: std::fmt::Display>(log: Result<(), E>, filter: Handle<EnvFilter, Registry>) -> anyhow::Result<()> {
    log.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))?;
    let _only_one_log = FILTER.set(filter);
    Ok(())
}

/// The target of what is logged whatever the filter: `off` silences the service, and not that it was silenced.
const AUDIT: &str = "dms::audit";

fn audited(filter: &str) -> anyhow::Result<EnvFilter> {
    let filter = EnvFilter::try_new(filter)?;
    Ok(filter.add_directive(format!("{AUDIT}=info").parse()?))
}

/// Changes what is logged from now on, until the process ends. The log has a line of it before and after, with who asked for it.
pub fn set_filter(filter: &str, peer: &str) -> anyhow::Result<()> {
    let parsed = audited(filter)?;
    let handle = FILTER.get().context("no log was started")?;
    let before = handle.with_current(ToString::to_string)?;
    // As it was parsed: what a caller wrote could be of any form and length.
    let after = parsed.to_string();
    tracing::warn!(target: AUDIT, before, after, peer, "the filter of the log is about to be changed");
    handle.reload(parsed)?;
    tracing::warn!(target: AUDIT, before, after, peer, "the filter of the log was changed");
    Ok(())
}
