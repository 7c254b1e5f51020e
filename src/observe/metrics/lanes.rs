//! Lanes: what waits in front of them, and how large and how long their flushes are.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
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
    const ALL: [Self; 3] = [Self::Append, Self::Claim, Self::Settle];

    /// As metrics, spans and the log call it.
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

impl From<Lane> for OfLane {
    fn from(lane: Lane) -> Self {
        Self { lane: lane.name() }
    }
}

type Gauges = Family<OfLane, Gauge>;
type Histograms = Family<OfLane, Histogram, fn() -> Histogram>;

/// All lanes of a replica, by kind.
#[derive(Debug)]
pub struct Lanes {
    calls: Histograms,
    bytes: Histograms,
    seconds: Histograms,
    waiting_calls: Gauges,
    waiting_bytes: Gauges,
    fullest_calls: Gauges,
    fullest_bytes: Gauges,
    limit_calls: Gauges,
    limit_bytes: Gauges,
    panics: [Counter; Lane::ALL.len()],
}

impl Lanes {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let lanes = Self {
            calls: Family::new_with_constructor(|| Histogram::new(CALLS)),
            bytes: Family::new_with_constructor(|| Histogram::new(BYTES)),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            waiting_calls: Gauges::default(),
            waiting_bytes: Gauges::default(),
            fullest_calls: Gauges::default(),
            fullest_bytes: Gauges::default(),
            limit_calls: Gauges::default(),
            limit_bytes: Gauges::default(),
            panics: panics(registry),
        };
        lanes.register_histograms(registry);
        lanes.register_gauges(registry);
        lanes
    }

    fn register_histograms(&self, registry: &mut Registry) {
        registry.register("lane_flush_calls", "Calls that share one transaction", self.calls.clone());
        registry.register_with_unit("lane_flush", "Size of one transaction", Unit::Bytes, self.bytes.clone());
        let help = "Time of one transaction, to its commit";
        registry.register_with_unit("lane_flush", help, Unit::Seconds, self.seconds.clone());
    }

    fn register_gauges(&self, registry: &mut Registry) {
        for (name, help, metric) in [
            ("lane_waiting_calls", "Calls in front of the lanes", &self.waiting_calls),
            ("lane_fullest_calls", "Calls in front of the lane that has the most", &self.fullest_calls),
            ("lane_limit_calls", "Calls that may wait in front of one lane", &self.limit_calls),
        ] {
            registry.register(name, help, metric.clone());
        }
        for (name, help, metric) in [
            ("lane_waiting", "Bytes in front of the lanes", &self.waiting_bytes),
            ("lane_fullest", "Bytes in front of the lane that has the most", &self.fullest_bytes),
            ("lane_limit", "Bytes that may wait in front of one lane", &self.limit_bytes),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
        }
    }

    /// One transaction was committed, or given up.
    pub(crate) fn flushed(&self, lane: Lane, calls: usize, bytes: usize, elapsed: Duration) {
        let of = OfLane::from(lane);
        self.calls.get_or_create(&of).observe(calls as f64);
        self.bytes.get_or_create(&of).observe(bytes as f64);
        self.seconds.get_or_create(&of).observe(elapsed.as_secs_f64());
    }

    /// What may wait in front of each lane.
    pub(crate) fn set_limits(&self, calls: usize, bytes: usize) {
        for lane in Lane::ALL {
            set(&self.limit_calls, lane, calls);
            set(&self.limit_bytes, lane, bytes);
        }
    }

    /// What waits now in front of each lane of a kind: calls and bytes.
    pub(crate) fn set_waiting(&self, lane: Lane, waiting: impl Iterator<Item = (usize, usize)>) {
        let (mut all, mut fullest) = ((0, 0), (0, 0));
        for (calls, bytes) in waiting {
            all = (all.0 + calls, all.1 + bytes);
            fullest = (calls.max(fullest.0), bytes.max(fullest.1));
        }
        set(&self.waiting_calls, lane, all.0);
        set(&self.waiting_bytes, lane, all.1);
        set(&self.fullest_calls, lane, fullest.0);
        set(&self.fullest_bytes, lane, fullest.1);
    }

    /// A lane has panicked.
    pub(crate) fn panicked(&self, lane: Lane) {
        self.panics[lane as usize].inc();
    }
}

fn set(gauges: &Gauges, lane: Lane, value: usize) {
    gauges.get_or_create(&lane.into()).set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn panics(registry: &mut Registry) -> [Counter; Lane::ALL.len()] {
    let family: Family<OfLane, Counter> = Family::default();
    registry.register("lane_panics", "Lanes that have panicked and were started again", family.clone());
    Lane::ALL.map(|lane| family.get_or_create_owned(&lane.into()))
}
