//! What was sent, when, and whether its send was answered.

use std::collections::BTreeMap;

use crate::chaos::history::{MessageId, Moment, SendCall};

/// All sends, by producer.
#[derive(Debug)]
pub(super) struct Sent<'a> {
    producers: BTreeMap<u32, Vec<&'a SendCall>>,
}

impl<'a> Sent<'a> {
    /// Of these sends, each producer's in its order.
    pub(super) fn new(sends: &'a [SendCall]) -> Self {
        let mut producers: BTreeMap<u32, Vec<&SendCall>> = BTreeMap::new();
        for send in sends {
            producers.entry(send.first.producer).or_default().push(send);
        }
        Self { producers }
    }

    /// The send of a message; `None` when it was not sent to this queue.
    pub(super) fn to_queue(&self, queue: usize, message: MessageId) -> Option<&'a SendCall> {
        let sends = self.producers.get(&message.producer)?;
        let index = sends.partition_point(|send| send.first.sequence <= message.sequence).checked_sub(1)?;
        let send = sends[index];
        (send.queue == queue && message.sequence < send.first.sequence + send.count).then_some(send)
    }

    fn of_queue(&self, queue: usize) -> impl Iterator<Item = &'a SendCall> {
        self.producers.values().flatten().copied().filter(move |send| send.queue == queue)
    }

    /// The messages of a queue that are surely stored.
    pub(super) fn surely(&self, queue: usize) -> impl Iterator<Item = MessageId> {
        let answered = self.of_queue(queue).filter(|send| send.answered);
        answered.flat_map(|send| {
            let sequences = send.first.sequence..send.first.sequence + send.count;
            sequences.map(|sequence| MessageId { sequence, ..send.first })
        })
    }

    /// How many messages of a queue are surely stored, and how many perhaps.
    pub(super) fn count(&self, queue: usize) -> (u64, u64) {
        self.of_queue(queue).fold((0, 0), |(surely, perhaps), send| match send.answered {
            true => (surely + u64::from(send.count), perhaps),
            false => (surely, perhaps + u64::from(send.count)),
        })
    }
}

/// The place of a message among those whose sends were answered: behind all messages whose send was answered before its own
/// began, and behind those in front of it in its own send. Without an answer there is none: the send may have come late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    answered: Moment,
    message: MessageId,
}

impl Order {
    /// Of a message of a send.
    pub(super) fn of(send: &SendCall, message: MessageId) -> Option<Self> {
        send.answered.then_some(Self { answered: send.window.ended, message })
    }

    /// All messages in front of this one for sure are in these two ranges: of earlier sends, and of its own.
    pub(super) fn in_front(send: &SendCall, message: MessageId) -> [std::ops::Range<Self>; 2] {
        let at = |answered, sequence| Self { answered, message: MessageId { producer: message.producer, sequence } };
        let earliest = Self { answered: Moment(0), message: MessageId { producer: 0, sequence: 0 } };
        let began = Self { answered: send.window.began, message: earliest.message };
        let own = at(send.window.ended, send.first.sequence)..at(send.window.ended, message.sequence);
        [earliest..began, own]
    }

    /// Which message it is.
    pub(super) fn message(&self) -> MessageId {
        self.message
    }
}
