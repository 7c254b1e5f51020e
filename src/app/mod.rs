//! What the commands start and stop, and in which order: service, gateway, `dms dev`, the admin listener.

pub mod admin;
pub mod dev;
pub mod gateway;
pub mod server;
pub mod service;
pub mod shutdown;
pub mod upstream;
