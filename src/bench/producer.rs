//! A client task that sends.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::load::{Load, Until};
use super::meter::{Call, Meter, back_off};
use super::payload::MessageId;
use crate::proto::v1::{NewMessage, SendMessagesRequest};

/// Sends batches one after the other until told to stop.
pub async fn produce(load: Arc<Load>, meter: Arc<Meter>, index: u32, until: Until) {
    let mut client = load.client(index);
    let mut sequence = 0;
    while let Some(count) = next_count(&load, sequence, until).await {
        let first = load.next_id(index, sequence);
        sequence += count;
        let began = Instant::now();
        match client.send_messages(request(&load, first, count)).await {
            Ok(_) => {
                meter.answered(Call::Send, began, u64::from(count));
                load.ledger.mark_sent(first, count, true);
            }
            Err(status) => {
                meter.failed(Call::Send, &status);
                load.ledger.mark_sent(first, count, false);
                if let Some(lead) = &load.lead {
                    lead.give_back(count);
                }
                sleep(back_off(&status)).await;
            }
        }
    }
}

/// Messages of the next send; `None` at the end.
async fn next_count(load: &Load, sequence: u32, until: Until) -> Option<u32> {
    let left = until.messages.saturating_sub(u64::from(sequence)).min(u64::from(u32::MAX - sequence));
    let count = load.batch.min(u32::try_from(left).unwrap_or(u32::MAX));
    if count == 0 || Instant::now() >= until.deadline {
        return None;
    }
    match &load.lead {
        Some(lead) if !lead.reserve(count, until.deadline).await => None,
        _ => Some(count),
    }
}

fn request(load: &Load, first: MessageId, count: u32) -> SendMessagesRequest {
    let bodies = load.payloads.batch(first, count, load.elapsed());
    SendMessagesRequest {
        project_id: load.project_id.clone(),
        queue_id: load.topics[first.queue as usize].queue_id.clone(),
        messages: bodies.into_iter().map(|body| NewMessage { body, ..NewMessage::default() }).collect(),
        return_ids: false,
    }
}
