//! Fetches a small public document over HTTPS: the keys of an issuer of tokens.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::task::AbortOnDropHandle;

/// The whole exchange.
const TIME_MAX: Duration = Duration::from_secs(10);
const BYTES_MAX: usize = 1024 * 1024;

/// The document at this URL. Redirects are not followed: what the keys are must not be somebody else's to say.
pub async fn get(uri: &Uri) -> Result<Vec<u8>> {
    let exchange = async {
        match uri.scheme_str() {
            Some("http") => exchange(uri, connect(uri, 80).await?).await,
            Some("https") => over_tls(uri, native_roots()?).await,
            _ => bail!("not a URL that can be fetched"),
        }
    };
    tokio::time::timeout(TIME_MAX, exchange).await.context("no answer in time")?
}

/// Whether a URL may be trusted: encrypted, or not leaving the machine.
pub(crate) fn is_trustworthy(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => matches!(host, "localhost" | "127.0.0.1" | "[::1]"),
        _ => false,
    }
}

async fn over_tls(uri: &Uri, roots: RootCertStore) -> Result<Vec<u8>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    let host = uri.host().context("no host")?.trim_matches(['[', ']']).to_owned();
    let stream = connect(uri, 443).await?;
    exchange(uri, TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, stream).await?).await
}

/// The authorities that this machine trusts.
fn native_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let _added_and_ignored = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ensure!(!roots.is_empty(), "this machine trusts no certificate authority");
    Ok(roots)
}

async fn connect(uri: &Uri, port: u16) -> Result<TcpStream> {
    let host = uri.host().context("no host")?.trim_matches(['[', ']']);
    Ok(TcpStream::connect((host, uri.port_u16().unwrap_or(port))).await?)
}

async fn exchange(uri: &Uri, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Vec<u8>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ended with the exchange, also when that is given up.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().context("no host")?.as_str();
    let request = Request::get(path).header(header::HOST, host).header(header::ACCEPT, "application/json");
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    ensure!(answer.status() == StatusCode::OK, "answered {}", answer.status());
    let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
    Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes().to_vec())
}

#[cfg(test)]
#[path = "http_get_tests.rs"]
mod tests;
