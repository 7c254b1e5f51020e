//! TLS and client certificates on both ports, and certificates that are changed while the service runs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dms::api::TrafficLimits;
use dms::app::server::{Server, ServerOptions};
use dms::auth::AuthOptions;
use dms::broker::{BrokerOptions, Settings};
use dms::net::tls::TlsOptions;
use dms::reload::Source;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::calls::eventually;
use crate::support::credentials::SecretFile;
use crate::support::postgres::TestDatabase;

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
pub(crate) struct Identified {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// For this machine.
    pub(crate) fn sign(&self) -> Identified {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Identified { certificate, key: key.serialize_pem() }
    }
}

impl Identified {
    fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }
}

/// A service with TLS whose certificate can be changed.
struct Secured {
    server: Server,
    certificate: SecretFile,
    key: SecretFile,
    _database: TestDatabase,
}

impl Secured {
    async fn start(authority: &Authority, clients: Option<&Authority>) -> Self {
        let database = TestDatabase::create().await;
        let identified = authority.sign();
        let (certificate, key) = (SecretFile::text(&identified.certificate), SecretFile::text(&identified.key));
        let tls = TlsOptions {
            certificate: certificate.source(),
            key: key.source(),
            client_authorities: clients.map(|authority| Source::Text(authority.pem())),
        };
        let settings = Settings { pool_connections: 2, ..Settings::default() };
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(ServerOptions {
            broker: BrokerOptions { database: database.url().into(), settings, clock: None },
            auth: AuthOptions::Open,
            limits: TrafficLimits::default(),
            grpc_addr: any,
            grpc_tls: Some(tls.clone()),
            grpc_connection_age: None,
            rest_addr: Some(any),
            rest_tls: Some(tls),
            rest: dms::gateway::RestOptions::default(),
            admin_addr: None,
            metrics_groups_max: 0,
            allowed_hosts: Vec::new(),
            net: dms::net::NetLimits::default(),
            shutdown_limit: Duration::from_secs(5),
        });
        Self { server: server.await.unwrap(), certificate, key, _database: database }
    }

    /// Whether a gRPC client gets an answer that trusts this authority and shows this certificate.
    async fn grpc(&self, authority: &Authority, shows: Option<&Identified>) -> bool {
        let mut tls =
            ClientTlsConfig::new().domain_name("localhost").ca_certificate(Certificate::from_pem(authority.pem()));
        if let Some(identified) = shows {
            tls = tls.identity(identified.identity());
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.server.grpc_addr())).unwrap();
        is_healthy(endpoint.tls_config(tls).unwrap().connect_lazy()).await
    }

    /// The same for REST.
    async fn rest(&self, authority: &Authority, shows: Option<&Identified>) -> bool {
        let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
        let mut client = reqwest::Client::builder().use_rustls_tls().add_root_certificate(root);
        if let Some(Identified { certificate, key }) = shows {
            client = client.identity(reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap());
        }
        let url = format!("https://localhost:{}/v1.0/p/queues", self.server.rest_addr().unwrap().port());
        client.build().unwrap().get(url).send().await.is_ok_and(|answer| answer.status() == 200)
    }
}

async fn is_healthy(channel: Channel) -> bool {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok()
}

#[tokio::test]
async fn both_doors_speak_tls_and_nothing_else() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let service = Secured::start(&authority, None).await;
    assert!(service.grpc(&authority, None).await && service.rest(&authority, None).await);
    assert!(!service.grpc(&stranger, None).await && !service.rest(&stranger, None).await);
    let plain = Endpoint::from_shared(format!("http://{}", service.server.grpc_addr())).unwrap();
    assert!(!is_healthy(plain.connect_lazy()).await);
    let plain = format!("http://{}/healthz", service.server.rest_addr().unwrap());
    assert!(reqwest::get(plain).await.is_err());
    service.server.shutdown().await;
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_are_let_in() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let service = Secured::start(&authority, Some(&clients)).await;
    let (known, unknown) = (clients.sign(), authority.sign());
    assert!(service.grpc(&authority, Some(&known)).await && service.rest(&authority, Some(&known)).await);
    for shows in [None, Some(&unknown)] {
        assert!(!service.grpc(&authority, shows).await && !service.rest(&authority, shows).await);
    }
    service.server.shutdown().await;
}

#[tokio::test]
async fn a_changed_certificate_is_in_force_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let service = Secured::start(&old, None).await;
    let next = new.sign();
    // Half of a change is none.
    service.certificate.write_text(&next.certificate);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(service.grpc(&old, None).await);
    service.key.write_text(&next.key);
    eventually("the new certificate is shown", async || service.grpc(&new, None).await).await;
    eventually("on the other port too", async || service.rest(&new, None).await).await;
    assert!(!service.grpc(&old, None).await && !service.rest(&old, None).await);
    service.server.shutdown().await;
}

#[tokio::test]
async fn clients_that_never_shake_hands_hold_up_nobody() {
    let authority = Authority::new();
    let service = Secured::start(&authority, None).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(service.server.grpc_addr()).await.unwrap());
        silent.push(TcpStream::connect(service.server.rest_addr().unwrap()).await.unwrap());
    }
    let begun = std::time::Instant::now();
    assert!(service.grpc(&authority, None).await && service.rest(&authority, None).await);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Nor do they hold up the end.
    service.server.shutdown().await;
}

/// A gateway as a process of its own.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_on_its_own_shows_its_certificate_to_the_service() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let service = Secured::start(&authority, Some(&clients)).await;
    let client = clients.sign();
    let files = [authority.pem(), client.certificate, client.key].map(|text| SecretFile::text(&text));
    let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
    command.args(["gateway", "--rest-addr=127.0.0.1:0", "--admin-addr=off", "--log-format=json"]);
    command.arg(format!("--upstream=https://localhost:{}", service.server.grpc_addr().port()));
    for (flag, file) in ["--upstream-ca", "--upstream-cert", "--upstream-key"].iter().zip(&files) {
        command.arg(flag).arg(&file.0);
    }
    let mut gateway = Gateway(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(gateway.0.stderr.take().unwrap()).lines();
    let address =
        |line: String| Some(serde_json::from_str::<serde_json::Value>(&line).ok()?["address"].as_str()?.to_owned());
    let url = format!("http://{}/v1.0/p/queues", log.find_map(|line| address(line.unwrap())).unwrap());
    assert_eq!(reqwest::get(url).await.unwrap().status(), 200);
}
