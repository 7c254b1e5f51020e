//! What the program tells of itself beside metrics: spans to a collector if somebody wants them, and the log.
//!
//! The log is structured lines on standard error, with the request id and the trace of the call they belong to. Never bodies,
//! never tokens.

mod otlp;
mod plain;

use std::fmt::Debug;
use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anyhow::Context as _;
use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

pub use self::otlp::Export;
use self::plain::{Escape, PlainStderr};
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

/// Spans that are sent to a collector.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// The name of the service that they are of.
    pub service: &'static str,
    /// The URL of the collector.
    pub endpoint: String,
    /// Share of calls to trace, unless the caller decides.
    pub(crate) sample_ratio: f64,
}

/// Starts the log, and the export of spans if there is a collector for them. Fails when a log was started before. Needs a runtime.
pub fn init(filter: &str, format: LogFormat, traces: Option<TraceOptions>) -> anyhow::Result<Option<Export>> {
    let (filter, handle) = reload::Layer::new(audited(filter)?);
    let Some(traces) = traces else {
        // A filter of everything costs less than one of the log alone.
        started(tracing_subscriber::registry().with(filter).with(lines(format)).try_init(), handle)?;
        return Ok(None);
    };
    let export = Export::start(traces.service, &traces.endpoint)?;
    // None of other crates: those that carry the spans away would have theirs carried away too.
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::DEBUG);
    let log = lines(format).with_filter(filter);
    started(tracing_subscriber::registry().with(log).with(export.layer().with_filter(ours)).try_init(), handle)?;
    spans::export(traces.sample_ratio);
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
        LogFormat::Pretty if coloured => lines.boxed(),
        // What the coloured form writes, without looking for a style of each field: every call has a span with fields.
        LogFormat::Pretty => lines.with_ansi(false).fmt_fields(debug_fn(write_field).delimited(" ")).boxed(),
        // All spans: the innermost one may be a statement, and the outermost one has the id and the trace.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed(),
    }
}

fn write_field(line: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    match field.name() {
        "message" => write!(line, "{value:?}"),
        name => write!(line, "{name}={value:?}"),
    }
}

fn started<E: std::fmt::Display>(log: Result<(), E>, filter: Handle<EnvFilter, Registry>) -> anyhow::Result<()> {
    log.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))?;
    let _only_one_log = FILTER.set(filter);
    Ok(())
}

/// Longer ones are a mistake, and would be written into the log when they change.
const FILTER_BYTES_MAX: usize = 4096;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Reads a filter. The library takes a bare word for a target, so that a mistyped level would silence everything.
///
/// # Errors
/// What is wrong, and what is allowed.
pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    const FORM: &str = "give error, warn, info, debug, trace or off, and target=level for parts, comma-separated";
    if text.len() > FILTER_BYTES_MAX {
        return Err(format!("{} bytes are more than {FILTER_BYTES_MAX}; {FORM}", text.len()));
    }
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let is_part = |word: &str| word.contains('[') || word.rsplit_once('=').is_some_and(|(_, level)| is_level(level));
    match text.split(',').map(str::trim).find(|word| !is_level(word) && !is_part(word)) {
        Some(word) => Err(format!("{word:?} is not a level; {FORM}")),
        None => EnvFilter::try_new(text).map_err(|error| format!("{error}; {FORM}")),
    }
}

/// The target of what is logged whatever the filter: `off` silences the service, and not that it was silenced.
pub const AUDIT: &str = "dms::audit";

fn audited(filter: &str) -> anyhow::Result<EnvFilter> {
    let filter = parse_filter(filter).map_err(anyhow::Error::msg)?;
    Ok(filter.add_directive(format!("{AUDIT}=info").parse()?))
}

/// Changes what is logged from now on, until the process ends. The log has a line of it before and after, with who asked for it.
pub(crate) fn set_filter(filter: &str, peer: &str) -> anyhow::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_refused() {
        for text in ["info", "OFF", "info,sqlx=warn", "dms::broker=debug, warn", "[call{path=x}]=debug,info"] {
            assert!(parse_filter(text).is_ok(), "{text}");
        }
        for text in ["", ",", "inof", "info,", "5", "dms", "infoo,sqlx=warn", "sqlx=loud"] {
            let refused = parse_filter(text).expect_err(text);
            assert!(refused.ends_with("comma-separated"), "{text}: {refused}");
        }
        assert!(parse_filter(&"dms=info,".repeat(1000)).is_err());
    }
}
