//! What a group is given, for how long, and what its answers do.

mod acks;
mod cancelled_calls;
mod counters;
mod delays;
mod groups;
mod handlers;
mod kafka_queues;
mod labels;
mod leases;
mod normal;
mod retention;
mod waiting;
