//! Connections and calls as they come from the network, each within bounds, before anybody asks who calls.
//!
//! | what | who shares it | when there are too many |
//! |---|---|---|
//! | connections and calls of unknown callers | addresses | the oldest of the address with most of them ends ([`newcomers`]) |
//! | connections and calls of known callers | principals | a principal has four times what is left ([`shares`]); beyond it is refused |
//!
//! A caller is unknown until its credentials were found good; then [`Call::belongs_to`] says whose the call is.

mod answer;
mod call;
pub mod compression;
mod connection;
mod door;
mod ending;
mod greeting;
mod heads;
mod listener;
mod newcomers;
pub(crate) mod readiness;
mod request;
mod serve;
mod signpost;
mod slots;
mod sweep;
#[cfg(test)]
mod tests;
pub mod tls;

pub use self::call::{Call, Calls};
pub(crate) use self::door::health_checks;
pub use self::door::{Door, OpenDoor};
pub(crate) use self::listener::IDLE_DEFAULT;
pub use self::listener::{Audience, Listener};
pub use self::signpost::Ports;
use crate::memory::Memory;

/// One of so many connections may be that of a caller of one listener who is not known yet.
const UNKNOWN_SHARE: usize = 10;
/// Those of callers: gRPC and REST.
const LISTENERS: usize = 2;

/// How many connections and calls there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetLimits {
    /// Connections of callers, on all listeners of this process.
    pub connections_max: usize,
    /// Calls of known callers in flight in this process, until their answers are sent.
    pub calls_max: usize,
}

impl NetLimits {
    /// Fewer, when the memory does not suffice for so many.
    #[must_use]
    pub fn within(self, memory: &Memory) -> Self {
        let connections_max = self.connections_max.min(memory.connections_max());
        Self { connections_max, calls_max: self.calls_max.min(memory.calls_max()) }
    }

    /// Connections of one listener whose callers are not known yet.
    pub(crate) fn unknown_connections_max(self) -> usize {
        self.connections_max / UNKNOWN_SHARE
    }

    /// Connections of known callers. They share them on all listeners, so that one project may have most of its callers on REST.
    pub(crate) fn known_connections_max(self) -> usize {
        self.connections_max - LISTENERS * self.unknown_connections_max()
    }
}

impl Default for NetLimits {
    fn default() -> Self {
        Self { connections_max: 10_000, calls_max: 20_000 }
    }
}
