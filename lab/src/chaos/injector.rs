//! Draws faults, alone and together, round after round, and sees that the service works again after each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::checker::Rule;
use super::faults;
use super::producer::Producer;
use super::testbed::Testbed;
use crate::chaos::args::Fault;

/// Faults of one round.
const TOGETHER_MAX: usize = 3;
/// How soon after the end of its faults every replica has to take a send.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Rounds that were run to their end.
    pub rounds: u32,
    /// How often each fault was injected.
    pub faults: BTreeMap<Fault, u32>,
    /// From the end of each round's faults until every replica took a send.
    pub recoveries: Vec<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Injector {
    testbed: Arc<Testbed>,
    rng: StdRng,
    kinds: Vec<Fault>,
    /// Drawn from until it is empty, so that every kind has its turn.
    deck: Vec<Fault>,
    most: Duration,
    /// One for each replica.
    probes: Vec<Producer>,
    tally: Tally,
}

impl Injector {
    /// Has drawn nothing yet. Each probe sends to one replica.
    pub(super) fn new(
        testbed: Arc<Testbed>,
        rng: StdRng,
        kinds: Vec<Fault>,
        most: Duration,
        probes: Vec<Producer>,
    ) -> Self {
        Self { testbed, rng, kinds, deck: Vec::new(), most, probes, tally: Tally::default() }
    }

    /// One round: faults, their end, and the recovery.
    pub(super) async fn round(&mut self) -> Result<()> {
        let count = self.rng.random_range(1..=TOGETHER_MAX.min(self.kinds.len()));
        let faults: Vec<Fault> = (0..count).map(|_| self.draw()).collect();
        let names: Vec<String> = faults.iter().map(|fault| fault.name()).collect();
        tracing::info!(
            round = self.tally.rounds + 1,
            sent = self.testbed.recorder.sent_count(),
            "{}",
            names.join(" + ")
        );
        let mut running = JoinSet::new();
        for fault in faults {
            *self.tally.faults.entry(fault).or_default() += 1;
            let (testbed, most) = (Arc::clone(&self.testbed), self.most);
            let mut rng = StdRng::seed_from_u64(self.rng.random());
            running.spawn(async move {
                sleep(Duration::from_millis(rng.random_range(0..1_000))).await;
                faults::inject(fault, &testbed, rng, most).await
            });
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        self.testbed.heal().await?;
        self.recover().await;
        self.tally.rounds += 1;
        sleep(Duration::from_millis(self.rng.random_range(300..1_500))).await;
        Ok(())
    }

    /// What was done so far.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What was done.
    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }

    fn draw(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.deck.shuffle(&mut self.rng);
        }
        self.deck.pop().unwrap_or(Fault::ReplicaKilled)
    }

    /// Every replica takes sends again by itself.
    async fn recover(&mut self) {
        let began = Instant::now();
        for (replica, probe) in self.probes.iter_mut().enumerate() {
            let answered = async {
                while !probe.send().await {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            if timeout(RECOVERY_LIMIT, answered).await.is_err() {
                let text = format!("replica {replica} took no send for {} s after a round", RECOVERY_LIMIT.as_secs());
                self.testbed.recorder.violation(Rule::Recovery, text);
            }
        }
        self.tally.recoveries.push(began.elapsed());
    }
}
