//! Compiles `proto/` without protoc and keeps the descriptor set for reflection.

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let api = protox::compile(
        [
            "dms/v1/queue_service.proto",
            "dms/v1/message_service.proto",
            "dms/v1/dead_letter_service.proto",
            "dms/v1/tag_service.proto",
        ],
        ["proto"],
    )?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("dms_v1_descriptor.bin"), protox::prost::Message::encode_to_vec(&api))?;
    // A message is known by its name where its lists are bounded before they are decoded.
    let mut named = tonic_prost_build::Config::new();
    named.enable_type_names();
    tonic_prost_build::configure()
        // Bodies are slices of the received frame or of the stored segment, never copies.
        .bytes(".dms.v1")
        .codec_path("crate::proto::codec::BoundedCodec")
        .compile_fds_with_config(api, named)?;
    let storage = protox::compile(["dms/storage/v1/segment.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".dms.storage.v1").compile_fds(storage)?;
    Ok(())
}
