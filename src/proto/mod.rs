//! The generated servers of the gRPC API and the codec that they read requests with; the messages are those of `dms-client`.
#![expect(clippy::too_many_lines, unreachable_pub, reason = "generated code")]

pub(crate) mod codec;
mod lists;

/// Servers of the package `dms.v1`.
pub(crate) mod v1 {
    tonic::include_proto!("dms.v1");
}
