//! What the tests stand on.

pub mod calls;
pub mod consumers;
pub mod postgres;
pub mod service;
