//! The gRPC API: what it takes, what it says, and the client for it.

mod bad_input;
mod client;
mod compression;
mod error_table;
mod list_pages;
