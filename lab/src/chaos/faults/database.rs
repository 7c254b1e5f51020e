//! Postgres itself: crashes and restarts.

use anyhow::Result;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use super::Scene;
use crate::chaos::postgres::{Victims, session};

pub(super) async fn kill(scene: &mut Scene<'_>) -> Result<()> {
    let victims = if scene.rng.random_bool(0.5) { Victims::All } else { Victims::Postmaster };
    let pause = scene.pause();
    scene.testbed.postgres.lock().await.kill(victims, pause, scene.recorder()).await
}

pub(super) async fn restart(scene: &mut Scene<'_>) -> Result<()> {
    let pause = scene.pause();
    scene.testbed.postgres.lock().await.restart(pause).await
}

pub(super) async fn kill_backend(scene: &mut Scene<'_>) -> Result<()> {
    let mut postgres = scene.testbed.postgres.lock().await;
    let backends = session(&scene.testbed.database_url).await?.service_backends().await.unwrap_or_default();
    match backends.choose(&mut scene.rng).and_then(|backend| u32::try_from(*backend).ok()) {
        Some(backend) => postgres.kill_backend(backend, scene.recorder()).await,
        None => Ok(()),
    }
}
