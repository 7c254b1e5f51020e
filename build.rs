//! Compiles the servers of the gRPC API and `proto/dms/storage`, the format of stored segments, without protoc, and lists
//! `migrations/`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    compile_servers()?;
    let storage = protox::compile(["dms/storage/v1/segment.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".dms.storage.v1").compile_fds(storage)?;
    let migrations = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("migrations");
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("migrations.rs"), list(&migrations)?)?;
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

/// `&[(version, name, statements), ...]` of the files `0001_name_of_it.sql`, as sqlx names them.
fn list(folder: &Path) -> Result<String, Box<dyn Error>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files: Vec<PathBuf> = entries.collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let mut text = "&[".to_owned();
    for file in files {
        let Some(stem) = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".sql")) else { continue };
        let (version, name) = stem.split_once('_').ok_or_else(|| format!("{stem}: not VERSION_NAME"))?;
        let version: i64 = version.parse().map_err(|_| format!("{stem}: its version is no number"))?;
        write!(text, "({version}, {:?}, include_str!({file:?})), ", name.replace('_', " "))?;
    }
    Ok(text + "]")
}
