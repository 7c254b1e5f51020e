//! A client that sends to one queue, one call at a time, at times without waiting for the answer.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::client::{Failure, Roaming, Target};
use super::history::{MessageId, SendCall};
use super::load::Load;
use crate::chaos::api::Source;

/// Messages in one send.
const BATCH_MAX: u32 = 10;
/// The mean of what is drawn.
pub(super) const BATCH_MEAN: f64 = (1 + BATCH_MAX) as f64 / 2.0;
/// Messages that the slowest group of a queue may be behind.
const LAG_MAX: u64 = 5_000;
/// Sends of a queue with delays that have one, of all of them.
const DELAYED: f64 = 0.05;
const LARGE: f64 = 0.01;
const VANISHES: f64 = 0.01;
/// A delay is not longer, so that the end does not wait for it for long.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Producer {
    load: Arc<Load>,
    client: Roaming,
    rng: StdRng,
    queue: usize,
    number: u32,
    sequence: u32,
}

impl Producer {
    /// Numbers its messages from 0.
    pub(super) fn new(load: Arc<Load>, client: Roaming, rng: StdRng, queue: usize, number: u32) -> Self {
        Self { load, client, rng, queue, number, sequence: 0 }
    }

    /// Sends one call in each `pace` until told to stop.
    pub(super) async fn run(mut self, pace: Duration) {
        let mut ticks = interval(pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.load.sent.clone();
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.load.recorder.lag(self.queue) > LAG_MAX {
                continue;
            }
            if !self.send().await {
                sleep(Duration::from_millis(self.rng.random_range(20..200))).await;
            }
        }
    }

    /// Sends a batch; whether it was answered.
    pub(super) async fn send(&mut self) -> bool {
        let count = self.rng.random_range(1..=BATCH_MAX);
        let first = MessageId { producer: self.number, sequence: self.sequence };
        self.sequence += count;
        let bodies = self.load.bodies.batch(self.queue, first, count, self.rng.random_bool(LARGE));
        let delay = self.delay();
        let vanishes = (self.rng.random_bool(VANISHES) && !self.load.calm.is_cancelled())
            .then(|| Duration::from_millis(self.rng.random_range(0..20)));
        let queue = &self.load.topology.queues[self.queue];
        let began = self.load.recorder.now();
        let call = self.client.caller.send(queue.project, &queue.id, bodies, delay);
        let answer = match vanishes {
            Some(after) => timeout(after, call).await.unwrap_or_else(|_| Err(Failure::Unknown("vanished".into()))),
            None => call.await,
        };
        let window = self.load.recorder.since(began);
        self.load.recorder.send(SendCall { queue: self.queue, first, count, window, answered: answer.is_ok() });
        if let Err(failure) = &answer {
            let (project, queue) = (queue.project.to_owned(), queue.id.clone());
            let target = Target { project, queue, group: String::new(), source: Source::Normal };
            self.load.failed("send", failure, &target);
            self.client.turn();
        }
        answer.is_ok()
    }

    fn delay(&mut self) -> Duration {
        if !self.load.topology.queues[self.queue].delays || !self.rng.random_bool(DELAYED) {
            return Duration::ZERO;
        }
        Duration::from_millis(self.rng.random_range(1..=DELAY_MAX.as_millis() as u64))
    }
}
