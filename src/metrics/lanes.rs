//! Lanes: what waits in front of them, and how large and how long their flushes are.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

const CALLS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0];
const BYTES: [f64; 8] = [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
const SECONDS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0];

/// The kind of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Commits sends.
    Append,
    /// Gives out leases.
    Claim,
    /// Commits acknowledgements.
    Settle,
}

impl Lane {
    /// As metrics and spans name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Claim => "claim",
            Self::Settle => "settle",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLane {
    lane: &'static str,
}

type Histograms = Family<OfLane, Histogram, fn() -> Histogram>;

/// All lanes of a replica, by kind.
#[derive(Debug)]
pub struct Lanes {
    calls: Histograms,
    bytes: Histograms,
    seconds: Histograms,
    waiting_calls: Family<OfLane, Gauge>,
    waiting_bytes: Family<OfLane, Gauge>,
}

impl Lanes {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let lanes = Self {
            calls: Family::new_with_constructor(|| Histogram::new(CALLS)),
            bytes: Family::new_with_constructor(|| Histogram::new(BYTES)),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            waiting_calls: Family::default(),
            waiting_bytes: Family::default(),
        };
        registry.register("lane_flush_calls", "Calls that share one transaction", lanes.calls.clone());
        registry.register_with_unit("lane_flush", "Size of one transaction", Unit::Bytes, lanes.bytes.clone());
        let help = "Time of one transaction, to its commit";
        registry.register_with_unit("lane_flush", help, Unit::Seconds, lanes.seconds.clone());
        registry.register("lane_waiting_calls", "Calls in front of the lanes", lanes.waiting_calls.clone());
        registry.register_with_unit(
            "lane_waiting",
            "Bytes in front of the lanes",
            Unit::Bytes,
            lanes.waiting_bytes.clone(),
        );
        lanes
    }

    /// One transaction was committed, or given up.
    pub fn flushed(&self, lane: Lane, calls: usize, bytes: usize, elapsed: Duration) {
        let of = OfLane { lane: lane.name() };
        self.calls.get_or_create(&of).observe(calls as f64);
        self.bytes.get_or_create(&of).observe(bytes as f64);
        self.seconds.get_or_create(&of).observe(elapsed.as_secs_f64());
    }

    /// What waits now.
    pub fn set_waiting(&self, lane: Lane, calls: usize, bytes: usize) {
        let of = OfLane { lane: lane.name() };
        self.waiting_calls.get_or_create(&of).set(i64::try_from(calls).unwrap_or(i64::MAX));
        self.waiting_bytes.get_or_create(&of).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
