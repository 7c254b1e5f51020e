//! How this replica's clock does.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Which way Postgres's clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockStep {
    /// It has left time out.
    Ahead,
    /// It shows some time twice.
    Back,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

impl From<ClockStep> for Direction {
    fn from(step: ClockStep) -> Self {
        let direction = match step {
            ClockStep::Ahead => "ahead",
            ClockStep::Back => "back",
        };
        Self { direction }
    }
}

/// The clock that leases and delays go by: Postgres's, carried on by the machine's own.
#[derive(Debug, Default)]
pub struct Clock {
    offset: Gauge<f64, AtomicU64>,
    error: Gauge<f64, AtomicU64>,
    steps: Family<Direction, Counter>,
}

impl Clock {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let clock = Self::default();
        let help =
            "How far the clock was ahead of Postgres's when it was last set by it, a few seconds after the time before";
        registry.register_with_unit("clock_offset", help, Unit::Seconds, clock.offset.clone());
        let help = "How far the clock may be off by now: round trip, drift since the last good reading, standing still";
        registry.register_with_unit("clock_error", help, Unit::Seconds, clock.error.clone());
        registry.register("clock_steps", "Steps of Postgres's clock, as they were noticed", clock.steps.clone());
        for step in [ClockStep::Ahead, ClockStep::Back] {
            drop(clock.steps.get_or_create(&step.into()));
        }
        clock
    }

    /// The clock was ahead by so many microseconds.
    pub(crate) fn set_offset(&self, micros: i64) {
        #[expect(clippy::cast_precision_loss, reason = "for people: seconds, at most days")]
        self.offset.set(micros as f64 / 1e6);
    }

    /// How far it may be off.
    pub(crate) fn set_error(&self, error: Duration) {
        self.error.set(error.as_secs_f64());
    }

    /// Postgres's clock was set.
    pub(crate) fn stepped(&self, step: ClockStep) {
        self.steps.get_or_create(&step.into()).inc();
    }
}
