//! What has happened to a stream since its claim lane last looked, in one item.

use std::collections::BTreeSet;

use crate::store::subscriptions::leases::LeaseKey;

/// Batches remembered one by one; of more, the subscriptions' rows tell.
const ENDED_LEASES_MAX: usize = 64;

/// What a claim lane has to know of a stream.
#[derive(Debug, Default)]
pub(crate) struct StreamNews {
    /// Where it ends now, if it has grown.
    pub(super) tail: Option<i64>,
    /// Its subscriptions have messages to be redelivered, their batches in flight have ended, or they are gone.
    pub(super) changed: bool,
    /// Whole batches of FIFO subscriptions that were acknowledged here.
    pub(super) ended_leases: BTreeSet<LeaseKey>,
}

impl StreamNews {
    /// It has grown to this offset.
    pub(crate) fn grown_to(tail: i64) -> Self {
        Self { tail: Some(tail), ..Self::default() }
    }

    /// Its subscriptions have to be read again.
    pub(crate) fn changed() -> Self {
        Self { changed: true, ..Self::default() }
    }

    /// A whole batch of a FIFO subscription was acknowledged here.
    pub(crate) fn lease_ended(lease: LeaseKey) -> Self {
        Self { ended_leases: BTreeSet::from([lease]), ..Self::default() }
    }

    /// Adds what came later.
    pub(super) fn merge(&mut self, newer: Self) {
        self.tail = self.tail.max(newer.tail);
        self.ended_leases.extend(newer.ended_leases);
        self.changed |= newer.changed || self.ended_leases.len() > ENDED_LEASES_MAX;
        if self.changed {
            self.ended_leases.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::{LeaseId, StreamId, SubscriptionId, SubscriptionKey};

    fn lease_ended(lease: u128) -> StreamNews {
        let subscription = SubscriptionKey { stream: StreamId(1), subscription: SubscriptionId(1) };
        StreamNews::lease_ended(LeaseKey { subscription, id: LeaseId(Uuid::from_u128(lease)) })
    }

    #[test]
    fn the_furthest_end_counts_and_every_batch() {
        let mut news = lease_ended(1);
        for newer in [StreamNews::grown_to(5), lease_ended(2), StreamNews::grown_to(4)] {
            news.merge(newer);
        }
        assert_eq!((news.tail, news.changed, news.ended_leases.len()), (Some(5), false, 2));
        news.merge(StreamNews::changed());
        assert_eq!((news.tail, news.changed, news.ended_leases.len()), (Some(5), true, 0));
    }

    #[test]
    fn too_many_batches_have_the_rows_read_again() {
        let mut news = StreamNews::default();
        (0..1000).for_each(|lease| news.merge(lease_ended(lease)));
        assert!(news.changed && news.ended_leases.is_empty());
    }
}
