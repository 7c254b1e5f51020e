//! Files as sources: regular ones only, of a bounded size, and private where they hold a secret.

use std::collections::HashSet;
use std::fs::{self, File, FileType, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::Malformed;
use crate::domain::text;

/// Far more than the credentials of ten thousand callers.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

const READABLE_BY_OTHERS: u32 = 0o004;
const READABLE_BY_GROUP: u32 = 0o040;
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// Files that were complained about: once is enough.
static EXPOSED: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// The whole file. Blocks for as long as its file system does.
pub(super) fn read(path: &Path, secret: bool) -> Result<Vec<u8>, Malformed> {
    let shown = text::quoted(&path.to_string_lossy());
    let unreadable = |error| Malformed(format!("{shown} cannot be read: {error}"));
    // Before it is opened: the open of a FIFO waits for somebody to write.
    regular(&shown, fs::metadata(path).map_err(unreadable)?.file_type())?;
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    regular(&shown, metadata.file_type())?;
    let mut content = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > BYTES_MAX {
        return Err(Malformed(format!("{shown} is larger than {} MiB", BYTES_MAX / (1024 * 1024))));
    }
    if let Some(danger) = exposure(&metadata, secret, own_uid()) {
        warn_once(path, danger, metadata.mode());
    }
    Ok(content)
}

fn regular(shown: &str, kind: FileType) -> Result<(), Malformed> {
    let named = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(Malformed(format!("{shown} is {named}: give a regular file")))
}

/// Who else can use the file. A group that it takes to read a file of somebody else, as with volumes of Kubernetes, may read.
fn exposure(metadata: &Metadata, secret: bool, own_uid: Option<u32>) -> Option<&'static str> {
    let (mode, own) = (metadata.mode(), own_uid == Some(metadata.uid()));
    match () {
        () if mode & WRITABLE_BY_OTHERS != 0 => Some("every account of this machine can change this file"),
        () if secret && mode & READABLE_BY_OTHERS != 0 => Some("every account of this machine can read this secret"),
        () if secret && own && mode & READABLE_BY_GROUP != 0 => Some("a group can read this secret"),
        () => None,
    }
}

/// Known where there is a `/proc`.
fn own_uid() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

fn warn_once(path: &Path, danger: &str, mode: u32) {
    if EXPOSED.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned()) {
        let path = text::quoted(&path.to_string_lossy());
        tracing::warn!(%path, mode = format!("{:03o}", mode & 0o777), "{danger}: chmod 600 it");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let folder = Self(std::env::temp_dir().join(format!("dms-file-{}", uuid::Uuid::new_v4().simple())));
            fs::create_dir(&folder.0).unwrap();
            folder
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_regular_files_are_read_and_only_to_a_size() {
        let folder = Folder::new();
        let path = |name: &str| folder.0.join(name);
        assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        File::create(path("large")).unwrap().set_len(BYTES_MAX + 1).unwrap();
        File::create(path("largest")).unwrap().set_len(BYTES_MAX).unwrap();
        std::os::unix::fs::symlink(path("fifo"), path("link")).unwrap();
        for (name, expected) in [
            ("fifo", "is a FIFO: give a regular file"),
            ("link", "is a FIFO: give a regular file"),
            ("socket", "is a socket"),
            (".", "is a folder"),
            ("/dev/zero", "is a device"),
            ("large", "is larger than 16 MiB"),
            ("absent", "cannot be read: No such file"),
        ] {
            let why = read(&path(name), false).unwrap_err().0;
            assert!(why.contains(expected), "{name}: {why}");
        }
        assert_eq!(read(&path("largest"), true).unwrap().len() as u64, BYTES_MAX);
    }

    #[test]
    fn a_file_that_others_can_use_is_complained_about() {
        let folder = Folder::new();
        let path = folder.0.join("key");
        fs::write(&path, "hunter2").unwrap();
        for (mode, own, secret, danger) in [
            (0o600, true, true, None),
            (0o640, true, true, Some("a group can read")),
            (0o440, false, true, None),
            (0o604, false, true, Some("every account of this machine can read")),
            (0o644, true, false, None),
            (0o646, true, false, Some("every account of this machine can change")),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            let uid = metadata.uid() + u32::from(!own);
            let found = exposure(&metadata, secret, Some(uid));
            assert_eq!(found.is_some(), danger.is_some(), "{mode:o} {own} {secret}: {found:?}");
            assert!(found.unwrap_or_default().starts_with(danger.unwrap_or_default()), "{mode:o}: {found:?}");
        }
    }
}
