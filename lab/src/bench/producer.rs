//! A client task that sends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::client::Client;
use super::load::{Load, Until};
use super::meter::{Call, Meter, back_off};
use crate::bench::args::Scenario;
use crate::harness::payload::MessageId;

/// Sends batches one after the other until told to stop.
pub(super) async fn produce(load: Arc<Load>, meter: Arc<Meter>, mut client: Client, index: u32, until: Until) {
    let mut sequence = until.first;
    let pace = load.workload.pace().filter(|_| until.paced);
    let mut schedule = pace.map(|pace| Schedule::new(pace, index, load.workload.clients));
    while let Some(count) = next_count(&load, sequence, until).await {
        let due = match &mut schedule {
            Some(schedule) => schedule.next().await,
            None => Instant::now(),
        };
        let first = load.next_id(index, sequence);
        sequence += count;
        match call(&load, &mut client, first, count, due).await {
            Ok(()) => {
                meter.answered(Call::Send, due, u64::from(count));
                load.ledger.mark_sent(first, count, true);
            }
            Err(status) => {
                meter.failed(Call::Send, &status);
                load.ledger.mark_sent(first, count, false);
                if let Some(lead) = load.lead.as_ref().filter(|_| until.paced) {
                    lead.give_back(count);
                }
                sleep(back_off(&status)).await;
            }
        }
    }
}

async fn call(
    load: &Load,
    client: &mut Client,
    first: MessageId,
    count: u32,
    due: Instant,
) -> Result<(), tonic::Status> {
    if load.workload.scenario == Scenario::Noop {
        return client.noop().await;
    }
    let bodies = load.payloads.batch(first, count, load.clock(due));
    client.send(&load.topics[first.queue as usize], bodies).await
}

/// When the calls of one producer are due at an even pace. One that is late does not move the others, and its latency, end to
/// end too, counts from when it was due: a service that stalls is charged for every call that it holds up.
struct Schedule {
    next: Instant,
    pace: Duration,
}

impl Schedule {
    fn new(pace: Duration, index: u32, clients: u32) -> Self {
        Self { next: Instant::now() + pace * index / clients, pace }
    }

    async fn next(&mut self) -> Instant {
        let due = self.next;
        self.next += self.pace;
        sleep_until(due).await;
        due
    }
}

/// Messages of the next send; `None` at the end.
async fn next_count(load: &Load, sequence: u32, until: Until) -> Option<u32> {
    let left = until.messages.saturating_sub(u64::from(sequence - until.first)).min(u64::from(u32::MAX - sequence));
    let count = load.workload.batch.min(u32::try_from(left).unwrap_or(u32::MAX));
    if count == 0 || Instant::now() >= until.deadline {
        return None;
    }
    match &load.lead {
        Some(lead) if until.paced && !lead.reserve(count, until.deadline).await => None,
        _ => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn late_calls_stay_due_when_they_were() {
        let mut schedule = Schedule::new(Duration::from_millis(2), 1, 2);
        let first = schedule.next().await;
        sleep(Duration::from_millis(7)).await;
        assert_eq!(schedule.next().await, first + Duration::from_millis(2));
        assert_eq!(schedule.next().await, first + Duration::from_millis(4));
    }
}
