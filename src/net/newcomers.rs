//! Those of whom only the address is known. There is always a place for one more: when all are taken, the oldest of the address
//! that has most of them has to go. A caller with good credentials is a newcomer for an instant; an attacker has to stay.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use tokio::sync::Notify;

/// So many places.
#[derive(Debug)]
pub(super) struct Newcomers {
    max: usize,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    total: usize,
    arrived: u64,
    /// In order of arrival; each is told when it has to go.
    by_address: HashMap<IpAddr, BTreeMap<u64, Arc<Notify>>>,
}

impl Newcomers {
    /// With this many places.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), present: Mutex::default() })
    }

    /// A place, until it is dropped or `must_go` is notified. The second value is whether another one had to go for it.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, must_go: Arc<Notify>) -> (Newcomer, bool) {
        let address = network_of(address);
        let mut present = self.lock();
        let crowded = present.total >= self.max && present.send_away_the_oldest();
        present.arrived += 1;
        present.total += 1;
        let number = present.arrived;
        present.by_address.entry(address).or_default().insert(number, must_go);
        drop(present);
        (Newcomer { newcomers: Arc::clone(self), address, number }, crowded)
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn send_away_the_oldest(&mut self) -> bool {
        let crowd = self.by_address.iter().max_by_key(|(_, present)| present.len());
        let Some((address, number)) = crowd.and_then(|(address, present)| Some((*address, *present.keys().next()?)))
        else {
            return false;
        };
        if let Some(must_go) = self.remove(address, number) {
            must_go.notify_one();
        }
        true
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<Arc<Notify>> {
        let present = self.by_address.get_mut(&address)?;
        let removed = present.remove(&number)?;
        self.total -= 1;
        if present.is_empty() {
            self.by_address.remove(&address);
        }
        Some(removed)
    }
}

/// The network that one owner has: of IPv6, 64 bits.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Newcomer {
    newcomers: Arc<Newcomers>,
    address: IpAddr,
    number: u64,
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.newcomers.lock().remove(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(newcomers: &Arc<Newcomers>, address: &str) -> (Newcomer, Arc<Notify>) {
        let must_go = Arc::new(Notify::new());
        (newcomers.enter(address.parse().unwrap(), Arc::clone(&must_go)).0, must_go)
    }

    async fn has_to_go(must_go: &Notify) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(1), must_go.notified()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_the_largest_crowd_has_to_go() {
        let newcomers = Newcomers::new(4);
        let lone = enter(&newcomers, "10.0.0.1");
        let crowd = [enter(&newcomers, "10.0.0.2"), enter(&newcomers, "10.0.0.2"), enter(&newcomers, "10.0.0.2")];
        let other = enter(&newcomers, "10.0.0.3");
        assert!(has_to_go(&crowd[0].1).await);
        let again = enter(&newcomers, "10.0.0.2");
        assert!(has_to_go(&crowd[1].1).await);
        for (_, must_go) in [&lone, &other, &crowd[2], &again] {
            assert!(!has_to_go(must_go).await);
        }
        drop((lone, crowd, other, again));
        let present = newcomers.lock();
        assert_eq!((present.total, present.by_address.len()), (0, 0));
    }

    #[test]
    fn neighbours_of_ipv6_are_one_and_of_ipv4_are_not() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("10.0.0.1", "10.0.0.2", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
        ] {
            assert_eq!(network_of(one.parse().unwrap()) == network_of(other.parse().unwrap()), same, "{one} {other}");
        }
    }
}
