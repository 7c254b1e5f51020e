//! What comes on a connection: its caller has to begin to speak in time, and to end the headers of each request in time and within
//! bounds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::connection::Connection;
use super::heads::{Head, Heads};
use crate::observe::log_limit::LogLimit;
use crate::observe::metrics::Cut;

/// What a client of HTTP/2 says first. Until it has, nothing else watches the time; HTTP/1 has a limit for each header.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A client that has not said it by then is dropped.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// The first byte of a handshake of TLS; no request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

static TLS_TO_PLAIN: LogLimit = LogLimit::new();

/// A stream of bytes from a caller.
#[derive(Debug)]
pub(super) struct Heard<S> {
    stream: S,
    connection: Arc<Connection>,
    greeting: Option<Greeting>,
    /// Of HTTP/1, or of a caller who has not said what it speaks.
    head: Option<Head>,
    head_limit: Option<Pin<Box<Sleep>>>,
}

/// What is awaited at first.
#[derive(Debug)]
struct Greeting {
    /// Bytes of the preface that have come.
    heard: usize,
    limit: Pin<Box<Sleep>>,
}

impl Greeting {
    /// Whether the other side speaks HTTP/2, once it has shown it.
    fn is_over(&mut self, bytes: &[u8]) -> Option<bool> {
        let expected = &PREFACE[self.heard..];
        let known = bytes.len().min(expected.len());
        self.heard += known;
        if bytes[..known] != expected[..known] {
            return Some(false);
        }
        (self.heard == PREFACE.len()).then_some(true)
    }
}

impl<S> Heard<S> {
    /// What comes on this connection.
    pub(super) fn new(stream: S, connection: Arc<Connection>, heads: Heads) -> Self {
        let greeting = Greeting { heard: 0, limit: Box::pin(tokio::time::sleep(GREETING_MAX)) };
        Self { stream, connection, greeting: Some(greeting), head: Some(Head::new(heads)), head_limit: None }
    }

    /// Whether it is time to give up, or too much is unfinished.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(greeting) = &mut self.greeting
            && greeting.limit.as_mut().poll(cx).is_ready()
        {
            self.connection.is_cut(Cut::Silent);
            return Err(io::ErrorKind::TimedOut.into());
        }
        let Some(head) = &mut self.head else { return Ok(()) };
        if !head.may_grow(self.connection.heads()) {
            self.connection.is_cut(Cut::LargeHead);
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let Some(deadline) = head.deadline() else { return Ok(()) };
        let limit = self.head_limit.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if limit.deadline() != deadline {
            limit.as_mut().reset(deadline);
        }
        match limit.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.connection.is_cut(Cut::SlowHead);
                Err(io::ErrorKind::TimedOut.into())
            }
            Poll::Pending => Ok(()),
        }
    }

    fn came(&mut self, bytes: &[u8]) {
        if self.greeting.as_ref().is_some_and(|greeting| greeting.heard == 0)
            && bytes.first() == Some(&TLS_HANDSHAKE)
            && let Some(left_out) = TLS_TO_PLAIN.admits()
        {
            let peer = self.connection.peer();
            tracing::info!(%peer, left_out, "a client speaks TLS to a listener without: see --tls-cert, or use http://");
        }
        if let Some(head) = &mut self.head {
            head.came(bytes.len(), self.connection.heads().1);
        }
        let over = self.greeting.as_mut().and_then(|greeting| greeting.is_over(bytes));
        if let Some(speaks_http2) = over {
            self.greeting = None;
            self.head.take_if(|_| speaks_http2);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_limits(cx)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 && self.head.is_some() {
            return self.connection.ending().poll_shown(cx, self.connection.heads().1).map(Ok);
        }
        self.came(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::sync::Notify;
    use tokio::time::Duration;

    use super::*;
    use crate::net::heads::HEAD_MAX;
    use crate::net::newcomers::Newcomers;
    use crate::net::slots::Slots;
    use crate::observe::metrics::Connections;

    fn heard() -> (Heard<DuplexStream>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (peer, must_go) = ("127.0.0.1:1".parse().unwrap(), Arc::new(Notify::new()));
        let (place, _) = Newcomers::new(1).enter("127.0.0.1".parse().unwrap(), Arc::clone(&must_go));
        let connection = Arc::new(Connection::new(peer, must_go, place, Slots::new(1), false, Connections::default()));
        (Heard::new(ours, connection, Heads::default()), theirs)
    }

    /// What the first read after a silence says, when these bytes came before it.
    async fn after_silence(spoken: &[u8], silence: Duration) -> io::Result<u8> {
        let (mut ours, mut theirs) = heard();
        let mut heard = vec![0; spoken.len()];
        theirs.write_all(spoken).await.unwrap();
        ours.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, spoken);
        tokio::time::sleep(silence).await;
        theirs.write_all(b"x").await.unwrap();
        ours.read_u8().await
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_begin_to_speak_is_dropped() {
        let silence = GREETING_MAX + Duration::from_secs(1);
        for spoken in [&b""[..], b"P", &PREFACE[..23]] {
            assert_eq!(after_silence(spoken, silence).await.unwrap_err().kind(), io::ErrorKind::TimedOut, "{spoken:?}");
        }
        for spoken in [PREFACE, b"G", b"POST / HTTP/1.1\r\n", b"PRI * HTTP/1.1"] {
            assert_eq!(after_silence(spoken, silence).await.unwrap(), b'x', "{spoken:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn headers_have_to_end_in_time() {
        let silence = HEAD_MAX + Duration::from_secs(1);
        for spoken in [&b"G"[..], b"POST / HTTP/1.1\r\n"] {
            assert_eq!(after_silence(spoken, silence).await.unwrap_err().kind(), io::ErrorKind::TimedOut, "{spoken:?}");
        }
        assert_eq!(after_silence(PREFACE, silence).await.unwrap(), b'x');
    }
}
