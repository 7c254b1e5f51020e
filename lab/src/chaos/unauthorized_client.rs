//! A client that tries handlers it has no right to: on other groups, streams, queues and projects, and old ones of its own.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::time::sleep;

use super::checker::Rule;
use super::client::{Entry, Failure, Roaming, Target};
use super::load::{Handled, Load};
use super::recorder::ReaderId;

/// What is answered to the handler of another reader.
const HANDLER_MISMATCH: &str = "DMS.10540004";
/// What is answered to whoever names a queue of another project.
const QUEUE_NOT_FOUND: &str = "DMS.10240401";
const OVERLOADED: &str = "DMS.10240407";

/// See the module.
#[derive(Debug)]
pub(super) struct UnauthorizedClient {
    load: Arc<Load>,
    client: Roaming,
    rng: StdRng,
}

impl UnauthorizedClient {
    /// Has done nothing yet.
    pub(super) fn new(load: Arc<Load>, client: Roaming, rng: StdRng) -> Self {
        Self { load, client, rng }
    }

    /// Tries until everybody behaves.
    pub(super) async fn run(mut self) {
        let calm = self.load.calm.clone();
        let readers = self.load.topology.readers();
        loop {
            let pause = Duration::from_millis(self.rng.random_range(10..200));
            if calm.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            let Some((owner, stray)) = self.load.strays.find(&mut self.rng) else { continue };
            match (self.rng.random_range(0..3), readers.choose(&mut self.rng)) {
                (0, _) => self.replay(owner, stray).await,
                (1, Some(other)) if *other != owner => {
                    let target = self.load.topology.target(*other);
                    self.trespass(&target, stray, HANDLER_MISMATCH).await;
                }
                (2, _) => {
                    let target = Target { project: "chaos-3".to_owned(), ..self.load.topology.target(owner) };
                    self.trespass(&target, stray, QUEUE_NOT_FOUND).await;
                }
                _ => {}
            }
        }
    }

    /// Uses a handler of old where it belongs; the checker says whether what came of it is right.
    async fn replay(&mut self, owner: ReaderId, stray: Handled) {
        if let Err(Failure::Unknown(_)) = self.load.ack(&mut self.client.caller, owner, &[stray]).await {
            self.client.turn();
        }
    }

    /// Uses a handler where it does not belong.
    async fn trespass(&mut self, target: &Target, stray: Handled, expected: &str) {
        let entry = Entry { handler: stray.handler, status: stray.status };
        match self.client.caller.ack(target, &[entry]).await {
            Err(Failure::Refused(code)) if code == expected || code == OVERLOADED => {}
            Err(Failure::Unknown(_)) => self.client.turn(),
            answer => {
                let text =
                    format!("a handler of another reader was answered with {answer:?}, not refused with {expected}");
                self.load.recorder.violation(Rule::ForeignHandler, text);
            }
        }
    }
}
