//! Certificates of the listeners, and of the way from a gateway to its service.

use std::path::PathBuf;

use clap::Args;

use crate::net::tls::TlsOptions;
use crate::reload::Source;

/// Certificate and key of the listeners.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Certificate chain (PEM) of the gRPC and REST listeners, reloaded when it changes; plain text if not set
    #[arg(long, env = "DMS_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, env = "DMS_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Authorities (PEM) of client certificates, then required on the REST port, probes included
    #[arg(long, env = "DMS_REST_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub(crate) rest_client_ca: Option<PathBuf>,
}

/// The same for the gRPC listener.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub struct GrpcTlsArgs {
    /// Authorities (PEM) of client certificates, then required on the gRPC port, probes included
    #[arg(long, env = "DMS_GRPC_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub(crate) grpc_client_ca: Option<PathBuf>,
}

impl TlsArgs {
    /// TLS of the REST listener, if any.
    pub fn rest(&self) -> Option<TlsOptions> {
        self.with_clients_of(self.rest_client_ca.as_ref())
    }

    /// TLS of the gRPC listener, if any.
    pub fn grpc(&self, grpc: &GrpcTlsArgs) -> Option<TlsOptions> {
        self.with_clients_of(grpc.grpc_client_ca.as_ref())
    }

    fn with_clients_of(&self, client_ca: Option<&PathBuf>) -> Option<TlsOptions> {
        let file = |path: &PathBuf| Source::File(path.clone());
        Some(TlsOptions {
            certificate: file(self.tls_cert.as_ref()?),
            key: Source::SecretFile(self.tls_key.clone()?),
            client_authorities: client_ca.map(file),
        })
    }
}

/// How a gateway on its own trusts its service, and shows itself to it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct UpstreamTlsArgs {
    /// Authorities (PEM) that sign the service's certificate, instead of the system's
    #[arg(long, env = "DMS_UPSTREAM_CA", value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
    /// Certificate chain (PEM) to show to the service
    #[arg(long, env = "DMS_UPSTREAM_CERT", value_name = "FILE", requires = "upstream_key")]
    pub upstream_cert: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(long, env = "DMS_UPSTREAM_KEY", value_name = "FILE", requires = "upstream_cert")]
    pub upstream_key: Option<PathBuf>,
}
