//! A claim that is ready to be carried out: what was found, cut into batches, and what that writes.

use super::cut::{Batch, Deliverable};
use super::failed::FoundFailed;
use super::find::FoundNew;
use super::scan::{Candidate, Origin};
use crate::domain::clock::Timestamp;
use crate::domain::ids::LeaseId;
use crate::domain::lease::Lease;
use crate::observe::metrics::Expired;
use crate::store::subscriptions::SubscriptionState;
use crate::store::subscriptions::claims::Claim;
use crate::store::subscriptions::leases::LeaseKey;

/// What was found for one subscription.
pub(super) struct Found {
    /// Messages never claimed, if they were looked for.
    pub new: Option<FoundNew>,
    /// Failed messages, if there are any.
    pub failed: Option<FoundFailed>,
}

/// A claim, and who gets what.
pub(super) struct Planned {
    pub claim: Claim,
    pub batches: Vec<(LeaseKey, Timestamp, Batch)>,
    /// What it passes over because it has expired.
    pub expired: [Expired; 2],
}

impl Planned {
    /// What `cut` makes of what was found; `None` when nothing moves.
    pub(super) fn new(
        state: SubscriptionState,
        exclusive: bool,
        mut found: Found,
        now: Timestamp,
        cut: impl FnOnce(&mut Deliverable) -> Vec<Batch>,
    ) -> Option<Self> {
        let mut deliverable = Deliverable {
            new: found.new.as_mut().map(|new| std::mem::take(&mut new.candidates)).unwrap_or_default().into(),
            failed: found.failed.as_mut().map(|failed| std::mem::take(&mut failed.candidates)).unwrap_or_default(),
            failed_next: state.failed_next,
        };
        let with_lease = |batch: Batch| {
            let ends_at = now.plus(batch.request.lease);
            (LeaseKey { subscription: state.key, id: LeaseId::ending(ends_at) }, ends_at, batch)
        };
        let batches: Vec<_> = cut(&mut deliverable).into_iter().map(with_lease).collect();
        let mut claim = Claim {
            key: state.key,
            location: state.location,
            version: state.version,
            exclusive,
            cursor: state.cursor,
            cursor_time: state.cursor_time,
            skipped: 0,
            passed_over: 0,
            retries: Vec::new(),
            retry_cursor: state.retry_cursor,
            failed_next: deliverable.failed_next,
            leases: leases(&batches),
        };
        let mut expired = [Expired::Unread(0), Expired::Failed(0)];
        if let Some(new) = found.new {
            expired[0] = Expired::Unread(new.expired);
            move_cursor(&mut claim, &new, deliverable.new.front());
        }
        if let Some(failed) = found.failed {
            expired[1] = Expired::Failed(failed.expired);
            take_failed(&mut claim, failed, &batches, &deliverable);
        }
        let moves = claim.cursor > state.cursor || !claim.retries.is_empty();
        moves.then_some(Self { claim, batches, expired })
    }

    /// Lets the leases begin at this time; their ids tell when they end.
    pub(super) fn lease_from(&mut self, now: Timestamp) {
        for (lease, (key, expires_at, batch)) in self.claim.leases.iter_mut().zip(&mut self.batches) {
            *expires_at = now.plus(batch.request.lease);
            key.id = LeaseId::ending(*expires_at);
            (lease.id, lease.expires_at) = (key.id, *expires_at);
        }
    }
}

fn leases(batches: &[(LeaseKey, Timestamp, Batch)]) -> Vec<Lease> {
    let lease = |(lease, expires_at, batch): &(LeaseKey, Timestamp, Batch)| Lease {
        key: lease.subscription,
        id: lease.id,
        expires_at: *expires_at,
        messages: batch.messages.iter().map(|message| message.at).collect(),
    };
    batches.iter().map(lease).collect()
}

/// To the end of the walk, but what found no consumer stays where it is.
fn move_cursor(claim: &mut Claim, new: &FoundNew, left: Option<&Candidate>) {
    (claim.cursor, claim.cursor_time, claim.skipped, claim.passed_over) = match left {
        Some(Candidate { at, origin: Origin::New { skipped_before, unselected_before }, .. }) => {
            (at.offset, at.appended_at, *skipped_before, *unselected_before)
        }
        _ => (new.end, new.time, new.skipped, new.unselected),
    };
}

/// Takes those that are delivered or dropped, and moves the cursor over the failures to the first that stays.
fn take_failed(
    claim: &mut Claim,
    found: FoundFailed,
    batches: &[(LeaseKey, Timestamp, Batch)],
    deliverable: &Deliverable,
) {
    let failure = |candidate: &Candidate| match candidate.origin {
        Origin::Failed { failure } => Some(failure),
        Origin::New { .. } => None,
    };
    let delivered = batches.iter().flat_map(|(_, _, batch)| &batch.messages);
    let delivered = delivered.filter(|message| failure(message).is_some()).map(|message| message.at.offset);
    claim.skipped += i64::try_from(found.dropped.len()).unwrap_or(i64::MAX);
    claim.passed_over += found.unselected;
    claim.retries = delivered.chain(found.dropped).collect();
    let stays = deliverable.failed.iter().filter_map(failure).chain(found.undecided_from).min();
    claim.retry_cursor = claim.retry_cursor.max(stays.map_or(found.last, |first| first - 1));
}
