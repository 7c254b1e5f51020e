//! What was sent, and whether its send was answered.

use std::collections::BTreeMap;

use crate::chaos::history::{MessageId, SendCall};

/// Whether a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Its send was answered.
    Surely,
    /// Its send failed, so that it may or may not be.
    Perhaps,
}

#[derive(Debug, Default)]
struct Producer {
    queue: usize,
    stored: Vec<Stored>,
}

/// All messages, by producer.
#[derive(Debug)]
pub struct Sent {
    producers: BTreeMap<u32, Producer>,
}

impl Sent {
    /// Of these sends, each producer's in its order.
    pub fn new(sends: &[SendCall]) -> Self {
        let mut producers: BTreeMap<u32, Producer> = BTreeMap::new();
        for send in sends {
            let producer = producers.entry(send.first.producer).or_default();
            producer.queue = send.queue;
            let stored = if send.answered { Stored::Surely } else { Stored::Perhaps };
            let end = send.first.sequence as usize + send.count as usize;
            // A number that was left out belongs to a message that was never sent, which is the same as perhaps.
            producer.stored.resize(end.max(producer.stored.len()), Stored::Perhaps);
            producer.stored[send.first.sequence as usize..end].fill(stored);
        }
        Self { producers }
    }

    /// Whether a message is stored in a queue; `None` when it was not sent there.
    pub fn to_queue(&self, queue: usize, message: MessageId) -> Option<Stored> {
        let producer = self.producers.get(&message.producer).filter(|producer| producer.queue == queue)?;
        producer.stored.get(message.sequence as usize).copied()
    }

    /// The messages of a queue that are surely stored.
    pub fn surely(&self, queue: usize) -> impl Iterator<Item = MessageId> {
        let producers = self.producers.iter().filter(move |(_, producer)| producer.queue == queue);
        producers.flat_map(|(number, producer)| {
            let numbered = (0..).zip(&producer.stored).filter(|(_, stored)| **stored == Stored::Surely);
            numbered.map(|(sequence, _)| MessageId { producer: *number, sequence })
        })
    }

    /// How many messages of a queue are surely stored, and how many perhaps.
    pub fn count(&self, queue: usize) -> (u64, u64) {
        let all = self.producers.values().filter(|producer| producer.queue == queue).flat_map(|p| &p.stored);
        all.fold((0, 0), |(surely, perhaps), stored| match stored {
            Stored::Surely => (surely + 1, perhaps),
            Stored::Perhaps => (surely, perhaps + 1),
        })
    }
}
