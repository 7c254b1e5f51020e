//! Where a secret is, and reading it without ever waiting for longer than a limit.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io, thread};

use http::Uri;
use tokio::sync::oneshot;

use super::{Malformed, file};
use crate::domain::text;
use crate::reload::http_get;

/// Between looks at files.
const FILE_INTERVAL: Duration = Duration::from_secs(2);
/// Between looks at a URL.
const URL_INTERVAL: Duration = Duration::from_secs(300);
/// The same when something is asked for that is not known.
const URL_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// How long a file may take. One of a mount whose server is away never comes.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Where a secret is.
#[derive(Clone)]
pub enum Source {
    /// A file, read again when it changes.
    File(PathBuf),
    /// The same for what nobody else on the machine should be able to read.
    SecretFile(PathBuf),
    /// A document on the web, fetched again every few minutes.
    Url(Uri),
    /// The content itself, from the command line or the environment.
    Text(String),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::SecretFile(path) => f.debug_tuple("SecretFile").field(path).finish(),
            Self::Url(uri) => f.debug_tuple("Url").field(uri).finish(),
            Self::Text(_) => f.write_str("Text"),
        }
    }
}

impl Source {
    /// The time between looks, and the same when something unknown is asked for; none for what cannot change.
    pub(super) const fn intervals(&self) -> Option<(Duration, Duration)> {
        match self {
            Self::File(_) | Self::SecretFile(_) => Some((FILE_INTERVAL, FILE_INTERVAL)),
            Self::Url(_) => Some((URL_INTERVAL, URL_INTERVAL_MIN)),
            Self::Text(_) => None,
        }
    }
}

type Content = Result<Vec<u8>, Malformed>;

/// Reads one source, again and again.
pub(super) struct Reader {
    source: Source,
    /// A read that has not come back within its limit. No other one begins before it does, so that one dead mount holds one thread.
    hanging: Option<oneshot::Receiver<Content>>,
}

impl Reader {
    pub(super) fn new(source: Source) -> Self {
        Self { source, hanging: None }
    }

    /// The content as it is now.
    pub(super) async fn read(&mut self) -> Content {
        let (path, secret) = match &self.source {
            Source::Text(content) => return Ok(content.clone().into_bytes()),
            Source::Url(uri) => {
                return http_get::get(uri)
                    .await
                    .map_err(|error| Malformed(format!("{uri} cannot be fetched: {error:#}")));
            }
            Source::File(path) => (path.clone(), false),
            Source::SecretFile(path) => (path.clone(), true),
        };
        let shown = text::quoted(&path.to_string_lossy());
        self.within_limit(&shown, move || file::read(&path, secret)).await
    }

    /// Reads in a thread of its own: those of the runtime are waited for when the process ends, and this one may never come back.
    async fn within_limit(&mut self, shown: &str, read: impl FnOnce() -> Content + Send + 'static) -> Content {
        let mut receiver = match self.hanging.take() {
            Some(receiver) => receiver,
            None => in_thread(read).map_err(|error| Malformed(format!("{shown} cannot be read: {error}")))?,
        };
        match tokio::time::timeout(READ_LIMIT, &mut receiver).await {
            Ok(content) => content.unwrap_or_else(|_| Err(Malformed(format!("{shown} cannot be read: panic")))),
            Err(_elapsed) => {
                self.hanging = Some(receiver);
                Err(Malformed(format!("{shown} cannot be read: no answer within {} s", READ_LIMIT.as_secs())))
            }
        }
    }
}

fn in_thread(read: impl FnOnce() -> Content + Send + 'static) -> io::Result<oneshot::Receiver<Content>> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name("dms-read".to_owned()).spawn(move || {
        // Nobody waits for it any more when the process ends.
        let _dropped = sender.send(read());
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn content(text: &str) -> Content {
        Ok(text.as_bytes().to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_is_given_up_and_not_begun_again_before_it_comes_back() {
        let (mount, away) = mpsc::channel::<()>();
        let mut reader = Reader::new(Source::File("f".into()));
        let hangs = move || {
            let _ = away.recv();
            content("old")
        };
        let late = Malformed("'f' cannot be read: no answer within 10 s".into());
        assert_eq!(reader.within_limit("'f'", hangs).await, Err(late.clone()));
        let another = || panic!("a second read beside the first one");
        assert_eq!(reader.within_limit("'f'", another).await, Err(late));
        drop(mount);
        // In real time: the thread has to come back, and no timer is waited for until then.
        while reader.hanging.as_mut().is_some_and(|pending| pending.is_empty() && !pending.is_terminated()) {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(reader.within_limit("'f'", another).await, content("old"));
        tokio::time::resume();
        assert_eq!(reader.within_limit("'f'", || content("new")).await, content("new"));
    }

    #[tokio::test]
    async fn a_read_that_panics_is_an_error() {
        let mut reader = Reader::new(Source::File("f".into()));
        let why = reader.within_limit("'f'", || panic!("as tests do")).await.unwrap_err().0;
        assert_eq!(why, "'f' cannot be read: panic");
        assert_eq!(reader.within_limit("'f'", || content("new")).await, content("new"));
    }
}
