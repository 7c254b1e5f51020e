//! What waits in front of a lane, apart for each project, taken in turn: however much one project sends, the next flush has
//! something of every other.

use std::collections::VecDeque;

use foldhash::HashMap;

use crate::domain::ids::ProjectId;

/// Whose an item is: a project's, or the service's own.
pub(crate) type Owner = Option<ProjectId>;

/// Of what is left of a limit, a project may have this many times as much. One project alone may take four fifths of the
/// limit, two as busy as can be four ninths each: there is always room for another.
const SHARE: usize = 4;

/// Items of one owner, in order of arrival, each with its bytes.
#[derive(Debug)]
struct OwnerQueue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

/// Items of all owners.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    shares: HashMap<Owner, OwnerQueue<T>>,
    /// Owners that have items, the next one first.
    turns: VecDeque<Owner>,
    len: usize,
    bytes: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { shares: HashMap::default(), turns: VecDeque::new(), len: 0, bytes: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Items in all, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.len, self.bytes)
    }

    /// Projects that have items.
    pub(crate) fn projects(&self) -> usize {
        self.shares.len() - usize::from(self.shares.contains_key(&None))
    }

    /// Whether one more item of this owner fits within its share of the limits. What the service has itself does not count.
    pub(crate) fn has_room(&self, owner: &Owner, bytes: usize, items_max: usize, bytes_max: usize) -> bool {
        let (own_items, own_bytes) = self.shares.get(owner).map_or((0, 0), |share| (share.items.len(), share.bytes));
        let (service_items, service_bytes) =
            self.shares.get(&None).map_or((0, 0), |share| (share.items.len(), share.bytes));
        let items_left = items_max.saturating_sub(self.len - service_items);
        let bytes_left = bytes_max.saturating_sub(self.bytes - service_bytes);
        items_left > 0
            && bytes <= bytes_left
            && own_items < items_left.saturating_mul(SHARE)
            && own_bytes < bytes_left.saturating_mul(SHARE)
    }

    /// Adds an item behind the others of its owner.
    pub(crate) fn push(&mut self, owner: Owner, item: T, bytes: usize) {
        self.len += 1;
        self.bytes += bytes;
        if let Some(share) = self.shares.get_mut(&owner) {
            share.bytes += bytes;
            return share.items.push_back((item, bytes));
        }
        self.turns.push_back(owner.clone());
        self.shares.insert(owner, OwnerQueue { items: VecDeque::from([(item, bytes)]), bytes });
    }

    /// Bytes of the item whose turn it is.
    pub(crate) fn next_bytes(&self) -> Option<usize> {
        let share = self.shares.get(self.turns.front()?)?;
        share.items.front().map(|(_, bytes)| *bytes)
    }

    /// Takes the item whose turn it is; the next turn is another owner's.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let owner = self.turns.pop_front()?;
        let share = self.shares.get_mut(&owner)?;
        let (item, bytes) = share.items.pop_front()?;
        share.bytes -= bytes;
        self.len -= 1;
        self.bytes -= bytes;
        if share.items.is_empty() {
            self.shares.remove(&owner);
        } else {
            self.turns.push_back(owner);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Some(ProjectId::parse(name).expect("a project"))
    }

    #[test]
    fn owners_take_turns_and_each_keeps_its_order() {
        let mut shares = FairQueue::default();
        for (name, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 10), ("c", 20), ("b", 11)] {
            shares.push(owner(name), item, item);
        }
        assert_eq!(shares.next_bytes(), Some(1));
        let taken: Vec<_> = std::iter::from_fn(|| shares.pop()).collect();
        assert_eq!(taken, [1, 10, 20, 2, 11, 3]);
        assert_eq!((shares.waiting(), shares.shares.len(), shares.turns.len()), ((0, 0), 0, 0));
    }

    #[test]
    fn a_greedy_owner_leaves_room_for_others() {
        let mut shares = FairQueue::default();
        let mut fill = |name: &str, bytes: usize| {
            let mut count = 0;
            while shares.has_room(&owner(name), bytes, 100, 10_000) {
                shares.push(owner(name), (), bytes);
                count += 1;
            }
            count
        };
        assert_eq!(fill("a", 1), 80);
        assert_eq!(fill("b", 1), 16);
        assert_eq!(fill("c", 1), 4);
        assert_eq!(fill("d", 1), 0);
    }

    #[test]
    fn bytes_are_bounded_as_items_are() {
        let mut shares = FairQueue::default();
        assert!(!shares.has_room(&owner("a"), 1001, 10, 1000));
        for _ in 0..4 {
            assert!(shares.has_room(&owner("a"), 200, 10, 1000));
            shares.push(owner("a"), (), 200);
        }
        assert!(!shares.has_room(&owner("a"), 200, 10, 1000));
        assert!(shares.has_room(&owner("b"), 200, 10, 1000));
    }
}
