//! The end of a run: nothing goes wrong any more, everybody behaves, and what is left is consumed.

use std::time::Duration;

use anyhow::{Context, Result};
use dms_client::v1::ListConsumerGroupsRequest;
use tokio::time::{Instant, sleep, timeout};

use super::client;
use super::load::{LEASE, Load};
use super::producer::DELAY_MAX;
use super::testbed::Testbed;
use crate::chaos::api::GroupCounters;

/// Looks at the counters, one after the other, that find nothing left.
const LOOKS: u32 = 3;
const LOOK_PAUSE: Duration = Duration::from_secs(1);
const LOOK_LIMIT: Duration = Duration::from_secs(20);
/// When so long nothing more was consumed, nothing will be: all leases have ended meanwhile, also those that a sabotage made
/// longer.
const STALL_LIMIT: Duration = LEASE.saturating_mul(4);

/// Consumes what is left and takes down the counters. What cannot be consumed is for the checker to tell.
pub(super) async fn run(testbed: &Testbed, load: &Load) -> Result<()> {
    load.calm.cancel();
    // Delayed messages count from the end of their delay.
    sleep(DELAY_MAX + Duration::from_secs(2)).await;
    let (mut least, mut empty, mut deadline) = (i64::MAX, 0, Instant::now() + STALL_LIMIT);
    while empty < LOOKS && Instant::now() < deadline {
        sleep(LOOK_PAUSE).await;
        let Ok(counters) = look(testbed, load).await else { continue };
        let left: i64 = counters.iter().map(|(_, c)| c.available_messages + c.available_dead_letters).sum();
        empty = if left == 0 { empty + 1 } else { 0 };
        if left < least {
            (least, deadline) = (left, Instant::now() + STALL_LIMIT);
        }
    }
    for (group, counters) in look(testbed, load).await? {
        testbed.recorder.counters(group, counters);
    }
    load.done.cancel();
    Ok(())
}

/// The counters of every group.
async fn look(testbed: &Testbed, load: &Load) -> Result<Vec<(usize, GroupCounters)>> {
    let client = client::plain(testbed.replicas[0].direct)?;
    let mut all = Vec::new();
    for (index, queue) in load.topology.queues.iter().enumerate() {
        let request = ListConsumerGroupsRequest {
            project_id: queue.project.to_owned(),
            queue_id: queue.id.clone(),
            include_counters: true,
            ..ListConsumerGroupsRequest::default()
        };
        let answer = timeout(LOOK_LIMIT, client.list_consumer_groups(request)).await?.context("no counters")?;
        let of_queue = load.topology.groups.iter().enumerate().filter(|(_, group)| group.queue == index);
        for (group, counted) in of_queue.zip(answer.groups) {
            all.push((group.0, counted.counters.context("the answer has no counters")?));
        }
    }
    Ok(all)
}
