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

type Seconds = Family<Method, Histogram, fn() -> Histogram>;

/// How many, how they ended, and how long they took.
#[derive(Debug)]
pub struct Calls {
    ended: Family<Outcome, Counter>,
    seconds: Seconds,
    in_flight: Gauge<i64, AtomicI64>,
}

impl Calls {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let seconds: Seconds = Family::new_with_constructor(|| Histogram::new(SECONDS));
        let calls = Self { ended: Family::default(), seconds, in_flight: Gauge::default() };
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

    /// A call of a known method was answered.
    pub fn ended(&self, method: &'static str, code: &'static str, elapsed: Duration) {
        self.ended.get_or_create(&Outcome { method, code }).inc();
        self.seconds.get_or_create(&Method { method }).observe(elapsed.as_secs_f64());
    }

    /// Counts a call as in flight until what is returned is dropped.
    pub fn begun(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }
}

/// A call in flight.
#[derive(Debug)]
pub struct InFlight(Gauge<i64, AtomicI64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
