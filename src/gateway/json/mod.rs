//! The documented JSON answers, as views that borrow from the gRPC answers.

mod message;
mod queue;
mod tag;

pub(super) use message::{Acked, Leased, Sent};
pub(super) use queue::{CreatedGroups, CreatedQueue, Queue, QueueGroups, Queues, Quotas};
pub(super) use tag::{Counted, Found, ProjectTags, QueueTags};
