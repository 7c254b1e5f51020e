//! A bound on bytes, shared by whoever needs some: nobody may take it all, and what is taken comes back when it is dropped.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

use crate::domain::ids::ProjectId;
use crate::domain::{Error, Result};

/// An owner may have this many times what it leaves free: alone four fifths of all, two as busy as can be four ninths each.
/// There is always room for another.
const SHARE: usize = 4;

/// Keyed, so that nobody can choose a name that shares its bytes with somebody else's.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Whose bytes they are, as a number: comparing and keeping it costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner(u64);

impl Owner {
    /// A caller whose credentials were good.
    pub(crate) fn principal(name: &str) -> Self {
        Self::hashed(("principal", name))
    }

    /// A project that a caller may use.
    pub fn project(project: &ProjectId) -> Self {
        Self::hashed(("project", project.as_str()))
    }

    /// An address whose credentials are not known yet. Of IPv6 the network of 64 bits, since a host has all of it.
    pub fn peer(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::hashed(("peer", address.to_bits())),
            IpAddr::V6(address) => Self::hashed(("network", (address.to_bits() >> 64) as u64)),
        }
    }

    fn hashed(owner: impl Hash) -> Self {
        Self(HASHER.hash_one(owner))
    }
}

/// So many bytes for one purpose. Clones share them.
#[derive(Debug, Clone)]
pub struct ByteBudget(Arc<Bounded>);

#[derive(Debug)]
struct Bounded {
    /// What they are for, in a refusal.
    purpose: &'static str,
    max: usize,
    taken: Mutex<Taken>,
    refusals: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    /// Only owners that have some, so there are no more of them than reservations.
    by_owner: HashMap<Owner, usize>,
}

impl ByteBudget {
    /// `purpose` names in a refusal what there is too much of.
    pub fn new(max: usize, purpose: &'static str) -> Self {
        Self(Arc::new(Bounded { purpose, max, taken: Mutex::default(), refusals: AtomicU64::new(0) }))
    }

    /// The most that can be reserved.
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// What is reserved now.
    pub fn reserved(&self) -> usize {
        self.lock().bytes
    }

    /// What is not reserved.
    pub fn free(&self) -> usize {
        self.0.max.saturating_sub(self.reserved())
    }

    /// How often there was not enough.
    pub fn refusals(&self) -> u64 {
        self.0.refusals.load(Ordering::Relaxed)
    }

    /// An empty reservation of this owner; nobody's is bounded by the whole alone.
    pub fn reservation(&self, owner: Option<Owner>) -> Reservation {
        Reservation { budget: self.clone(), owner, bytes: AtomicUsize::new(0) }
    }

    /// Reserves bytes for an owner.
    ///
    /// # Errors
    /// `Overloaded` when so many are not free, or would be more than the owner's share.
    pub(crate) fn reserve(&self, owner: Option<Owner>, bytes: usize) -> Result<Reservation> {
        let reservation = self.reservation(owner);
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, owner: Option<Owner>, bytes: usize) -> Result<()> {
        let mut taken = self.lock();
        if taken.has_room(owner, bytes, self.0.max) {
            taken.add(owner, bytes);
            return Ok(());
        }
        drop(taken);
        Err(self.refused())
    }

    fn refused(&self) -> Error {
        self.0.refusals.fetch_add(1, Ordering::Relaxed);
        Error::overloaded(format!("memory for {} is used up: retry later", self.0.purpose))
    }
}

impl Taken {
    fn has_room(&self, owner: Option<Owner>, bytes: usize, max: usize) -> bool {
        let own = owner.and_then(|owner| self.by_owner.get(&owner)).copied().unwrap_or_default();
        let left = max.saturating_sub(self.bytes).checked_sub(bytes);
        left.is_some_and(|left| owner.is_none() || own + bytes <= left.saturating_mul(SHARE))
    }

    fn add(&mut self, owner: Option<Owner>, bytes: usize) {
        self.bytes += bytes;
        if let Some(owner) = owner {
            *self.by_owner.entry(owner).or_default() += bytes;
        }
    }

    fn give_back(&mut self, owner: Option<Owner>, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        let Some(owner) = owner else { return };
        if let Some(own) = self.by_owner.get_mut(&owner) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.by_owner.remove(&owner);
            }
        }
    }
}

/// Bytes that are reserved until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: ByteBudget,
    owner: Option<Owner>,
    bytes: AtomicUsize,
}

impl Reservation {
    /// What it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reserves more.
    ///
    /// # Errors
    /// `Overloaded`, see [`ByteBudget::reserve`]; it keeps what it had.
    pub(crate) fn grow(&self, bytes: usize) -> Result<()> {
        if bytes > 0 {
            self.budget.take(self.owner, bytes)?;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether it could grow now; reserves nothing.
    ///
    /// # Errors
    /// `Overloaded` when it could not.
    pub(crate) fn could_grow(&self, bytes: usize) -> Result<()> {
        let has_room = self.budget.lock().has_room(self.owner, bytes, self.budget.0.max);
        if has_room { Ok(()) } else { Err(self.budget.refused()) }
    }

    /// Reserves more also when there is none: for what cannot be refused any more.
    pub(crate) fn grow_anyway(&self, bytes: usize) {
        if bytes > 0 {
            self.budget.lock().add(self.owner, bytes);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Gives back all but so many bytes.
    pub(crate) fn shrink_to(&self, bytes: usize) {
        let before = self.bytes.fetch_min(bytes, Ordering::Relaxed);
        if before > bytes {
            self.budget.lock().give_back(self.owner, before - bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorKind;

    fn owner(name: &str) -> Option<Owner> {
        Some(Owner::principal(name))
    }

    #[test]
    fn what_is_reserved_comes_back_when_it_is_dropped() {
        let budget = ByteBudget::new(100, "tests");
        let first = budget.reserve(None, 60).unwrap();
        let second = budget.reserve(None, 40).unwrap();
        let refused = second.grow(1).unwrap_err();
        assert_eq!(
            (refused.kind(), refused.message()),
            (ErrorKind::Overloaded, "memory for tests is used up: retry later")
        );
        assert!(refused.retry_hint().is_some());
        assert_eq!((second.bytes(), budget.free(), budget.refusals()), (40, 0, 1));
        first.shrink_to(50);
        first.shrink_to(70);
        assert_eq!((first.bytes(), budget.free()), (50, 10));
        drop((first, second));
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn an_owner_leaves_room_for_others() {
        let budget = ByteBudget::new(1000, "tests");
        let (greedy, modest) = (budget.reservation(owner("greedy")), budget.reservation(owner("modest")));
        while greedy.grow(1).is_ok() {}
        assert_eq!(greedy.bytes(), 800);
        modest.grow(100).unwrap();
        assert!(greedy.grow(1).is_err());
        // A second reservation is of the same share.
        assert!(budget.reserve(owner("greedy"), 1).is_err());
        budget.reserve(owner("third"), 50).unwrap();
    }

    #[test]
    fn owners_that_have_nothing_are_forgotten() {
        let budget = ByteBudget::new(1000, "tests");
        for name in 0..100 {
            drop(budget.reserve(owner(&name.to_string()), 10).unwrap());
        }
        assert!(budget.lock().by_owner.is_empty());
    }

    #[test]
    fn what_cannot_be_refused_is_counted_beyond_the_bound() {
        let budget = ByteBudget::new(10, "tests");
        let event = budget.reservation(None);
        event.grow_anyway(30);
        assert_eq!((budget.reserved(), budget.free()), (30, 0));
        assert!(budget.reserve(None, 1).is_err());
        drop(event);
        assert_eq!(budget.free(), 10);
    }

    #[test]
    fn a_host_of_ipv6_is_its_network() {
        let peer = |text: &str| Owner::peer(text.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("10.0.0.1"), peer("::ffff:10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }
}
