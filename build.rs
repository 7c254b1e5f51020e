//! Compiles the servers of the gRPC API and `proto/dms/storage`, the format of stored segments, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    compile_servers()?;
    let storage = protox::compile(["dms/storage/v1/segment.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".dms.storage.v1").compile_fds(storage)?;
    Ok(())
}

/// Their messages are those of the crate in `client/`, and they read them with a codec of their own.
fn compile_servers() -> Result<(), Box<dyn Error>> {
    let services = [
        "dms/v1/queue_service.proto",
        "dms/v1/message_service.proto",
        "dms/v1/dead_letter_service.proto",
        "dms/v1/tag_service.proto",
    ];
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".dms.v1", "::dms_client::v1")
        .codec_path("crate::proto::codec::BoundedCodec")
        .compile_fds(protox::compile(services, ["proto"])?)?;
    Ok(())
}
