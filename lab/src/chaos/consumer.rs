//! A client that consumes from one stream of one group, and now and then vanishes, or treats a batch as it should not.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{sleep, timeout};

use super::ack_behaviours::{Move, Say, calm_moves, moves};
use super::checker::Rule;
use super::client::{Ask, Failure, Received, Roaming};
use super::history::{Batch, Delivery, DeliveryRef, MessageId, Unanswered, Window};
use super::load::{Handled, LEASE, Load};
use super::recorder::ReaderId;
use crate::chaos::api::{AckStatus, Source};

/// Consumes that are given up, in a thousand: on NORMAL queues, and on FIFO queues.
const VANISHES: (u32, u32) = (20, 2);
/// Handlers that are left lying about.
const LEAVES: f64 = 0.02;
/// An acknowledgement without an answer is sent once more, at times.
const REPEATS: f64 = 0.5;
/// One message in so many is poison to a group.
const POISON_SHARE: u64 = 40;
/// So often poison fails where there are no dead letters.
const FAILURES: u8 = 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Consumer {
    load: Arc<Load>,
    client: Roaming,
    rng: StdRng,
    reader: ReaderId,
}

impl Consumer {
    /// Of a stream of a group.
    pub(super) fn new(load: Arc<Load>, client: Roaming, rng: StdRng, reader: ReaderId) -> Self {
        Self { load, client, rng, reader }
    }

    /// Consumes until all is over.
    pub(super) async fn run(mut self) {
        while !self.load.done.is_cancelled() {
            let ask = self.ask();
            let began = self.load.recorder.now();
            let answer = self.consume(ask).await;
            if !matches!(answer, Some(Ok(_))) {
                self.load.recorder.unanswered(self.reader, Unanswered { began, max: ask.max });
            }
            match answer {
                Some(Ok(received)) if !received.is_empty() => {
                    let window = self.load.recorder.since(began);
                    self.treat(window, ask.lease, received).await;
                }
                Some(Err(failure)) => self.stumble("consume", &failure).await,
                _ => {}
            }
        }
    }

    fn is_calm(&self) -> bool {
        self.load.calm.is_cancelled()
    }

    fn ask(&mut self) -> Ask {
        let seconds = |seconds| Duration::from_secs(seconds);
        let more = if self.is_calm() || self.is_fifo() { 0 } else { self.rng.random_range(0..3) };
        let wait = if self.is_calm() { 1 } else { self.rng.random_range(1..=3) };
        Ask { max: self.rng.random_range(1..=10), wait: seconds(wait), lease: LEASE + seconds(more) }
    }

    fn is_fifo(&self) -> bool {
        self.load.topology.rules(self.reader).fifo
    }

    /// `None` when it was given up.
    async fn consume(&mut self, ask: Ask) -> Option<Result<Vec<Received>, Failure>> {
        let target = self.load.topology.target(self.reader);
        let vanishes = self.vanishes();
        let call = self.client.caller.consume(&target, ask);
        let Some(after) = vanishes else { return Some(call.await) };
        let answer = timeout(after, call).await.ok();
        if answer.is_none() && self.rng.random_bool(0.5) {
            self.client.turn();
        }
        answer
    }

    fn vanishes(&mut self) -> Option<Duration> {
        let share = if self.is_fifo() { VANISHES.1 } else { VANISHES.0 };
        let vanishes = !self.is_calm() && self.rng.random_ratio(share, 1_000);
        vanishes.then(|| Duration::from_millis(self.rng.random_range(0..1_500)))
    }

    /// After an error: another replica, a little later.
    async fn stumble(&mut self, call: &str, failure: &Failure) {
        if call == "consume" {
            self.load.failed(call, failure, &self.load.topology.target(self.reader));
        }
        self.client.turn();
        sleep(Duration::from_millis(self.rng.random_range(20..200))).await;
    }

    async fn treat(&mut self, window: Window, lease: Duration, received: Vec<Received>) {
        let (deliveries, handlers) = self.read(received);
        if deliveries.is_empty() {
            return;
        }
        let moves = self.moves(lease, &deliveries);
        let batch = self.load.recorder.batch(self.reader, Batch { window, lease, deliveries });
        for one in moves {
            self.carry_out(one, batch, &handlers).await;
        }
        if self.rng.random_bool(LEAVES) {
            let stray = handled(batch, &handlers, &[(0, AckStatus::Success)]).remove(0);
            self.load.strays.leave(self.reader, stray);
        }
    }

    /// Deliveries and their handlers, by index. A body that is not what was sent is wrong.
    fn read(&self, received: Vec<Received>) -> (Vec<Delivery>, Vec<String>) {
        let queue = self.load.topology.groups[self.reader.group].queue;
        let read = |received: Received| match self.load.bodies.read(queue, &received.body) {
            Some(message) => Some((Delivery { message, attempts: received.attempts }, received.handler)),
            None => {
                let group = self.reader.group;
                self.load.recorder.violation(Rule::Stranger, format!("group {group}: a body that was not sent"));
                None
            }
        };
        received.into_iter().filter_map(read).unzip()
    }

    fn moves(&mut self, lease: Duration, deliveries: &[Delivery]) -> Vec<Move> {
        if self.is_calm() {
            return calm_moves(deliveries.len());
        }
        let rules = self.load.topology.rules(self.reader);
        // Where it blocks nobody it fails many times even if it can't become a dead letter.
        let fails = |attempts: Option<u8>| match rules.max_consume_count {
            Some(_) => true,
            None => !rules.fifo && attempts.is_some_and(|attempts| attempts < FAILURES),
        };
        let is_poisoned = |delivery: &Delivery| {
            let fails = self.reader.source == Source::Normal && fails(delivery.attempts);
            fails && is_poison(delivery.message, self.reader.group)
        };
        let poisoned: Vec<bool> = deliveries.iter().map(is_poisoned).collect();
        moves(&mut self.rng, rules.fifo, lease, &poisoned)
    }

    async fn carry_out(&mut self, one: Move, batch: u32, handlers: &[String]) {
        match one {
            Move::Ack(says) => self.ack(&handled(batch, handlers, &says)).await,
            Move::AtOnce(says) => {
                let handled = handled(batch, handlers, &says);
                let mut other = self.client.another();
                let (load, reader) = (Arc::clone(&self.load), self.reader);
                let (_one, _other) = tokio::join!(
                    load.ack(&mut self.client.caller, reader, &handled),
                    load.ack(&mut other, reader, &handled)
                );
            }
            Move::Late(after, says) => {
                let handled = handled(batch, handlers, &says);
                let mut other = self.client.another();
                let (load, reader) = (Arc::clone(&self.load), self.reader);
                self.load.late.spawn(async move {
                    sleep(after).await;
                    load.ack(&mut other, reader, &handled).await
                });
            }
        }
    }

    async fn ack(&mut self, handled: &[Handled]) {
        let Err(failure) = self.load.ack(&mut self.client.caller, self.reader, handled).await else { return };
        if let Failure::Unknown(_) = failure {
            self.stumble("ack", &failure).await;
            if self.is_calm() || self.rng.random_bool(REPEATS) {
                let _again = self.load.ack(&mut self.client.caller, self.reader, handled).await;
            }
        }
    }
}

fn handled(batch: u32, handlers: &[String], says: &[Say]) -> Vec<Handled> {
    let one = |(index, status): &Say| Handled {
        // A batch has ten messages at most.
        delivery: DeliveryRef { batch, index: u8::try_from(*index).unwrap_or(u8::MAX) },
        handler: handlers[*index].clone(),
        status: *status,
    };
    says.iter().map(one).collect()
}

/// Whether a group can never consume a message, which has to become a dead letter.
fn is_poison(message: MessageId, group: usize) -> bool {
    let key = u64::from(message.producer) << 40 | u64::from(message.sequence) << 8 | group as u64;
    StdRng::seed_from_u64(key).random_range(0..POISON_SHARE) == 0
}
