//! What the commands start and stop, and in which order: service, gateway, `dms dev`, the admin listener.

pub(crate) mod admin;
pub mod dev;
pub mod gateway;
pub mod server;
pub mod service;
pub(crate) mod shutdown;
pub mod upstream;
