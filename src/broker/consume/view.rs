//! What a lane knows of the row of a subscription. The table of its transitions is in docs/state-machine.md.

use std::mem::replace;

use crate::domain::ids::LeaseId;
use crate::store::subscriptions::SubscriptionState;
use crate::store::subscriptions::claims::{Claim, Claimed};

/// A row that was never left by a claim of this lane.
const NEVER_LEFT: i64 = i64::MIN;

/// A row as the lane sees it. A contended one is claimed by another replica too: it is read before each claim, until it is found
/// with the version that the last claim here has left.
#[derive(Debug)]
pub(super) enum View {
    /// It has to be read.
    Unread,
    /// As read, and carried on by the claims of this lane.
    Known(SubscriptionState),
    /// As known, and its only lease in flight was granted here: when that ends, nothing has to be read.
    KnownLease(SubscriptionState, LeaseId),
    /// It has to be read, and another replica claims.
    ContendedUnread { left_at: i64 },
    /// As read, good for one claim.
    Contended { state: SubscriptionState, left_at: i64 },
}

impl View {
    /// The row, unless it has to be read.
    pub(super) fn row(&self) -> Option<&SubscriptionState> {
        match self {
            Self::Unread | Self::ContendedUnread { .. } => None,
            Self::Known(state) | Self::KnownLease(state, _) | Self::Contended { state, .. } => Some(state),
        }
    }

    /// The row was read.
    pub(super) fn read(&mut self, state: SubscriptionState) {
        *self = match *self {
            Self::ContendedUnread { left_at } | Self::Contended { left_at, .. } if state.version != left_at => {
                Self::Contended { state, left_at }
            }
            _ => Self::Known(state),
        };
    }

    /// The row has changed, or may have.
    pub(super) fn forget(&mut self) {
        *self = match *self {
            Self::Unread | Self::Known(_) | Self::KnownLease(..) => Self::Unread,
            Self::ContendedUnread { left_at } | Self::Contended { left_at, .. } => Self::ContendedUnread { left_at },
        };
    }

    /// A claim of this lane has moved the row.
    pub(super) fn claimed(&mut self, claimed: Claimed, claim: &Claim) {
        *self = match replace(self, Self::Unread) {
            Self::Unread => Self::Unread,
            Self::Known(state) => carried_on(state, None, claimed, claim),
            Self::KnownLease(state, lease) => carried_on(state, Some(lease), claimed, claim),
            Self::ContendedUnread { .. } | Self::Contended { .. } => {
                Self::ContendedUnread { left_at: claim.version + 1 }
            }
        };
    }

    /// A claim of this lane came too late: the row had moved.
    pub(super) fn lost(&mut self) {
        let left_at = match self {
            Self::Unread => NEVER_LEFT,
            Self::Known(state) | Self::KnownLease(state, _) => state.version,
            Self::ContendedUnread { left_at } | Self::Contended { left_at, .. } => *left_at,
        };
        *self = Self::ContendedUnread { left_at };
    }

    /// A whole batch was acknowledged. When it was the only one, nothing else about the row has changed.
    pub(super) fn lease_ended(&mut self, ended: LeaseId) {
        match replace(self, Self::Unread) {
            Self::KnownLease(state, lease) if lease == ended => {
                *self = Self::Known(SubscriptionState { has_leases: false, ..state });
            }
            other => {
                *self = other;
                self.forget();
            }
        }
    }
}

/// The row behind a claim of ours. `in_flight` was its only lease.
fn carried_on(state: SubscriptionState, in_flight: Option<LeaseId>, claimed: Claimed, claim: &Claim) -> View {
    let only_lease = match claim.leases.as_slice() {
        [] => in_flight,
        [granted] if !state.has_leases => Some(granted.id),
        _ => None,
    };
    let state = SubscriptionState {
        location: claimed.location,
        version: state.version + 1,
        cursor: claim.cursor,
        cursor_time: claim.cursor_time,
        has_retries: claimed.has_retries,
        retry_cursor: claim.retry_cursor,
        failed_next: claim.failed_next,
        has_leases: state.has_leases || !claim.leases.is_empty(),
        ..state
    };
    match only_lease {
        Some(lease) => View::KnownLease(state, lease),
        None => View::Known(state),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::clock::Timestamp;
    use crate::domain::ids::{StreamId, SubscriptionId, SubscriptionKey};
    use crate::domain::lease::Lease;
    use crate::store::row_location::RowLocation;

    const OWN: LeaseId = LeaseId(Uuid::from_u128(1));
    const OTHER: LeaseId = LeaseId(Uuid::from_u128(2));
    const KEY: SubscriptionKey = SubscriptionKey { stream: StreamId(1), subscription: SubscriptionId(1) };
    const LOCATION: RowLocation = RowLocation { block: 0, line: 1 };

    /// The row of a subscription to a stream with messages, as it is read.
    pub(in crate::broker::consume) fn row(version: i64, has_leases: bool) -> SubscriptionState {
        SubscriptionState {
            key: KEY,
            location: LOCATION,
            version,
            cursor: 0,
            cursor_time: Timestamp(0),
            rule: None,
            tail: 10,
            has_retries: false,
            retry_cursor: 0,
            failed_next: true,
            has_leases,
        }
    }

    fn read(has_leases: bool) -> View {
        let mut view = View::Unread;
        view.read(row(1, has_leases));
        view
    }

    /// A claim of the row with this version, of a lease for each id.
    fn claim(view: &mut View, version: i64, leases: &[LeaseId]) {
        let lease = |id: &LeaseId| Lease { key: KEY, id: *id, expires_at: Timestamp(1), messages: Vec::new() };
        let claim = Claim {
            key: KEY,
            location: LOCATION,
            version,
            exclusive: true,
            cursor: 5,
            cursor_time: Timestamp(0),
            skipped: 0,
            passed_over: 0,
            retries: Vec::new(),
            retry_cursor: 0,
            failed_next: true,
            leases: leases.iter().map(lease).collect(),
        };
        view.claimed(Claimed { location: LOCATION, has_retries: false }, &claim);
    }

    #[test]
    fn the_end_of_a_lease_granted_here_needs_no_look_at_the_row() {
        let mut view = read(false);
        for (version, lease) in [(1, OWN), (2, OTHER)] {
            claim(&mut view, version, &[lease]);
            assert!(view.row().expect("carried on").has_leases);
            claim(&mut view, version, &[]);
            view.lease_ended(lease);
            assert!(!view.row().expect("carried on").has_leases);
        }
        assert_eq!(view.row().map(|row| (row.version, row.cursor)), Some((5, 5)));
    }

    #[test]
    fn the_end_of_a_lease_that_is_not_known_has_the_row_read_again() {
        let mut granted_before = read(true);
        granted_before.lease_ended(OWN);
        let mut another = read(false);
        claim(&mut another, 1, &[OWN]);
        another.lease_ended(OTHER);
        let mut one_of_two = read(false);
        claim(&mut one_of_two, 1, &[OWN, OTHER]);
        one_of_two.lease_ended(OWN);
        let mut read_again = read(false);
        claim(&mut read_again, 1, &[OWN]);
        read_again.read(row(2, true));
        read_again.lease_ended(OWN);
        for view in [granted_before, another, one_of_two, read_again] {
            assert!(matches!(view, View::Unread), "{view:?}");
        }
    }

    #[test]
    fn a_row_that_lost_a_claim_is_read_before_each_until_nobody_else_claims() {
        let mut view = read(false);
        claim(&mut view, 1, &[]);
        view.lost();
        for (version, found_as_left) in [(4, false), (7, false), (8, true)] {
            assert!(matches!(view, View::ContendedUnread { .. }), "{version}");
            view.read(row(version, false));
            view.forget();
            assert!(view.row().is_none());
            view.read(row(version, false));
            claim(&mut view, version, &[]);
            assert_eq!(matches!(view, View::Known(_)), found_as_left, "{version}");
        }
    }

    #[test]
    fn what_has_to_be_read_stays_so_whatever_happens() {
        let mut view = View::Unread;
        claim(&mut view, 1, &[OWN]);
        view.lease_ended(OWN);
        view.forget();
        assert!(matches!(view, View::Unread));
        view.lost();
        view.read(row(0, false));
        assert!(matches!(view, View::Contended { .. }), "no claim here has left it");
    }
}
