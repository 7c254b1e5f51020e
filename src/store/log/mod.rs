//! Streams: segments of messages by offset, their partitions, and messages whose delay has not ended.

pub mod codec;
pub(crate) mod delayed;
pub mod held_segments;
pub mod partitions;
pub(super) mod row_location;
pub mod segments;
