//! In which order a group gets its messages.

mod fifo;
mod starvation;
