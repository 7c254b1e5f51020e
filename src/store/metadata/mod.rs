//! Queues, groups, tags, and the counters of groups.

pub(crate) mod counters;
pub mod deletion;
pub(crate) mod groups;
pub mod queues;
pub(super) mod rows;
pub mod tags;

use crate::store::sql::Statement;

pub(in crate::store) fn statements() -> Vec<Statement> {
    [counters::statements(), deletion::statements(), groups::statements(), queues::statements(), tags::statements()]
        .concat()
}
