//! Where credentials are kept outside of this process, and how what is known of them follows.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ring::digest::{SHA256, digest};

use super::grant::Malformed;
use crate::domain::{Error, Result, text};

/// Between looks at a file.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Where a set of credentials is.
#[derive(Clone)]
pub enum Source {
    /// A file, read again when it changes.
    File(PathBuf),
    /// The content itself, from the command line or the environment.
    Text(String),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text"),
        }
    }
}

impl Source {
    fn read(&self) -> Result<Vec<u8>, Malformed> {
        match self {
            Self::File(path) => fs::read(path).map_err(|error| {
                Malformed(format!("{} cannot be read: {error}", text::quoted(&path.to_string_lossy())))
            }),
            Self::Text(content) => Ok(content.clone().into_bytes()),
        }
    }
}

/// A set of credentials that follows its source. What cannot be read changes nothing.
#[derive(Debug)]
pub(super) struct Current<T> {
    what: &'static str,
    source: Source,
    parse: fn(&[u8]) -> Result<T, Malformed>,
    value: RwLock<Arc<T>>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    taken: Vec<u8>,
    complaint: Option<Malformed>,
}

impl<T: Send + Sync + 'static> Current<T> {
    /// Reads it for the first time; then it must be good.
    pub(super) fn load(what: &'static str, source: Source, parse: fn(&[u8]) -> Result<T, Malformed>) -> Result<Self> {
        let read = source.read().and_then(|content| Ok((parse(&content)?, fingerprint(&content))));
        let (value, taken) = read.map_err(|why| Error::internal(format!("{what}: {why}")))?;
        let last = Mutex::new(Last { taken, complaint: None });
        Ok(Self { what, source, parse, value: RwLock::new(Arc::new(value)), last })
    }

    /// As it is now.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the source for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        if matches!(self.source, Source::Text(_)) {
            return;
        }
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let this = Arc::clone(&self);
            // A file may be on a network.
            let _looked = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Takes what is new; says once what is wrong with it.
    fn look(&self) {
        let taken = self.source.read().and_then(|content| self.take(&content));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match taken {
            Ok(true) => tracing::info!(what = self.what, "credentials have changed and are in force"),
            Ok(false) => {}
            Err(ref why) if last.complaint.as_ref() == Some(why) => {}
            Err(ref why) => tracing::error!(what = self.what, %why, "credentials not taken; the old ones stay in force"),
        }
        last.complaint = taken.err();
    }

    fn take(&self, content: &[u8]) -> Result<bool, Malformed> {
        let fingerprint = fingerprint(content);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.taken == fingerprint {
            return Ok(false);
        }
        let value = Arc::new((self.parse)(content)?);
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        last.taken = fingerprint;
        Ok(true)
    }
}

/// Tells contents apart without keeping them.
fn fingerprint(content: &[u8]) -> Vec<u8> {
    digest(&SHA256, content).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct File(PathBuf);

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn number(content: &[u8]) -> Result<u32, Malformed> {
        let text = std::str::from_utf8(content).map_err(|_| Malformed("not text".into()))?;
        text.trim().parse().map_err(|_| Malformed("no number".into()))
    }

    #[test]
    fn a_set_follows_its_file_and_survives_a_bad_one() {
        let file = File(std::env::temp_dir().join(format!("dms-source-{}", uuid::Uuid::new_v4())));
        assert!(Current::load("n", Source::File(file.0.clone()), number).unwrap_err().message().contains("cannot be read"));
        fs::write(&file.0, "one").unwrap();
        assert_eq!(Current::load("n", Source::File(file.0.clone()), number).unwrap_err().message(), "n: no number");
        fs::write(&file.0, "1").unwrap();
        let current = Current::load("n", Source::File(file.0.clone()), number).unwrap();
        for (content, expected) in [("1", 1), ("2", 2), ("bad", 2), ("2", 2), ("3", 3)] {
            fs::write(&file.0, content).unwrap();
            current.look();
            assert_eq!(*current.get(), expected, "{content}");
        }
        fs::remove_file(&file.0).unwrap();
        current.look();
        assert_eq!(*current.get(), 3);
    }

    #[test]
    fn a_text_is_never_shown() {
        let current = Current::load("n", Source::Text("7".into()), number).unwrap();
        assert_eq!(*current.get(), 7);
        assert!(!format!("{:?}", current.source).contains('7'));
    }
}
