//! A request on its way in: what has come of it is reserved, and it must not come too slowly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::{FREE_REQUEST_BYTES, Memory, Owner, Reservation, SMALL_REQUEST_BYTES, Use};
use crate::domain::Result;

/// A request may be behind the least rate by so much.
const GRACE: Duration = Duration::from_secs(10);
/// The least rate. A request that sends nothing is given up after [`GRACE`], one of a megabyte has a minute more.
const BYTES_PER_SECOND_MIN: usize = 16 * 1024;

/// What a request that arrives holds, until it is dropped.
#[derive(Debug)]
pub struct Arrival {
    small: Reservation,
    large: Reservation,
    bytes: AtomicUsize,
    begun: Instant,
}

impl Arrival {
    /// Nothing has come yet.
    pub fn new(memory: &Memory, owner: Option<Owner>) -> Self {
        let [small, large] = [Use::SmallRequests, Use::LargeRequests].map(|of| memory.part(of).reservation(owner));
        Self { small, large, bytes: AtomicUsize::new(0), begun: Instant::now() }
    }

    /// Reserves memory for its headers, which are held as long as what comes behind them.
    ///
    /// # Errors
    /// As [`Self::grow`].
    pub fn begin(&self, headers: &HeaderMap) -> Result<()> {
        self.grow(headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum())
    }

    /// Reserves memory for more of it.
    ///
    /// # Errors
    /// `Overloaded` when there is not enough, or not enough for its owner.
    pub(crate) fn grow(&self, bytes: usize) -> Result<()> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let between = |low: usize, high: usize| (before + bytes).min(high).saturating_sub(before.max(low));
        self.small.grow(between(FREE_REQUEST_BYTES, SMALL_REQUEST_BYTES))?;
        self.large.grow(between(SMALL_REQUEST_BYTES, usize::MAX))
    }

    /// What has come of it is kept by somebody else from now on, or by nobody.
    pub(crate) fn release(&self) {
        self.small.shrink_to(0);
        self.large.shrink_to(0);
    }

    /// When it is given up, if no more than so many bytes have come by then.
    pub fn deadline(&self, arrived: usize) -> Instant {
        let seconds = u32::try_from(arrived / BYTES_PER_SECOND_MIN).unwrap_or(u32::MAX);
        self.begun + GRACE + Duration::from_secs(seconds.into())
    }

    /// The rate in words, for who was slower.
    pub(crate) fn least_rate() -> String {
        let (grace, rate) = (GRACE.as_secs(), BYTES_PER_SECOND_MIN / 1024);
        format!("{grace} s without the least rate of {rate} KiB/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorKind;

    #[test]
    fn small_requests_have_room_when_large_ones_have_none() {
        let memory = Memory::of_gateway(1 << 28).unwrap();
        let peer = |n: u8| Some(Owner::peer([10, 0, 0, n].into()));
        let mut stranger = Vec::new();
        for n in 0..8 {
            stranger.extend(
                (0..500).map(|_| Arrival::new(&memory, peer(n))).take_while(|large| large.grow(1 << 20).is_ok()),
            );
        }
        let refused = Arrival::new(&memory, peer(99)).grow(1 << 20).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        Arrival::new(&memory, peer(99)).grow(SMALL_REQUEST_BYTES).unwrap();
        drop(stranger);
        assert_eq!(memory.part(Use::LargeRequests).reserved() + memory.part(Use::SmallRequests).reserved(), 0);
    }

    #[test]
    fn the_first_bytes_are_part_of_the_call() {
        let memory = Memory::of_gateway(1 << 28).unwrap();
        let arrival = Arrival::new(&memory, None);
        let reserved = || (memory.part(Use::SmallRequests).reserved(), memory.part(Use::LargeRequests).reserved());
        for (more, expected) in [
            (FREE_REQUEST_BYTES, (0, 0)),
            (1, (1, 0)),
            (SMALL_REQUEST_BYTES, (SMALL_REQUEST_BYTES - FREE_REQUEST_BYTES, FREE_REQUEST_BYTES + 1)),
            (5, (SMALL_REQUEST_BYTES - FREE_REQUEST_BYTES, FREE_REQUEST_BYTES + 6)),
        ] {
            arrival.grow(more).unwrap();
            assert_eq!(reserved(), expected);
        }
    }
}
