//! A connection that was accepted: it counts among the connections of its listener, and has to begin to speak.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// What a client of HTTP/2 says first. Until it has, nothing else watches the time; HTTP/1 has a limit for each header.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A client that has not said it by then is dropped.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// A stream of bytes in its place among the connections of a listener.
#[derive(Debug)]
pub struct Accepted<S> {
    stream: S,
    greeting: Option<Greeting>,
    _place: OwnedSemaphorePermit,
}

/// What is awaited at first.
#[derive(Debug)]
struct Greeting {
    /// Bytes of the preface that have come.
    heard: usize,
    limit: Pin<Box<Sleep>>,
}

impl Greeting {
    /// Whether the other side has shown that it speaks HTTP/2, or something else.
    fn is_over(&mut self, bytes: &[u8]) -> bool {
        let expected = &PREFACE[self.heard..];
        let known = bytes.len().min(expected.len());
        self.heard += known;
        bytes[..known] != expected[..known] || self.heard == PREFACE.len()
    }
}

impl<S> Accepted<S> {
    /// Gives the place back when it is dropped.
    pub fn new(stream: S, place: OwnedSemaphorePermit) -> Self {
        let greeting = Greeting { heard: 0, limit: Box::pin(tokio::time::sleep(GREETING_MAX)) };
        Self { stream, greeting: Some(greeting), _place: place }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Accepted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(greeting) = &mut self.greeting
            && greeting.limit.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.greeting.take_if(|greeting| greeting.is_over(&buffer.filled()[before..]));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Accepted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: Connected> Connected for Accepted<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::sync::Semaphore;

    use super::*;

    fn accepted(places: &Arc<Semaphore>) -> (Accepted<DuplexStream>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        (Accepted::new(ours, Arc::clone(places).try_acquire_owned().unwrap()), theirs)
    }

    /// What the first read after a silence says, when these bytes came before it.
    async fn after_silence(spoken: &[u8]) -> io::Result<u8> {
        let places = Arc::new(Semaphore::new(1));
        let (mut ours, mut theirs) = accepted(&places);
        let mut heard = vec![0; spoken.len()];
        theirs.write_all(spoken).await.unwrap();
        ours.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, spoken);
        tokio::time::sleep(GREETING_MAX * 2).await;
        theirs.write_all(b"x").await.unwrap();
        ours.read_u8().await
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_begin_to_speak_is_dropped() {
        for spoken in [&b""[..], b"P", &PREFACE[..23]] {
            assert_eq!(after_silence(spoken).await.unwrap_err().kind(), io::ErrorKind::TimedOut, "{spoken:?}");
        }
        for spoken in [PREFACE, b"G", b"POST / HTTP/1.1\r\n", b"PRI * HTTP/1.1"] {
            assert_eq!(after_silence(spoken).await.unwrap(), b'x', "{spoken:?}");
        }
    }

    #[tokio::test]
    async fn a_place_is_free_again_after_the_end() {
        let places = Arc::new(Semaphore::new(1));
        let (ours, _theirs) = accepted(&places);
        assert_eq!(places.available_permits(), 0);
        drop(ours);
        assert_eq!(places.available_permits(), 1);
    }
}
