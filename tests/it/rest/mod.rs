//! The REST API as its contract says, and the gateway that serves it.

mod bad_bodies;
mod bytes;
mod decisions;
mod decisions_acks;
mod doors;
mod errors;
pub(crate) mod gateway_alone;
mod gateway_probes;
mod groups;
mod hosts;
mod messages;
mod needs;
pub(crate) mod paths;
mod queues;
mod readme;
mod reference;
mod tags;
mod waits;
mod wire;
