//! A TCP forwarder that can be told to misbehave: to cut connections, to refuse new ones, to delay, and to hold bytes back in
//! one direction or both, as a network does that loses everything.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const CHUNK_BYTES: usize = 64 * 1024;

/// Where connections go.
#[derive(Debug, Clone)]
pub(super) enum Upstream {
    /// A server.
    Tcp(SocketAddr),
    /// A server on a unix socket.
    Unix(PathBuf),
}

/// How the network is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProxyFaults {
    /// New connections are closed at once.
    pub refuses: bool,
    /// What everything takes longer, each way.
    pub delay: Duration,
    /// Nothing reaches the server.
    pub holds_requests: bool,
    /// Nothing comes back.
    pub holds_answers: bool,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Requests,
    Answers,
}

impl ProxyFaults {
    fn holds(&self, way: Way) -> bool {
        match way {
            Way::Requests => self.holds_requests,
            Way::Answers => self.holds_answers,
        }
    }
}

/// A running forwarder. Dropping it ends it with all its connections.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    upstream: watch::Sender<Upstream>,
    faults: watch::Sender<ProxyFaults>,
    lines: Arc<Lines>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// On a free port of the loopback.
    pub(super) async fn start(upstream: Upstream) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?;
        let address = listener.local_addr()?;
        let (upstream, goes_to) = watch::channel(upstream);
        let (faults, seen) = watch::channel(ProxyFaults::default());
        let lines = Arc::new(Lines::default());
        let accepting = tokio::spawn(accept(listener, goes_to, seen, Arc::clone(&lines)));
        Ok(Self { address, upstream, faults, lines, accepting })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how the network is, for connections that are there too.
    pub(super) fn set(&self, faults: ProxyFaults) {
        self.faults.send_replace(faults);
    }

    /// New connections go elsewhere.
    pub(super) fn redirect(&self, upstream: Upstream) {
        self.upstream.send_replace(upstream);
    }

    /// Cuts all connections; what was on its way is lost.
    pub(super) fn cut(&self) {
        self.lines.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.lines.cut();
    }
}

/// The connections that are there, by the token that ends them.
#[derive(Debug, Default)]
struct Lines(Mutex<CancellationToken>);

impl Lines {
    fn token(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cut(&self) {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).cancel();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: watch::Receiver<Upstream>,
    faults: watch::Receiver<ProxyFaults>,
    lines: Arc<Lines>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors; they will come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if faults.borrow().refuses {
            continue;
        }
        let (upstream, faults, token) = (upstream.borrow().clone(), faults.clone(), lines.token());
        tokio::spawn(async move {
            // However a connection ends: both sides see it end.
            let _ended = token.run_until_cancelled(forward(stream, upstream, faults)).await;
        });
    }
}

async fn forward(stream: TcpStream, upstream: Upstream, faults: watch::Receiver<ProxyFaults>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match upstream {
        Upstream::Tcp(address) => {
            let server = TcpStream::connect(address).await?;
            server.set_nodelay(true)?;
            both_ways(stream, server, faults).await
        }
        Upstream::Unix(path) => both_ways(stream, UnixStream::connect(path).await?, faults).await,
    }
}

/// Until either side ends the connection.
async fn both_ways<S: AsyncRead + AsyncWrite>(
    client: TcpStream,
    server: S,
    faults: watch::Receiver<ProxyFaults>,
) -> io::Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    tokio::select! {
        ended = carry(from_client, to_server, faults.clone(), Way::Requests) => ended,
        ended = carry(from_server, to_client, faults.clone(), Way::Answers) => ended,
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut faults: watch::Receiver<ProxyFaults>,
    way: Way,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).await?;
        let delay = match faults.wait_for(|faults| !faults.holds(way)).await {
            Ok(faults) => faults.delay,
            // The proxy has ended.
            Err(_) => return Ok(()),
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    /// A server that sends everything back, behind a proxy, and a connection to it.
    async fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut from, mut to) = tokio::io::split(stream);
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        let proxy = Proxy::start(Upstream::Tcp(address)).await.unwrap();
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, stream)
    }

    async fn call(stream: &mut TcpStream) -> io::Result<[u8; 4]> {
        stream.write_all(b"ping").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_proxy_without_faults_passes_everything() {
        let (_proxy, mut stream) = echo().await;
        assert_eq!(&call(&mut stream).await.unwrap(), b"ping");
    }

    #[tokio::test]
    async fn connections_are_cut_and_refused_and_come_back() {
        let (proxy, mut stream) = echo().await;
        call(&mut stream).await.unwrap();
        proxy.set(ProxyFaults { refuses: true, ..ProxyFaults::default() });
        proxy.cut();
        assert!(call(&mut stream).await.is_err());
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(call(&mut refused).await.is_err());
        proxy.set(ProxyFaults::default());
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(&call(&mut again).await.unwrap(), b"ping");
    }

    #[tokio::test]
    async fn everything_takes_longer() {
        let (proxy, mut stream) = echo().await;
        proxy.set(ProxyFaults { delay: Duration::from_millis(30), ..ProxyFaults::default() });
        let began = Instant::now();
        call(&mut stream).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn what_is_held_comes_when_the_faults_end() {
        for faults in [
            ProxyFaults { holds_requests: true, ..ProxyFaults::default() },
            ProxyFaults { holds_answers: true, ..ProxyFaults::default() },
        ] {
            let (proxy, mut stream) = echo().await;
            proxy.set(faults);
            stream.write_all(b"ping").await.unwrap();
            let mut answer = [0; 4];
            let held = timeout(Duration::from_millis(30), stream.read_exact(&mut answer)).await;
            assert!(held.is_err(), "{faults:?}");
            proxy.set(ProxyFaults::default());
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"ping");
        }
    }
}
