//! Secrets that are kept in files, and how what is made of them follows the files: rotation without a restart.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use std::{fmt, fs, io};

use http::Uri;
use ring::digest::{Context, SHA256};
use tokio::sync::Notify;

use crate::domain::{Error, Result, text};
use crate::fetch;

/// Between looks at files.
const FILE_INTERVAL: Duration = Duration::from_secs(2);
/// Between looks at a URL.
const URL_INTERVAL: Duration = Duration::from_secs(300);
/// The same when something is asked for that is not known.
const URL_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Why a content was not taken. Never with anything of it that could be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Where a secret is.
#[derive(Clone)]
pub enum Source {
    /// A file, read again when it changes.
    File(PathBuf),
    /// A document on the web, fetched again every few minutes.
    Url(Uri),
    /// The content itself, from the command line or the environment.
    Text(String),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Url(uri) => f.debug_tuple("Url").field(uri).finish(),
            Self::Text(_) => f.write_str("Text"),
        }
    }
}

impl Source {
    async fn read(&self) -> Result<Vec<u8>, Malformed> {
        match self {
            Self::File(path) => read_file(path.clone()).await,
            Self::Url(uri) => {
                fetch::get(uri).await.map_err(|error| Malformed(format!("{uri} cannot be fetched: {error:#}")))
            }
            Self::Text(content) => Ok(content.clone().into_bytes()),
        }
    }

    /// The time between looks, and the same when something unknown is asked for; none for what cannot change.
    const fn intervals(&self) -> Option<(Duration, Duration)> {
        match self {
            Self::File(_) => Some((FILE_INTERVAL, FILE_INTERVAL)),
            Self::Url(_) => Some((URL_INTERVAL, URL_INTERVAL_MIN)),
            Self::Text(_) => None,
        }
    }
}

/// A file may be on a network, so elsewhere than on the threads that serve.
async fn read_file(path: PathBuf) -> Result<Vec<u8>, Malformed> {
    let shown = text::quoted(&path.to_string_lossy());
    let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
    read.map_err(io::Error::from).flatten().map_err(|error| Malformed(format!("{shown} cannot be read: {error}")))
}

type Build<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, Malformed> + Send + Sync>;

/// What is made of one or more sources, and made anew when they change. What cannot be read or used changes nothing.
pub struct Watched<T> {
    what: &'static str,
    sources: Vec<Source>,
    build: Build<T>,
    value: RwLock<Arc<T>>,
    last: Mutex<Last>,
    asked: Notify,
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("what", &self.what).field("sources", &self.sources).finish_non_exhaustive()
    }
}

struct Last {
    taken: Fingerprint,
    complaint: Option<Malformed>,
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
        let first = read(&sources).await.and_then(|contents| Ok((build(&contents)?, fingerprint(&contents))));
        let (value, taken) = first.map_err(|why| Error::internal(format!("{what}: {why}")))?;
        let last = Mutex::new(Last { taken, complaint: None });
        Ok(Self {
            what,
            sources,
            build: Box::new(build),
            value: RwLock::new(Arc::new(value)),
            last,
            asked: Notify::new(),
        })
    }

    /// As it is now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the sources for ever.
    pub async fn follow(self: Arc<Self>) {
        let Some((usual, least)) = self.sources.iter().filter_map(Source::intervals).min() else { return };
        loop {
            tokio::time::sleep(least).await;
            let _asked_or_due = tokio::time::timeout(usual - least, self.asked.notified()).await;
            self.look().await;
        }
    }

    /// Something was asked for that is not known: the next look comes soon.
    pub fn look_soon(&self) {
        self.asked.notify_one();
    }

    /// Takes what is new; says once what is wrong with it.
    async fn look(&self) {
        let taken = read(&self.sources).await.and_then(|contents| self.take(&contents));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &taken {
            Ok(true) => tracing::info!(what = self.what, "a changed file is in force"),
            Ok(false) => {}
            Err(why) if last.complaint.as_ref() == Some(why) => {}
            Err(why) => {
                tracing::error!(what = self.what, %why, "a changed file is not taken; what was before stays in force")
            }
        }
        last.complaint = taken.err();
    }

    fn take(&self, contents: &[Vec<u8>]) -> Result<bool, Malformed> {
        let fingerprint = fingerprint(contents);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.taken == fingerprint {
            return Ok(false);
        }
        let value = Arc::new((self.build)(contents)?);
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        last.taken = fingerprint;
        Ok(true)
    }
}

async fn read(sources: &[Source]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut contents = Vec::with_capacity(sources.len());
    for source in sources {
        contents.push(source.read().await?);
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
