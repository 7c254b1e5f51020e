//! Identifiers, each its own type.

use std::fmt;

use uuid::Uuid;

use super::clock::Timestamp;
use super::error::{Error, ErrorKind, Result};
use super::limits::PROJECT_ID_CHARS;
use super::text;

/// A project: the tenant that owns queues. 1-64 characters of `A-Z a-z 0-9 _ -` (DMS.10240005).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(String);

impl ProjectId {
    /// Checks the form.
    pub fn parse(value: &str) -> Result<Self> {
        if !PROJECT_ID_CHARS.contains(&value.len()) || !text::is_plain(value) {
            let allowed = "1-64 characters of A-Z a-z 0-9 _ -";
            return Err(Error::field(ErrorKind::ProjectIdInvalid, "project_id", value, allowed));
        }
        Ok(Self(value.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hyphenated(value: &str) -> Option<Uuid> {
    // Only the form that the service generates: 36 characters with hyphens.
    (value.len() == 36).then(|| Uuid::try_parse(value).ok()).flatten()
}

/// A queue: a UUID (DMS.10240015).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub Uuid);

impl QueueId {
    /// Checks the form.
    pub fn parse(value: &str) -> Result<Self> {
        hyphenated(value)
            .map(Self)
            .ok_or_else(|| Error::field(ErrorKind::QueueIdInvalid, "queue_id", value, "a UUID of 36 characters"))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A consumer group: `g-` and a UUID (DMS.10240016).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub Uuid);

impl GroupId {
    /// Checks the form.
    pub fn parse(value: &str) -> Result<Self> {
        value
            .strip_prefix("g-")
            .and_then(hyphenated)
            .map(Self)
            .ok_or_else(|| Error::field(ErrorKind::GroupIdInvalid, "group_id", value, "'g-' and a UUID, 38 characters"))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g-{}", self.0)
    }
}

/// An append-only log of messages: the normal messages of a queue, or the dead letters of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub i64);

/// One subscription of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub i64);

/// A subscription on its stream: the key of everything hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey {
    /// The stream.
    pub stream: StreamId,
    /// The subscription.
    pub subscription: SubscriptionId,
}

/// One delivered batch; random, so that a handler of an older delivery never fits a newer one.
///
/// The last six bytes are when the lease was to end when it was granted: when its row is gone, that still tells late acknowledgements
/// from repeated ones. They are the last ones, so that ids stay as evenly spread over their index as random ones are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub Uuid);

/// Marks the ids that hold the end of their lease; those of earlier versions of the service are wholly random (4).
const LEASE_ID_VERSION: usize = 8;
/// Where the end of the lease begins in an id: milliseconds since 1970, big-endian.
const LEASE_END_AT: usize = 10;

impl LeaseId {
    /// A new one, of a lease that is to end at this time.
    pub(crate) fn ending(at: Timestamp) -> Self {
        let mut bytes = Uuid::new_v4().into_bytes();
        let [_, _, millis @ ..] = at.as_millis().to_be_bytes();
        bytes[LEASE_END_AT..].copy_from_slice(&millis);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// When the lease was to end, rounded down to milliseconds.
    pub(crate) fn ends_at(self) -> Option<Timestamp> {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&self.0.as_bytes()[LEASE_END_AT..]);
        let known = self.0.get_version_num() == LEASE_ID_VERSION;
        known.then(|| Timestamp(i64::from_be_bytes(millis).saturating_mul(1000)))
    }
}

/// A message: a time-ordered UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub Uuid);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_id_tells_when_its_lease_was_to_end() {
        for micros in [0, 1_764_273_407_123_456, 4_102_444_800_000_000] {
            let (id, other) = (LeaseId::ending(Timestamp(micros)), LeaseId::ending(Timestamp(micros)));
            assert_eq!(id.ends_at(), Some(Timestamp(micros / 1000 * 1000)));
            assert_ne!(id, other, "random all the same");
        }
        assert_eq!(LeaseId(Uuid::new_v4()).ends_at(), None, "of a version before");
    }
}
