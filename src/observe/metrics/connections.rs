//! Connections and calls that the service ended by itself, by reason.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Why a connection or a call was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Too many connections of unknown callers: the oldest of the largest crowd.
    Crowd,
    /// The same of calls.
    CallCrowd,
    /// No good credentials in time.
    Unknown,
    /// An answer that was not read.
    Unread,
    /// No first word, or no TLS handshake, in time.
    Silent,
    /// The headers of a request did not end in time.
    SlowHead,
    /// Unfinished headers of all connections together were too large.
    LargeHead,
}

impl Cut {
    const ALL: [Self; 7] =
        [Self::Crowd, Self::CallCrowd, Self::Unknown, Self::Unread, Self::Silent, Self::SlowHead, Self::LargeHead];

    fn name(self) -> &'static str {
        match self {
            Self::Crowd => "crowd",
            Self::CallCrowd => "call_crowd",
            Self::Unknown => "no_credentials",
            Self::Unread => "unread",
            Self::Silent => "silent",
            Self::SlowHead => "slow_head",
            Self::LargeHead => "large_head",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

/// How many were ended. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Connections(Family<Why, Counter>);

impl Connections {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let connections = Self::default();
        // All of them from the beginning: a series that begins with its first event has no rate then.
        Cut::ALL.into_iter().for_each(|cut| drop(connections.0.get_or_create(&Why { why: cut.name() })));
        let help =
            "Connections, and calls of unknown callers, that were ended here because of what their peer did, by reason";
        registry.register("connections_cut", help, connections.0.clone());
        connections
    }

    /// One was ended.
    pub fn cut(&self, reason: Cut) {
        self.0.get_or_create(&Why { why: reason.name() }).inc();
    }

    /// How many were, for this reason.
    pub fn count(&self, reason: Cut) -> u64 {
        self.0.get_or_create(&Why { why: reason.name() }).get()
    }
}
