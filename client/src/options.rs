//! Where the service is, and how a client is known there.

use std::fmt;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::Error;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const BEGIN_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";
/// The longest poll takes 60 s.
const DEADLINE: Duration = Duration::from_secs(75);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(10);

/// How to reach a service.
#[derive(Clone)]
pub struct Options {
    url: String,
    token: Option<String>,
    authorities: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    connect_limit: Duration,
    deadline: Duration,
}

impl Options {
    /// A service at `http://HOST:PORT`, or at `https://HOST:PORT` with a certificate that this machine trusts.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            authorities: None,
            identity: None,
            connect_limit: CONNECT_LIMIT,
            deadline: DEADLINE,
        }
    }

    /// Shows this bearer token, a token of the service or a JWT, with every call.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Trusts certificates of these authorities (PEM) instead of those that this machine trusts.
    #[must_use]
    pub fn authorities(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(pem.into());
        self
    }

    /// Shows this certificate (PEM), whose key (PEM) this is, to a service that asks for one.
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// How long making a connection may take; 5 s when not given.
    #[must_use]
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }

    /// How long a call may take, the wait of a consume included; 75 s when not given.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The transport that these options describe.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(|_| Error::option(format!("url: '{}' is not http://HOST:PORT or https://HOST:PORT", self.url)))?
            .connect_timeout(self.connect_limit)
            .timeout(self.deadline)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_LIMIT)
            .keep_alive_while_idle(true);
        match endpoint.uri().scheme_str() {
            Some("https") => endpoint.tls_config(self.tls()?).map_err(|error| Error::option(format!("tls: {error}"))),
            Some("http") => Ok(endpoint),
            _ => Err(Error::option(format!("url: '{}' is not http://HOST:PORT or https://HOST:PORT", self.url))),
        }
    }

    fn tls(&self) -> Result<ClientTlsConfig, Error> {
        let config = match &self.authorities {
            // The library would take it for a list of nobody, and fail with each connection.
            Some(authorities) if !has_certificate(authorities) => {
                return Err(Error::option("tls: the authorities have no certificate in PEM"));
            }
            Some(authorities) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        Ok(match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        })
    }

    /// The metadata that shows the token.
    pub(crate) fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let value = |token: &String| format!("Bearer {token}").parse();
        let mut value: Option<MetadataValue<Ascii>> = self
            .token
            .as_ref()
            .map(value)
            .transpose()
            .map_err(|_| Error::option("token: has characters that no header can have"))?;
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Ok(value)
    }
}

fn has_certificate(pem: &[u8]) -> bool {
    pem.windows(BEGIN_CERTIFICATE.len()).any(|window| window == BEGIN_CERTIFICATE)
}

/// Without the secrets.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("identity", &self.identity.as_ref().map(|_| "..."))
            .field("connect_limit", &self.connect_limit)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_be_meant_are_refused_by_name() {
        for (options, named) in [
            (Options::new("dms:50051"), "url: "),
            (Options::new("ftp://dms"), "url: "),
            (Options::new(""), "url: "),
            (Options::new("https://dms").authorities("not PEM"), "tls: "),
        ] {
            let refusal = options.endpoint().unwrap_err().to_string();
            assert!(refusal.starts_with(named), "{refusal}");
        }
        let refusal = Options::new("http://dms").token("a\nb").authorization().unwrap_err().to_string();
        assert!(refusal.starts_with("token: "), "{refusal}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = Options::new("https://dms").token("secret").identity("certificate", "secret");
        let text = format!("{options:?}{:?}", options.authorization().unwrap());
        assert!(!text.contains("secret"), "{text}");
    }
}
