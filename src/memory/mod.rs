//! The memory of a process: one budget, divided into fixed parts, one for each user of memory.
//!
//! The parts are fixed so that no user of memory takes from another: bodies of strangers, however many, leave consumers the bytes
//! of their answers. Within a part owners have shares, see [`ByteBudget`].

mod answer;
mod arrival;
mod byte_budget;
mod held_body;

pub use self::answer::{Answer, Relayed};
pub use self::arrival::Arrival;
pub use self::byte_budget::{ByteBudget, Owner, Reservation};
pub(crate) use self::held_body::holding;

use crate::domain::{Error, Result};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The least that a process can work with.
pub const MIN: usize = 128 * MIB;
/// What the program takes by itself.
const PROGRAM: usize = 32 * MIB;

/// What an open call costs beside the bytes of its request and of its answer: the stream, its task, its headers, a parked consumer.
pub(crate) const CALL_BYTES: usize = 14 * KIB;
/// What an open connection costs beside its calls: its task, the buffers of HTTP, what its last headers leave behind. Measured: 37 KiB
/// idle, 49 KiB behind a request with headers of 60 KB, which few have.
pub(crate) const CONNECTION_BYTES: usize = 40 * KIB;
/// The first bytes of a request, its headers included, that are part of what a call costs.
pub(crate) const FREE_REQUEST_BYTES: usize = KIB;
/// The first bytes of each request come out of a part of their own: large requests of others do not keep small ones out.
pub(crate) const SMALL_REQUEST_BYTES: usize = 64 * KIB;

/// Who uses memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Open calls, each at a fixed cost.
    Calls,
    /// Open connections, each at a fixed cost.
    Connections,
    /// The first [`SMALL_REQUEST_BYTES`] of requests that arrive, with their headers.
    SmallRequests,
    /// What is beyond them.
    LargeRequests,
    /// Calls that wait in front of a lane.
    Lanes,
    /// Rounds of claims: segments read, and kept alive by the messages found in them.
    Rounds,
    /// Answers, until they are sent or given up.
    Answers,
}

impl Use {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Calls,
        Self::Connections,
        Self::SmallRequests,
        Self::LargeRequests,
        Self::Lanes,
        Self::Rounds,
        Self::Answers,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Connections => "connections",
            Self::SmallRequests => "small_requests",
            Self::LargeRequests => "large_requests",
            Self::Lanes => "lanes",
            Self::Rounds => "rounds",
            Self::Answers => "answers",
        }
    }

    /// As a refusal names it.
    fn purpose(self) -> &'static str {
        match self {
            Self::Calls => "open calls",
            Self::Connections => "connections",
            Self::SmallRequests => "requests that arrive",
            Self::LargeRequests => "large requests that arrive",
            Self::Lanes => "calls that wait",
            Self::Rounds => "reading messages",
            Self::Answers => "answers",
        }
    }
}

/// Hundredths of what is to be divided, in the order of [`Use::ALL`].
type Division = [usize; Use::ALL.len()];
const SERVICE: Division = [26, 26, 7, 10, 12, 7, 12];
/// A gateway of its own has neither lanes nor rounds. Callers of HTTP/1 need a connection for each call.
const GATEWAY: Division = [25, 25, 10, 18, 0, 0, 22];

/// The parts of a budget. Clones share them.
#[derive(Debug, Clone)]
pub struct Memory {
    max: usize,
    parts: [ByteBudget; Use::ALL.len()],
}

impl Memory {
    /// The budget of a service that keeps so much for other purposes: its cache, and the flushes in work.
    ///
    /// # Errors
    /// `Internal` when too little is left to divide.
    pub(crate) fn of_service(max: usize, set_aside: usize) -> Result<Self> {
        Self::divided(max, set_aside, SERVICE)
    }

    /// The budget of a gateway of its own.
    ///
    /// # Errors
    /// `Internal` when it is too small.
    pub fn of_gateway(max: usize) -> Result<Self> {
        Self::divided(max, 0, GATEWAY)
    }

    fn divided(max: usize, set_aside: usize, division: Division) -> Result<Self> {
        let needed = PROGRAM + set_aside + MIN / 2;
        if max < MIN || max < needed {
            let needed = needed.max(MIN).div_ceil(MIB);
            let message = format!(
                "--memory-max: {} MiB is too little: with this cache and these lanes, give at least {needed} MiB",
                max / MIB
            );
            return Err(Error::internal(message));
        }
        let left = max - PROGRAM - set_aside;
        let part = |index: usize| ByteBudget::new(left / 100 * division[index], Use::ALL[index].purpose());
        Ok(Self { max, parts: std::array::from_fn(part) })
    }

    /// All of it.
    pub fn max(&self) -> usize {
        self.max
    }

    /// The part for one use.
    pub fn part(&self, of: Use) -> &ByteBudget {
        &self.parts[of as usize]
    }

    /// Connections that can be open at a time.
    pub fn connections_max(&self) -> usize {
        self.part(Use::Connections).max() / CONNECTION_BYTES
    }

    /// Calls that can be open at a time.
    pub fn calls_max(&self) -> usize {
        self.part(Use::Calls).max() / CALL_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_fit_into_the_whole() {
        for division in [SERVICE, GATEWAY] {
            assert_eq!(division.iter().sum::<usize>(), 100);
        }
        let memory = Memory::of_service(1024 * MIB, 100 * MIB).unwrap();
        let parts: usize = Use::ALL.iter().map(|of| memory.part(*of).max()).sum();
        assert!(parts <= (1024 - 100 - 32) * MIB && parts > 890 * MIB, "{parts}");
    }

    #[test]
    fn too_little_is_said_with_what_is_needed() {
        let error = Memory::of_service(128 * MIB, 200 * MIB).unwrap_err();
        assert!(
            error.message().contains("--memory-max: 128 MiB is too little") && error.message().contains("296 MiB"),
            "{error}"
        );
        Memory::of_service(296 * MIB, 200 * MIB).unwrap();
        Memory::of_gateway(MIN).unwrap();
        Memory::of_gateway(MIN - 1).unwrap_err();
    }
}
