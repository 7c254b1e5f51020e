//! Protobuf to domain and back: the only field-by-field code, and the place where requests are checked, once.

pub(super) mod messages;
mod options;
pub(super) mod queues;
pub(super) mod tags;

use prost_types::Timestamp as PbTimestamp;

use crate::domain::clock::Timestamp;

fn timestamp(instant: Timestamp) -> Option<PbTimestamp> {
    let micros = instant.0.rem_euclid(Timestamp::MICROS_PER_SECOND);
    // Less than a second of nanoseconds fits.
    let nanos = i32::try_from(micros * 1000).unwrap_or_default();
    Some(PbTimestamp { seconds: instant.0.div_euclid(Timestamp::MICROS_PER_SECOND), nanos })
}

/// A length for the wire; every list of ours is far shorter than what fits.
fn count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_have_positive_nanos() {
        assert_eq!(timestamp(Timestamp(-1)), Some(PbTimestamp { seconds: -1, nanos: 999_999_000 }));
        assert_eq!(timestamp(Timestamp(1_500_000)), Some(PbTimestamp { seconds: 1, nanos: 500_000_000 }));
    }
}
