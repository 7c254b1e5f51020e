//! The words and rules of DMS as plain types: names, limits, ids, handlers, the ack walk, the error table.
//!
//! No IO, no SQL, no protobuf, nothing else of this project.

mod checksum;
pub mod clock;
pub(crate) mod counters;
pub mod error;
pub mod handler;
pub(crate) mod handler_fault;
pub(crate) mod hosts;
pub mod ids;
pub(crate) mod labels;
pub mod lease;
pub(crate) mod limits;
pub mod message;
pub(crate) mod page;
pub(crate) mod queue;
pub(crate) mod schema_name;
pub(crate) mod search;
pub(crate) mod settle;
pub mod signed_request;
pub(crate) mod tag;
pub(crate) mod text;
pub(crate) mod trace;

pub use error::{Error, ErrorKind, Result};
