//! The clients of a run: how many there are, where they begin, and how they are seeded.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::client::{Door, Doors, Roaming};
use super::consumer::Consumer;
use super::load::Load;
use super::producer::{BATCH_MEAN, Producer};
use super::unauthorized_client::UnauthorizedClient;
use crate::chaos::api::Source;

const PRODUCERS_OF_QUEUE: usize = 2;
const CONSUMERS_OF_GROUP: usize = 4;
const CONSUMERS_OF_DEAD_LETTERS: usize = 2;
const TRESPASSERS: usize = 2;
/// The queue that probes send to: every kind of group reads it.
const PROBED_QUEUE: usize = 0;

/// Numbers for the generators of a run, so that each is another one and all follow from one seed.
#[derive(Debug)]
pub(super) struct Seeds {
    seed: u64,
    next: u64,
}

impl Seeds {
    /// Of a run.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, next: 0 }
    }

    /// The next generator.
    pub(super) fn generator(&mut self) -> StdRng {
        self.next += 1;
        StdRng::seed_from_u64(self.seed ^ self.next.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// The tasks.
#[derive(Debug)]
pub(super) struct Clients {
    producers: JoinSet<()>,
    others: JoinSet<()>,
}

impl Clients {
    /// Starts them all.
    pub(super) fn start(load: &Arc<Load>, rate: u32, seeds: &mut Seeds) -> Self {
        let mut clients = Self { producers: JoinSet::new(), others: JoinSet::new() };
        let count = load.topology.queues.len() * PRODUCERS_OF_QUEUE;
        let pace = Duration::from_secs_f64(BATCH_MEAN * count as f64 / f64::from(rate));
        for number in 0..count {
            let client = Roaming::new(Arc::clone(&load.doors), Door::of(number), number / 2);
            let queue = number % load.topology.queues.len();
            clients.producers.spawn(producer(load, client, seeds, queue, number).run(pace));
        }
        let mut number = 0;
        for reader in load.topology.readers() {
            let normal = reader.source == Source::Normal;
            for _ in 0..if normal { CONSUMERS_OF_GROUP } else { CONSUMERS_OF_DEAD_LETTERS } {
                let client = Roaming::new(Arc::clone(&load.doors), Door::of(number / 2), number);
                clients.others.spawn(Consumer::new(Arc::clone(load), client, seeds.generator(), reader).run());
                number += 1;
            }
        }
        for number in 0..TRESPASSERS {
            let client = Roaming::new(Arc::clone(&load.doors), Door::of(number), number);
            clients.others.spawn(UnauthorizedClient::new(Arc::clone(load), client, seeds.generator()).run());
        }
        clients
    }

    /// Waits for the producers, who were told to stop.
    pub(super) async fn join_producers(&mut self) -> Result<()> {
        join(&mut self.producers).await
    }

    /// Waits for everybody else.
    pub(super) async fn join_others(&mut self) -> Result<()> {
        join(&mut self.others).await
    }
}

/// Senders that see whether a replica works, one for each, numbered behind the producers.
pub(super) fn probes(load: &Arc<Load>, seeds: &mut Seeds) -> Vec<Producer> {
    let first = load.topology.queues.len() * PRODUCERS_OF_QUEUE;
    let probe = |(replica, doors): (usize, &Doors)| {
        let client = Roaming::new(Arc::from([*doors]), Door::of(replica), 0);
        producer(load, client, seeds, PROBED_QUEUE, first + replica)
    };
    load.doors.iter().enumerate().map(probe).collect()
}

fn producer(load: &Arc<Load>, client: Roaming, seeds: &mut Seeds, queue: usize, number: usize) -> Producer {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    Producer::new(Arc::clone(load), client, seeds.generator(), queue, number)
}

/// A panic in a task ends the run.
async fn join(tasks: &mut JoinSet<()>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}
