//! One thing to settle, and who waits for it.

use tokio::sync::oneshot;

use super::lane::settle_ops;
use super::{ENTRY_BYTES, LEASE_BYTES, SettleRequest};
use crate::broker::ack::settlement_plan::Op;
use crate::broker::batching::apart::{ApartWork, Attempt};
use crate::broker::core::Core;
use crate::domain::ids::SubscriptionKey;
use crate::domain::settle::Acknowledged;
use crate::domain::{Error, Result};
use crate::store::session::connection::{Failure, FlushError, LaneConnection, try_flush};
use crate::store::subscriptions::leases::LeaseKey;
use crate::store::subscriptions::locks;

/// What a settle lane settles one by one.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) key: SubscriptionKey,
    pub(super) op: Op,
    reply: Option<oneshot::Sender<Result<Acknowledged>>>,
}

impl Pending {
    /// What a request settles, each lease that has ended by itself.
    pub(super) fn of(request: SettleRequest) -> Vec<Self> {
        let key = request.key();
        match request {
            SettleRequest::Ack(ack) => {
                let op = Op::Ack { key: ack.key, entries: ack.entries };
                vec![Self { key, op, reply: Some(ack.reply) }]
            }
            SettleRequest::Expire(_, leases) => {
                leases.into_iter().map(|lease| Self { key, op: Op::Expire(lease), reply: None }).collect()
            }
            SettleRequest::Release(lease) => vec![Self { key, op: Op::Release(lease), reply: None }],
        }
    }

    /// The leases it may change.
    pub(super) fn leases(&self) -> Vec<LeaseKey> {
        self.op.leases()
    }

    /// Tells the caller, if there is one.
    pub(super) fn answer(self, outcome: Result<Acknowledged>) {
        self.reply.into_iter().for_each(|reply| drop(reply.send(outcome.clone())));
    }
}

impl ApartWork for Pending {
    type Key = SubscriptionKey;

    fn bytes(&self) -> usize {
        match &self.op {
            Op::Ack { entries, .. } => ENTRY_BYTES * entries.len(),
            Op::Expire(_) | Op::Release(_) => LEASE_BYTES,
        }
    }

    /// What a consumer has acknowledged is settled, whether or not it still waits for the answer.
    fn is_abandoned(&self) -> bool {
        false
    }

    fn refuse(self, error: &Error) {
        self.answer(Err(error.clone()));
    }

    async fn attempt(self, core: &Core, connection: &mut LaneConnection, in_line: bool) -> Attempt<Self> {
        let leases = self.leases();
        if !in_line {
            let locked = try_flush!(connection, conn => locks::settled(conn, &leases));
            if locked.is_ok_and(|locked| !locked.is_empty()) {
                return Attempt::Locked(self);
            }
        }
        let part = vec![self];
        match settle_ops(core, connection, &part).await {
            Ok(done) => {
                done.answer(core, part);
                Attempt::Done
            }
            Err(FlushError { failure, error }) => {
                for work in part {
                    if failure == Failure::Locked {
                        return Attempt::Locked(work);
                    }
                    work.refuse(&error);
                }
                if failure == Failure::Refused { Attempt::Refused } else { Attempt::Done }
            }
        }
    }
}
