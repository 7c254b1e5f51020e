//! Streams: segments of messages by offset, their partitions, and messages whose delay has not ended.

pub mod codec;
pub(crate) mod delayed;
pub mod held_segments;
pub mod partitions;
pub mod segments;

use crate::store::sql::Statement;

pub(in crate::store) fn statements() -> Vec<Statement> {
    [delayed::statements(), held_segments::statements(), partitions::all_statements(), segments::all_statements()]
        .concat()
}
