//! What the tests stand on.

pub(crate) mod attacker;
pub(crate) mod calls;
pub(crate) mod consumers;
pub(crate) mod credentials;
pub(crate) mod logged;
pub(crate) mod panics;
pub(crate) mod postgres;
pub(crate) mod prepared;
pub(crate) mod probe;
pub(crate) mod rest;
pub(crate) mod scene;
pub(crate) mod service;
pub(crate) mod signer;
pub(crate) mod statements;
pub(crate) mod wire;
