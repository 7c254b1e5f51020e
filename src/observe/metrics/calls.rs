//! Calls of the API, gRPC and REST alike.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// From a lone call in memory to the longest poll.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    method: &'static str,
    code: &'static str,
}

/// Codes of failures that are not the caller's.
const FAILURES: [&str; 4] = ["DATA_LOSS", "INTERNAL", "UNAVAILABLE", "UNKNOWN"];

/// What a call met that was told to come again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too much waits in front of a lane.
    Lane,
    /// The replica has too many calls in flight.
    InFlight,
    /// The project is ahead of its rate.
    Rate,
    /// The project has its share of the calls in flight.
    Share,
    /// The memory for what it needs is used up, or its owner has its share.
    Memory,
}

impl Refusal {
    const ALL: [Self; 5] = [Self::Lane, Self::InFlight, Self::Rate, Self::Share, Self::Memory];

    fn name(self) -> &'static str {
        match self {
            Self::Lane => "lane",
            Self::InFlight => "in_flight",
            Self::Rate => "rate",
            Self::Share => "share",
            Self::Memory => "memory",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

type Seconds = Family<Method, Histogram, fn() -> Histogram>;

/// How many, how they ended, and how long they took.
#[derive(Debug)]
pub struct Calls {
    ended: Family<Outcome, Counter>,
    seconds: Seconds,
    in_flight: Gauge<i64, AtomicI64>,
    refused: [Counter; Refusal::ALL.len()],
}

impl Calls {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let seconds: Seconds = Family::new_with_constructor(|| Histogram::new(SECONDS));
        let refused = refusals(registry);
        let calls = Self { ended: Family::default(), seconds, in_flight: Gauge::default(), refused };
        registry.register("calls", "Calls answered, by method and gRPC code", calls.ended.clone());
        let help = "Time from a call's headers to its answer, long polls included";
        registry.register_with_unit("call", help, Unit::Seconds, calls.seconds.clone());
        registry.register(
            "calls_in_flight",
            "Calls that are not answered yet, long polls included",
            calls.in_flight.clone(),
        );
        calls
    }

    /// Shows failures of these methods as 0: of a series that begins with 1 Prometheus does not see the first event.
    pub fn expect(&self, methods: impl Iterator<Item = &'static str>) {
        for method in methods {
            for code in FAILURES {
                drop(self.ended.get_or_create(&Outcome { method, code }));
            }
        }
    }

    /// A call was told to come again later.
    pub fn refused(&self, why: Refusal) {
        self.refused[why as usize].inc();
    }

    /// A call of a known method was answered.
    pub fn ended(&self, method: &'static str, code: &'static str, elapsed: Duration) {
        self.ended.get_or_create(&Outcome { method, code }).inc();
        self.seconds.get_or_create(&Method { method }).observe(elapsed.as_secs_f64());
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight.get()).unwrap_or(0)
    }

    /// Counts a call as in flight until what is returned is dropped.
    pub fn begun(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }
}

fn refusals(registry: &mut Registry) -> [Counter; Refusal::ALL.len()] {
    let family: Family<Why, Counter> = Family::default();
    registry.register("calls_refused", "Calls told to come again later, by the bound that they met", family.clone());
    Refusal::ALL.map(|why| family.get_or_create_owned(&Why { why: why.name() }))
}

/// A call in flight.
#[derive(Debug)]
pub struct InFlight(Gauge<i64, AtomicI64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
