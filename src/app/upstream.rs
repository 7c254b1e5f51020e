//! The way from a gateway on its own to its service: several connections, each replaced after a time, with certificates that follow their files.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::transport::channel::Change;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::UpstreamTlsArgs;
use crate::domain::{Error, Result};
use crate::reload::{Malformed, Source, Watched};

/// A connection that has silently died is given up after the sum of both, and made anew.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A channel to the service, and what it is made of.
#[derive(Debug)]
pub struct Upstream {
    /// Calls go here.
    pub channel: Channel,
    /// Of new connections.
    pub(crate) endpoint: Option<Arc<Watched<Endpoint>>>,
}

impl From<Channel> for Upstream {
    fn from(channel: Channel) -> Self {
        Self { channel, endpoint: None }
    }
}

impl Upstream {
    /// Connects with the first calls, and again whenever a connection is lost. A service of several replicas is behind one address, which leads
    /// each connection to any of them: with several connections calls reach several replicas, and with new ones in place of old ones also those
    /// that were started later. Calls on an old one end in peace. Needs a runtime.
    pub async fn connect(url: String, connections: u16, age: Duration, tls: &UpstreamTlsArgs) -> Result<Self> {
        let endpoint = Arc::new(watched(url, tls).await?);
        let (channel, changes) = Channel::balance_channel(usize::from(connections) + 1);
        for number in 0..connections {
            let inserted = changes.try_send(Change::Insert(u64::from(number), (*endpoint.get()).clone()));
            // There is room for all of them.
            inserted.map_err(|error| Error::internal(format!("connections to the service: {error}")))?;
        }
        tokio::spawn(renew(Arc::clone(&endpoint), connections, age, changes));
        Ok(Self { channel, endpoint: Some(endpoint) })
    }
}

/// Replaces one connection after the other until the channel is gone.
async fn renew(
    endpoint: Arc<Watched<Endpoint>>,
    connections: u16,
    age: Duration,
    changes: mpsc::Sender<Change<u64, Endpoint>>,
) {
    let mut oldest = 0;
    while tokio::time::timeout(age / u32::from(connections), changes.closed()).await.is_err() {
        let newest = oldest + u64::from(connections);
        let changed = async {
            changes.send(Change::Insert(newest, (*endpoint.get()).clone())).await?;
            changes.send(Change::Remove(oldest)).await
        };
        if changed.await.is_err() {
            return;
        }
        oldest += 1;
    }
}

/// The service as it is to be reached, with the files as they are now.
async fn watched(url: String, tls: &UpstreamTlsArgs) -> Result<Watched<Endpoint>> {
    let authorities = tls.upstream_ca.clone().map(Source::File);
    let identity = tls.upstream_cert.clone().zip(tls.upstream_key.clone());
    let (has_authorities, has_identity) = (authorities.is_some(), identity.is_some());
    let identity = identity.map(|(certificate, key)| [Source::File(certificate), Source::SecretFile(key)]);
    let sources = authorities.into_iter().chain(identity.into_iter().flatten()).collect();
    let build = move |contents: &[Vec<u8>]| {
        let (authorities, identity) = contents.split_at(usize::from(has_authorities));
        let identity = has_identity.then_some(identity);
        endpoint(&url, authorities.first(), identity).map_err(|error| Malformed(error.to_string()))
    };
    Watched::all("upstream-tls", sources, build).await
}

fn endpoint(
    url: &str,
    authorities: Option<&Vec<u8>>,
    identity: Option<&[Vec<u8>]>,
) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_LIMIT)
        .keep_alive_while_idle(true);
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint);
    }
    let mut config = ClientTlsConfig::new();
    config = match authorities {
        Some(authorities) => config.ca_certificate(Certificate::from_pem(authorities)),
        None => config.with_native_roots(),
    };
    if let Some([certificate, key]) = identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    endpoint.tls_config(config)
}
