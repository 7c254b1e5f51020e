//! What one caller does is not felt by another: hostile clients, large requests, full queues.

pub(crate) mod hostile;
mod hostile_neighbour;
mod limits;
pub(crate) mod memory;
mod neighbours;
mod traffic;
