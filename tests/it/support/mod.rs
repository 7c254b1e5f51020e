//! What the tests stand on.

pub mod attacker;
pub mod calls;
pub mod consumers;
pub mod credentials;
pub mod logged;
pub mod panics;
pub mod postgres;
pub mod probe;
pub mod rest;
pub mod scene;
pub mod service;
pub mod signer;
pub mod statements;
pub mod wire;
