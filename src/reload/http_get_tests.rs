use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

/// Gives every client the same answer; where it listens.
async fn serve(answer: String, tls: Option<TlsAcceptor>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => speak(stream, &answer).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => speak(stream, &answer).await,
                    Err(_) => continue,
                },
            }
        }
    });
    address
}

async fn speak(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
    let mut request = [0; 1024];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nlocation: /elsewhere\r\n\r\n{body}", body.len())
}

async fn fetch(scheme: &str, address: &str) -> Result<Vec<u8>> {
    get(&format!("{scheme}://{address}/keys?a=b").parse().unwrap()).await
}

#[tokio::test]
async fn a_document_is_fetched_and_nothing_else_is() {
    let address = serve(answer("200 OK", "{}"), None).await;
    assert_eq!(fetch("http", &address).await.unwrap(), b"{}");
    assert!(fetch("ftp", &address).await.is_err() && fetch("https", &address).await.is_err());
    for status in ["302 Found", "404 Not Found", "500 Internal Server Error", "204 No Content"] {
        assert!(fetch("http", &serve(answer(status, ""), None).await).await.is_err(), "{status}");
    }
    let large = serve(answer("200 OK", &"x".repeat(BYTES_MAX + 1)), None).await;
    assert!(fetch("http", &large).await.is_err());
    assert!(fetch("http", "localhost:1").await.is_err());
}

#[tokio::test]
async fn only_certificates_of_the_given_authorities_are_trusted() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let address = serve(answer("200 OK", "{}"), Some(TlsAcceptor::from(Arc::new(config)))).await;
    let uri: Uri = format!("https://{address}/").parse().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    assert_eq!(over_tls(&uri, roots.clone()).await.unwrap(), b"{}");
    let other_name = uri.to_string().replace("localhost", "127.0.0.1").parse().unwrap();
    assert!(over_tls(&other_name, roots).await.is_err());
    assert!(over_tls(&uri, RootCertStore::empty()).await.is_err());
}

#[test]
fn keys_come_encrypted_or_from_this_machine() {
    for (url, expected) in [
        ("https://id.example/certs", true),
        ("http://localhost:8000/certs", true),
        ("http://127.0.0.1/certs", true),
        ("http://[::1]:80/certs", true),
        ("http://id.example/certs", false),
        ("http://localhost.example/certs", false),
        ("/certs", false),
        ("ftp://localhost/certs", false),
    ] {
        assert_eq!(is_trustworthy(&url.parse().unwrap()), expected, "{url}");
    }
}
