//! Random operations of several concurrent clients at two replicas of the real service, against an in-memory model of the
//! rules (`queue`, `group`, `reader`), with a clock that the test turns.
//!
//! A run is rounds: up to five operations at the same time, then the search for an order of them in which the model allows
//! every answer (`linearize`). Between rounds a witness group of each queue tells where messages landed; the clock is turned;
//! counters are compared. At the end everything is consumed, and every message must have come to a known end in every group.
//!
//! Each run prints its seed. What clients ask is made from the seed and from what they were answered before, so a seed
//! repeats a run as far as the operations within a round happen in the same order again.
//!
//! - `DMS_MODEL_SEED`: only this seed.
//! - `DMS_MODEL_STEPS`: operations of each run (default 1500).
//! - `DMS_MODEL_RUNS`: so many runs with fresh seeds, besides the fixed ones (default 1).

mod generate;
mod group;
mod linearize;
mod operations;
mod queue;
mod reader;
mod rejects;
mod rest;
mod run;
mod site;

use std::str::FromStr;

use tokio::task::{JoinSet, LocalSet};

use self::run::Run;

const SEEDS: [u64; 3] = [1, 2, 3];
const STEPS: usize = 1500;
/// Runs at the same time: most of the time of a run is waiting.
const AT_ONCE: usize = 4;

fn setting<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = setting("DMS_MODEL_SEED") {
        return vec![seed];
    }
    let fresh = setting("DMS_MODEL_RUNS").unwrap_or(1);
    SEEDS.into_iter().chain((0..fresh).map(|_| u64::from(rand::random::<u32>()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_keeps_the_rules_under_random_concurrent_operations() {
    let steps = setting("DMS_MODEL_STEPS").unwrap_or(STEPS);
    let done = LocalSet::new().run_until(carry_out(seeds(), steps)).await;
    eprintln!("model runs: {done} operations checked");
}

async fn carry_out(seeds: Vec<u64>, steps: usize) -> usize {
    let (mut waiting, mut running, mut done) = (seeds.into_iter(), JoinSet::new(), 0);
    loop {
        while running.len() < AT_ONCE
            && let Some(seed) = waiting.next()
        {
            running.spawn_local(Run::carry_out(seed, steps));
        }
        match running.join_next().await {
            None => return done,
            Some(Ok(count)) => done += count,
            Some(Err(failed)) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
}
