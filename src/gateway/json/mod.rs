//! The documented JSON answers, as views that borrow from the gRPC answers.

mod message;
mod queue;
mod tag;

pub use message::{Acked, Leased, Sent};
pub use queue::{CreatedGroups, CreatedQueue, Queue, QueueGroups, Queues, Quotas};
pub use tag::{Counted, Found, ProjectTags, QueueTags};
