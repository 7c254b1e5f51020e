//! `dms healthcheck`, as a container asks.

use std::process::{Command, Output};

use crate::support::service::TestService;

async fn healthcheck(url: String) -> Output {
    let run = move || Command::new(env!("CARGO_BIN_EXE_dms")).args(["healthcheck", "--url", &url]).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn it_ends_with_0_only_when_the_service_is_ready() {
    let service = TestService::start().await;
    let ready = healthcheck(format!("{}/readyz", service.replica.rest())).await;
    assert!(ready.status.success(), "{ready:?}");
    for (path, why) in [("/nothing", "answered 404"), ("/v1.0/p/queues/x", "answered 400")] {
        let refused = healthcheck(format!("{}{path}", service.replica.rest())).await;
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && text.contains(why), "{path}: {text}");
    }
    let nobody = healthcheck("http://127.0.0.1:1/readyz".into()).await;
    assert!(!nobody.status.success(), "{nobody:?}");
}
