//! Compiles `proto/dms/v1` without protoc; the servers too where the feature `server` asks for them.

use std::path::PathBuf;
use std::{env, fs};

const PROTO: &str = "../proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={PROTO}/dms/v1");
    let api = protox::compile(
        [
            "dms/v1/queue_service.proto",
            "dms/v1/message_service.proto",
            "dms/v1/dead_letter_service.proto",
            "dms/v1/tag_service.proto",
        ],
        [PROTO],
    )?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("dms_v1_descriptor.bin"), protox::prost::Message::encode_to_vec(&api))?;
    // Whoever decodes a message may ask for its name.
    let mut named = tonic_prost_build::Config::new();
    named.enable_type_names();
    tonic_prost_build::configure()
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
        // Bodies are slices of the received frame or of the stored segment, never copies.
        .bytes(".dms.v1")
        .compile_fds_with_config(api, named)?;
    Ok(())
}
