//! A port that is taken is complained of before anything serves, by the flag that would change it.

use std::net::TcpListener;
use std::time::Duration;

use dms::api::TrafficLimits;
use dms::app::gateway::{Standalone, StandaloneOptions};
use dms::app::server::{Server, ServerOptions};
use dms::auth::AuthOptions;
use dms::broker::{BrokerOptions, Settings};
use tonic::transport::Endpoint;

#[tokio::test]
async fn the_service_names_the_flag_before_it_looks_for_postgres() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (holder.local_addr().unwrap(), "127.0.0.1:0".parse().unwrap());
    for (flag, [grpc, rest, admin]) in [
        ("--grpc-addr", [taken, free, free]),
        ("--rest-addr", [free, taken, free]),
        ("--admin-addr", [free, free, taken]),
    ] {
        let nowhere = "postgres://127.0.0.1:1/nowhere".to_owned();
        let options = ServerOptions {
            broker: BrokerOptions { database: nowhere.into(), settings: Settings::default(), clock: None },
            auth: AuthOptions::Open,
            limits: TrafficLimits::default(),
            grpc_addr: grpc,
            grpc_tls: None,
            grpc_connection_age: None,
            rest_addr: Some(rest),
            rest_tls: None,
            rest: dms::gateway::RestOptions::default(),
            admin_addr: Some(admin),
            metrics_groups_max: 0,
            allowed_hosts: Vec::new(),
            net: dms::net::NetLimits::default(),
            shutdown_limit: Duration::from_secs(5),
        };
        let error = Server::start(options).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{flag}: cannot listen on {taken}: ")), "{error}");
    }
}

#[tokio::test]
async fn the_gateway_names_the_flag() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (holder.local_addr().unwrap(), "127.0.0.1:0".parse().unwrap());
    for (flag, [rest, admin]) in [("--rest-addr", [taken, free]), ("--admin-addr", [free, taken])] {
        let options = StandaloneOptions {
            upstream: Endpoint::from_static("http://127.0.0.1:1").connect_lazy().into(),
            rest_addr: rest,
            rest_tls: None,
            rest: dms::gateway::RestOptions::default(),
            admin_addr: Some(admin),
            allowed_hosts: Vec::new(),
            net: dms::net::NetLimits::default(),
            memory_max: 256 << 20,
            shutdown_limit: Duration::from_secs(5),
        };
        let error = Standalone::start(options).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{flag}: cannot listen on {taken}: ")), "{error}");
    }
}
