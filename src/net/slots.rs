//! Places that owners share: one owner can take most of them, but never all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

/// Of the places that are left an owner may have this many times as many: alone up to four fifths of all, two greedy ones four
/// ninths each, and there is always a place for another.
const SHARE: usize = 4;

/// So many places.
#[derive(Debug)]
pub(super) struct Slots {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_owner: HashMap<Arc<str>, usize>,
}

/// Why there was no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// None is left.
    ForAll,
    /// The owner has its share.
    ForOwner,
}

impl Slots {
    /// With this many places.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// A place for this owner, until it is dropped.
    pub(super) fn take(self: &Arc<Self>, owner: &str) -> Result<Slot, Full> {
        let mut taken = self.lock();
        let left = self.max.saturating_sub(taken.total);
        let own = taken.by_owner.get_key_value(owner).map(|(owner, own)| (Arc::clone(owner), *own));
        let (owner, own) = own.unwrap_or_else(|| (owner.into(), 0));
        if left == 0 {
            return Err(Full::ForAll);
        }
        if own >= left.saturating_mul(SHARE) {
            return Err(Full::ForOwner);
        }
        taken.total += 1;
        taken.by_owner.insert(Arc::clone(&owner), own + 1);
        drop(taken);
        Ok(Slot { shares: Arc::clone(self), owner })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    shares: Arc<Slots>,
    owner: Arc<str>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        taken.total = taken.total.saturating_sub(1);
        if let Some(own) = taken.by_owner.get_mut(&self.owner) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_owner.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(shares: &Arc<Slots>, owner: &str) -> (Vec<Slot>, Full) {
        let mut held = Vec::new();
        loop {
            match shares.take(owner) {
                Ok(share) => held.push(share),
                Err(full) => return (held, full),
            }
        }
    }

    #[test]
    fn one_owner_never_has_them_all() {
        let shares = Slots::new(100);
        let (greedy, full) = fill(&shares, "a");
        assert_eq!((greedy.len(), full), (80, Full::ForOwner));
        let (other, _) = fill(&shares, "b");
        assert_eq!(other.len(), 16);
        assert_eq!(fill(&shares, "c").0.len(), 4);
        drop((greedy, other));
        let taken = shares.lock();
        assert_eq!((taken.total, taken.by_owner.len()), (0, 0));
    }

    #[test]
    fn the_last_place_is_the_last() {
        let shares = Slots::new(2);
        let _held = [shares.take("a").unwrap(), shares.take("b").unwrap()];
        assert_eq!(shares.take("c").unwrap_err(), Full::ForAll);
    }
}
