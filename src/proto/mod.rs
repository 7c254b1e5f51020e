//! The generated gRPC API (`proto/dms/v1`); `cargo doc` shows the comments of the proto files.
#![expect(clippy::too_many_lines, reason = "generated code")]

pub mod codec;
mod lists;

/// Messages, clients and servers of package `dms.v1`.
pub mod v1 {
    tonic::include_proto!("dms.v1");
}

/// The descriptor set of `dms.v1`, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dms_v1_descriptor.bin"));
