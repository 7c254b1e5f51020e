//! What lanes ask of Postgres as spans, at the level of debugging.

use std::time::Instant;

use tracing::instrument::Instrumented;
use tracing::{Instrument as _, Span};

/// One statement, or one transaction of several.
#[derive(Debug)]
pub(crate) struct Statement {
    span: Span,
    /// Not known when nobody would see it.
    begun: Option<Instant>,
}

impl Statement {
    /// `call` is the call of a function of the store, as it stands in the source.
    pub(crate) fn begin(call: &'static str) -> Self {
        let span = tracing::debug_span!("statement", function = function(call));
        let begun = (!span.is_disabled()).then(Instant::now);
        Self { span, begun }
    }

    /// Runs it in its span.
    pub(crate) fn run<F: Future>(&self, statement: F) -> Instrumented<F> {
        statement.instrument(self.span.clone())
    }

    /// Tells how long it took.
    pub(crate) fn end(self) {
        if let Some(begun) = self.begun {
            let elapsed_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.span.in_scope(|| tracing::debug!(elapsed_us, "statement ended"));
        }
    }
}

/// `segments::append` of `store::log::segments::append(conn, ...)`.
fn function(call: &'static str) -> &'static str {
    let path = call.split_once('(').map_or(call, |(path, _)| path);
    let module = path.rmatch_indices("::").nth(1).map_or(0, |(end, separator)| end + separator.len());
    path.get(module..).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_by_its_function() {
        assert_eq!(function(stringify!(store::log::segments::append(conn, &rest, now))), "segments::append");
        assert_eq!(function("other"), "other");
    }
}
