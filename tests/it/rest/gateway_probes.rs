//! What a gateway on its own tells operators: probes that follow the service behind it, and metrics of its own.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use dms::api::health::Health;
use dms::app::gateway::{Standalone, StandaloneOptions};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};

use crate::rest::gateway_alone::in_front_of;
use crate::support::calls::eventually;
use crate::support::rest::Rest;
use crate::support::service::{PROJECT, TestService};

/// A service that can be away and come back at the same address. While it is away, connections get no answer.
struct Upstream(TcpListener);

impl Upstream {
    fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    fn serve(&self, routes: Routes) -> Serving {
        let listener = tokio::net::TcpListener::from_std(self.0.try_clone().unwrap()).unwrap();
        let stop = CancellationToken::new();
        let serving = Server::builder()
            .add_routes(routes)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        Serving { stop, task: tokio::spawn(async move { serving.await.unwrap() }) }
    }
}

struct Serving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Both ports of a gateway.
struct Watched {
    rest: Rest,
    admin: Rest,
    _gateway: Standalone,
}

impl Watched {
    async fn in_front_of(url: String) -> Self {
        let (gateway, rest) = in_front_of(url).await;
        let admin = Rest::on(&format!("http://{}", gateway.admin_addr().unwrap()));
        Self { rest, admin, _gateway: gateway }
    }

    async fn probe(&self, path: &str) -> [u16; 2] {
        [self.rest.probe(path).await.0, self.admin.probe(path).await.0]
    }

    async fn becomes(&self, status: u16, when: &str) {
        eventually(when, async || self.probe("/readyz").await == [status; 2]).await;
        let up = if status == 200 { "\ndms_upstream_up 1\n" } else { "\ndms_upstream_up 0\n" };
        assert!(self.metrics().await.contains(up), "{when}");
        // Life is not a matter of the service.
        assert_eq!(self.probe("/healthz").await, [200; 2], "{when}");
    }

    async fn metrics(&self) -> String {
        let (status, text) = self.admin.probe("/metrics").await;
        assert_eq!(status, 200);
        assert!(text.ends_with("# EOF\n"), "{text}");
        text
    }
}

#[tokio::test]
async fn probes_follow_the_health_of_the_service() {
    let upstream = Upstream::bind();
    let watched = Watched::in_front_of(upstream.url()).await;
    assert_eq!((watched.probe("/readyz").await, watched.probe("/healthz").await), ([503; 2], [200; 2]));
    let health = Health::new().await;
    health.set(true).await;
    let healthy = || Routes::new(health.grpc());
    let serving = upstream.serve(healthy());
    watched.becomes(200, "the service has come").await;
    health.set(false).await;
    watched.becomes(503, "the service is not ready").await;
    health.set(true).await;
    watched.becomes(200, "the service is ready again").await;
    serving.end().await;
    watched.becomes(503, "the service answers nothing").await;
    let serving = upstream.serve(healthy());
    watched.becomes(200, "the service answers again").await;
    serving.end().await;
    let serving = upstream.serve(Routes::default());
    watched.becomes(503, "a service without health").await;
    serving.end().await;
}

#[tokio::test]
async fn probes_follow_a_service_that_stops() {
    let service = TestService::start().await;
    let watched = Watched::in_front_of(service.replica.grpc()).await;
    watched.becomes(200, "the service is ready").await;
    service.replica.shutdown().await;
    watched.becomes(503, "the service has stopped").await;
}

#[tokio::test]
async fn it_counts_requests_and_says_nothing_of_what_the_service_has() {
    let service = TestService::start().await;
    let watched = Watched::in_front_of(service.replica.grpc()).await;
    let (queue, group) = watched.rest.queue_and_group(&json!({ "name": "q" })).await;
    watched.rest.send_bodies(&queue, &[json!(1), json!(2)]).await;
    assert_eq!(watched.rest.consume(&group).await.0.len(), 2);
    assert_eq!(watched.rest.get("/nothing").await.status, 404);
    let text = watched.metrics().await;
    let counted = |method: &str, path: &str, status: u16| {
        let series = format!(r#"dms_rest_requests_total{{method="{method}",path="{path}",status="{status}"}} 1"#);
        assert!(text.lines().any(|line| line == series), "{series}\n{text}");
    };
    counted("POST", "/v1.0/{project_id}/queues", 201);
    counted("POST", "/v1.0/{project_id}/queues/{queue_id}/messages", 201);
    counted("GET", "/v1.0/{project_id}/queues/{queue_id}/groups/{group_id}/messages", 200);
    counted("GET", "other", 404);
    // Probes are no calls, ids no labels, and what only the service knows would be zero here.
    for absent in ["readyz", PROJECT, queue.as_str(), "dms_postgres", "dms_calls", "dms_lane", "dms_group"] {
        assert!(!text.contains(absent), "{absent}\n{text}");
    }
}

/// An address of this machine that is no loopback address, if it has one. Nothing is sent.
fn own_address() -> Option<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().filter(|address| !address.ip().is_loopback() && !address.ip().is_unspecified())
}

#[tokio::test]
async fn only_from_this_machine_is_the_log_changed() {
    let options = StandaloneOptions {
        upstream: Endpoint::from_static("http://127.0.0.1:1").connect_lazy().into(),
        rest_addr: "127.0.0.1:0".parse().unwrap(),
        rest_tls: None,
        rest: dms::gateway::RestOptions::default(),
        admin_addr: Some("0.0.0.0:0".parse().unwrap()),
        allowed_hosts: Vec::new(),
        net: dms::net::NetLimits::default(),
        memory_max: 256 << 20,
        shutdown_limit: Duration::from_secs(5),
    };
    let gateway = Standalone::start(options).await.unwrap();
    let port = gateway.admin_addr().unwrap().port();
    let set_log = async |host: String| {
        let request = reqwest::Client::new().put(format!("http://{host}:{port}/log")).body("dms=loud");
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    // Let in, and refused for what it asks: the tests have no log that could be changed.
    assert_eq!(set_log("127.0.0.1".into()).await.0, 400);
    if let Some(address) = own_address() {
        let (status, why) = set_log(address.ip().to_string()).await;
        assert!(status == 403 && why.starts_with("only a caller on this machine"), "{status} {why}");
    }
    gateway.shutdown().await;
}
