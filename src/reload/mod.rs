//! Secrets that are kept in files, and how what is made of them follows the files: rotation without a restart.

mod file;
mod freshness;
pub mod http_get;
mod source;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ring::digest::{Context, SHA256};
use tokio::sync::Notify;

pub use self::freshness::Freshness;
use self::source::Reader;
pub use self::source::Source;
use crate::domain::{Error, Result};

/// Why a content was not taken. Never with anything of it that could be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

type Build<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, Malformed> + Send + Sync>;

/// What is made of one or more sources, and made anew when they change. What cannot be read or used changes nothing.
pub struct Watched<T> {
    sources: Vec<Source>,
    readers: tokio::sync::Mutex<Vec<Reader>>,
    build: Build<T>,
    value: RwLock<Arc<T>>,
    taken: Mutex<Fingerprint>,
    freshness: Arc<Freshness>,
    asked: Notify,
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.freshness.what();
        f.debug_struct("Watched").field("what", &what).field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// Tells contents apart without keeping them.
type Fingerprint = Vec<u8>;

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads one source for the first time; then it must be good.
    pub async fn one(what: &'static str, source: Source, parse: fn(&[u8]) -> Result<T, Malformed>) -> Result<Self> {
        Self::all(what, vec![source], move |contents| parse(contents.first().map(Vec::as_slice).unwrap_or_default()))
            .await
    }

    /// The same for several sources that belong together; contents come in the order of the sources.
    pub async fn all(
        what: &'static str,
        sources: Vec<Source>,
        build: impl Fn(&[Vec<u8>]) -> Result<T, Malformed> + Send + Sync + 'static,
    ) -> Result<Self> {
        let mut readers: Vec<_> = sources.iter().cloned().map(Reader::new).collect();
        let first = read(&mut readers).await.and_then(|contents| Ok((build(&contents)?, fingerprint(&contents))));
        let (value, taken) = first.map_err(|why| Error::internal(format!("{what}: {why}")))?;
        Ok(Self {
            sources,
            readers: tokio::sync::Mutex::new(readers),
            build: Box::new(build),
            value: RwLock::new(Arc::new(value)),
            taken: Mutex::new(taken),
            freshness: Arc::new(Freshness::new(what)),
            asked: Notify::new(),
        })
    }

    /// As it is now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How its sources do; none when they cannot change.
    pub(crate) fn freshness(&self) -> Option<Arc<Freshness>> {
        self.sources.iter().any(|source| source.intervals().is_some()).then(|| Arc::clone(&self.freshness))
    }

    /// Follows the sources for ever.
    pub(crate) async fn follow(self: Arc<Self>) {
        let Some((usual, least)) = self.sources.iter().filter_map(Source::intervals).min() else { return };
        loop {
            tokio::time::sleep(least).await;
            let _asked_or_due = tokio::time::timeout(usual - least, self.asked.notified()).await;
            self.look().await;
        }
    }

    /// Something was asked for that is not known: the next look comes soon.
    pub(crate) fn look_soon(&self) {
        self.asked.notify_one();
    }

    /// Takes what is new. Each read has its limit, so this ends whatever the sources do.
    async fn look(&self) {
        let contents = read(&mut self.readers.lock().await).await;
        self.freshness.looked(contents.and_then(|contents| self.take(&contents)));
    }

    fn take(&self, contents: &[Vec<u8>]) -> Result<bool, Malformed> {
        let fingerprint = fingerprint(contents);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if *taken == fingerprint {
            return Ok(false);
        }
        let value = Arc::new((self.build)(contents)?);
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        *taken = fingerprint;
        Ok(true)
    }
}

async fn read(readers: &mut [Reader]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut contents = Vec::with_capacity(readers.len());
    for reader in readers {
        contents.push(reader.read().await?);
    }
    Ok(contents)
}

fn fingerprint(contents: &[Vec<u8>]) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    for content in contents {
        context.update(&content.len().to_be_bytes());
        context.update(content);
    }
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

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

    #[tokio::test]
    async fn a_value_follows_its_file_and_survives_a_bad_one() {
        let file = File(std::env::temp_dir().join(format!("dms-watched-{}", uuid::Uuid::new_v4())));
        let load = async || Watched::one("n", Source::File(file.0.clone()), number).await;
        assert!(load().await.unwrap_err().message().contains("cannot be read"));
        fs::write(&file.0, "one").unwrap();
        assert_eq!(load().await.unwrap_err().message(), "n: no number");
        fs::write(&file.0, "1").unwrap();
        let watched = load().await.unwrap();
        for (content, expected) in [("1", 1), ("2", 2), ("bad", 2), ("2", 2), ("3", 3)] {
            fs::write(&file.0, content).unwrap();
            watched.look().await;
            assert_eq!(*watched.get(), expected, "{content}");
        }
        fs::remove_file(&file.0).unwrap();
        watched.look().await;
        assert_eq!(*watched.get(), 3);
    }

    #[tokio::test]
    async fn several_sources_are_one_value() {
        let texts = |texts: [&str; 2]| texts.map(|text| Source::Text(text.into())).to_vec();
        let sum =
            |contents: &[Vec<u8>]| -> Result<u32, Malformed> { contents.iter().map(|content| number(content)).sum() };
        assert_eq!(*Watched::all("n", texts(["1", "2"]), sum).await.unwrap().get(), 3);
        assert!(Watched::all("n", texts(["1", "x"]), sum).await.is_err());
        assert_ne!(fingerprint(&[vec![1], vec![2, 3]]), fingerprint(&[vec![1, 2], vec![3]]));
    }

    #[tokio::test]
    async fn a_text_is_never_shown() {
        let watched = Watched::one("n", Source::Text("7".into()), number).await.unwrap();
        assert_eq!(*watched.get(), 7);
        assert!(!format!("{watched:?}").contains('7'));
    }
}
