//! Subscriptions whose claims were refused or met a locked row: they rest between attempts, and are claimed from apart from the
//! others, so that these neither wait for them nor fail with them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::domain::ids::SubscriptionKey;

/// The first rest; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// One that has been well for this long is claimed from with the others again.
const SUSPECTED: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Suspect {
    failed_at: Instant,
    rest: Duration,
}

impl Suspect {
    fn rests_until(&self) -> Instant {
        self.failed_at + self.rest
    }
}

/// The suspects of one lane; mostly none.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    by_key: BTreeMap<SubscriptionKey, Suspect>,
    /// Those whose rest has to be ended.
    resting: BTreeMap<SubscriptionKey, Instant>,
}

impl Suspects {
    /// A claim of this subscription has failed: it rests.
    pub(super) fn failed(&mut self, key: SubscriptionKey, now: Instant) {
        let rest = self.by_key.get(&key).map_or(PAUSE, |known| (known.rest * 2).min(PAUSE_MAX));
        let suspect = Suspect { failed_at: now, rest };
        self.resting.insert(key, suspect.rests_until());
        if self.by_key.insert(key, suspect).is_none() {
            let (stream, subscription) = (key.stream.0, key.subscription.0);
            tracing::warn!(stream, subscription, "locked or refused by the database: claimed from apart for now");
        }
    }

    /// Whether it is to be claimed from apart.
    pub(super) fn has(&self, key: SubscriptionKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Whether it is left alone for now.
    pub(super) fn is_resting(&self, key: SubscriptionKey) -> bool {
        self.resting.contains_key(&key)
    }

    /// When the next rest ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.resting.values().min().copied()
    }

    /// Those that have rested enough; those that have been well for long are suspected no more.
    pub(super) fn rested(&mut self, now: Instant) -> Vec<SubscriptionKey> {
        if self.by_key.is_empty() {
            return Vec::new();
        }
        self.by_key.retain(|_, suspect| now < suspect.failed_at + SUSPECTED);
        let rested: Vec<_> = self.resting.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
        self.resting.retain(|_, until| *until > now);
        rested
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{StreamId, SubscriptionId};

    #[test]
    fn rests_grow_and_a_suspect_is_forgotten() {
        let key = SubscriptionKey { stream: StreamId(1), subscription: SubscriptionId(1) };
        let (mut suspects, begun) = (Suspects::default(), Instant::now());
        assert_eq!((suspects.has(key), suspects.next_end()), (false, None));
        suspects.failed(key, begun);
        assert!(suspects.has(key) && suspects.is_resting(key) && suspects.rested(begun).is_empty());
        assert_eq!(suspects.next_end(), Some(begun + PAUSE));
        assert_eq!(suspects.rested(begun + PAUSE), [key]);
        assert!(suspects.has(key) && !suspects.is_resting(key));
        (0..10).for_each(|_| suspects.failed(key, begun));
        assert_eq!(suspects.next_end(), Some(begun + PAUSE_MAX));
        assert_eq!(suspects.rested(begun + SUSPECTED), [key]);
        assert!(!suspects.has(key));
    }
}
