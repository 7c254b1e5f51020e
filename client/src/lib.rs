//! The client of `dms`, DMS v1.0 message queues on Postgres.
//!
//! - [`Client`] makes plain calls: one request, one answer, one typed [`Error`].
//! - [`Options`] say where the service is and how to be known there: address, token, TLS, deadline.
//! - [`v1`] is the generated API (`proto/dms/v1`): requests, answers, and the bare gRPC clients for those who bring a
//!   transport of their own.
//!
//! ```no_run
//! use dms_client::{Client, Options, v1};
//!
//! # async fn work() -> Result<(), dms_client::Error> {
//! let client = Client::connect(&Options::new("http://127.0.0.1:50051")).await?;
//! let request = v1::SendMessagesRequest {
//!     project_id: "demo".into(),
//!     queue_id: "7f6a5f0e-6f3c-4f0e-9d5b-0b0a6a1d7b1a".into(),
//!     messages: vec![v1::NewMessage { body: r#"{"order":1}"#.into(), ..Default::default() }],
//!     ..Default::default()
//! };
//! match client.send_messages(request).await {
//!     Ok(_) => {}
//!     Err(error) if error.is_retryable() => eprintln!("again in {:?}: {error}", error.retry_after()),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```

mod calls;
mod error;
mod options;

pub use calls::{Authorization, Client, Connection};
pub use error::Error;
pub use options::Options;

/// Messages and clients of the package `dms.v1`; with the feature `server` its servers too. The comments are those of the proto
/// files.
#[allow(clippy::too_many_lines, reason = "generated code, with and without servers")]
pub mod v1 {
    tonic::include_proto!("dms.v1");
}

/// The descriptor set of `dms.v1`, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dms_v1_descriptor.bin"));
