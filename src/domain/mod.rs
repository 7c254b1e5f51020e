//! The words and rules of DMS as plain types: names, limits, ids, handlers, the ack walk, the error table.
//!
//! No IO, no SQL, no protobuf, nothing else of this project.

mod checksum;
pub mod clock;
pub mod counters;
pub mod error;
pub mod handler;
pub mod handler_fault;
pub mod hosts;
pub mod ids;
pub mod labels;
pub mod lease;
pub mod limits;
pub mod message;
pub mod page;
pub mod place;
pub mod queue;
pub mod schema_name;
pub mod search;
pub mod settle;
pub mod signed_request;
pub mod tag;
pub mod text;
pub mod trace;

pub use error::{Error, ErrorKind, Result};
