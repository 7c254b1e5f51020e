//! TLS of the listeners: certificate, key and the authorities of client certificates, followed when their files change.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::domain::Result;
use crate::reload::{Malformed, Source, Watched};

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// The files, all PEM.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Certificate chain of the service.
    pub certificate: Source,
    /// Its private key.
    pub key: Source,
    /// Authorities whose client certificates are let in, and no others; without it clients need none.
    pub client_authorities: Option<Source>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 only.
    Grpc,
    /// HTTP/2 or HTTP/1.1.
    Rest,
}

impl Protocol {
    fn names(self) -> Vec<Vec<u8>> {
        match self {
            Self::Grpc => vec![HTTP_2.to_vec()],
            Self::Rest => vec![HTTP_2.to_vec(), HTTP_1.to_vec()],
        }
    }
}

/// The configuration of a listener; connections made after a change of the files have the new one.
pub async fn load(options: TlsOptions, protocol: Protocol) -> Result<Arc<Watched<ServerConfig>>> {
    let sources = [options.certificate, options.key].into_iter().chain(options.client_authorities).collect();
    let what = match protocol {
        Protocol::Grpc => "grpc-tls",
        Protocol::Rest => "rest-tls",
    };
    Watched::all(what, sources, move |contents| configuration(contents, protocol)).await.map(Arc::new)
}

fn configuration(contents: &[Vec<u8>], protocol: Protocol) -> Result<ServerConfig, Malformed> {
    let [certificate, key, authorities @ ..] = contents else {
        return Err(Malformed("no certificate and key".into()));
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(because("protocol versions"))?;
    let builder = match authorities.first() {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(because("client authorities"))?)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(because("key"))?;
    // Refused when the key is not that of the certificate: one of the files may have changed before the other.
    let mut config =
        builder.with_single_cert(certificates(certificate)?, key).map_err(because("certificate and key"))?;
    config.alpn_protocols = protocol.names();
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Malformed> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(because("certificate"))?;
    match certificates.is_empty() {
        true => Err(Malformed("no certificate in the file".into())),
        false => Ok(certificates),
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, Malformed> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(because("client authorities"))?;
    }
    Ok(roots)
}

/// The errors of the library name structures, never content.
fn because<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Malformed {
    move |error| Malformed(format!("{what}: {error}"))
}
