//! The network: between replicas and Postgres, or between clients and replicas.

use std::time::Duration;

use anyhow::Result;
use rand::Rng as _;
use tokio::time::sleep;

use super::Scene;
use crate::chaos::proxy::{Proxy, ProxyFaults};

/// The proxies that a fault concerns.
fn proxies<'a>(scene: &mut Scene<'a>, clients: bool) -> Vec<&'a Proxy> {
    let testbed = scene.testbed;
    let replicas = testbed.some_replicas(&mut scene.rng);
    match clients {
        true => replicas.into_iter().flat_map(|replica| [&replica.grpc, &replica.rest]).collect(),
        false => replicas.into_iter().flat_map(|replica| &replica.databases).collect(),
    }
}

/// Connections end, several times.
pub(super) async fn cut(scene: &mut Scene<'_>, clients: bool) -> Result<()> {
    for _ in 0..scene.rng.random_range(1..=5) {
        proxies(scene, clients).into_iter().for_each(Proxy::cut);
        sleep(Duration::from_millis(scene.rng.random_range(20..500))).await;
    }
    Ok(())
}

/// There are no connections for a while.
pub(super) async fn refuse(scene: &mut Scene<'_>) -> Result<()> {
    let (proxies, time) = (proxies(scene, false), scene.span());
    for proxy in &proxies {
        proxy.set(ProxyFaults { refuses: true, ..ProxyFaults::default() });
        proxy.cut();
    }
    sleep(time).await;
    clear(&proxies);
    Ok(())
}

/// Everything takes longer for a while.
pub(super) async fn delay(scene: &mut Scene<'_>, clients: bool) -> Result<()> {
    let (proxies, time) = (proxies(scene, clients), scene.span());
    let delay = Duration::from_millis(scene.rng.random_range(10..800));
    proxies.iter().for_each(|proxy| proxy.set(ProxyFaults { delay, ..ProxyFaults::default() }));
    sleep(time).await;
    clear(&proxies);
    Ok(())
}

/// Nothing gets through for a while, both ways or one. What was on its way comes late, or never.
pub(super) async fn lose(scene: &mut Scene<'_>, clients: bool) -> Result<()> {
    let (proxies, time) = (proxies(scene, clients), scene.span());
    let (holds_requests, holds_answers) = match scene.rng.random_range(0..3) {
        0 => (true, true),
        1 => (true, false),
        _ => (false, true),
    };
    proxies.iter().for_each(|proxy| proxy.set(ProxyFaults { holds_requests, holds_answers, ..ProxyFaults::default() }));
    sleep(time).await;
    if scene.rng.random_bool(0.5) {
        proxies.iter().for_each(|proxy| proxy.cut());
    }
    clear(&proxies);
    Ok(())
}

fn clear(proxies: &[&Proxy]) {
    proxies.iter().for_each(|proxy| proxy.set(ProxyFaults::default()));
}
