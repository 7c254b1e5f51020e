//! Cuts the messages found into one batch per consumer: at most `max_messages`, at most 512 KB.

use std::collections::VecDeque;

use super::ClaimRequest;
use super::scan::Candidate;
use crate::domain::limits::BATCH_BYTES_MAX;

/// A consumer with the messages it gets.
pub struct Batch {
    /// The consumer.
    pub request: ClaimRequest,
    /// Its messages, never none.
    pub messages: Vec<Candidate>,
}

/// Serves consumers in order of arrival until messages or consumers run out; consumers that have given up are left out.
/// Returns the batches and the messages left over.
pub fn cut(
    waiting: &mut VecDeque<ClaimRequest>,
    candidates: Vec<Candidate>,
    consumers_max: usize,
) -> (Vec<Batch>, VecDeque<Candidate>) {
    let mut left = VecDeque::from(candidates);
    let mut batches = Vec::new();
    while batches.len() < consumers_max && !left.is_empty() {
        let Some(request) = waiting.pop_front() else { break };
        if request.reply.is_closed() {
            continue;
        }
        let messages = take_batch(&mut left, request.max_messages);
        batches.push(Batch { request, messages });
    }
    (batches, left)
}

fn take_batch(left: &mut VecDeque<Candidate>, max_messages: usize) -> Vec<Candidate> {
    let mut taken: Vec<Candidate> = Vec::new();
    let mut bytes = 0;
    while taken.len() < max_messages.max(1)
        && let Some(next) = left.front()
    {
        bytes += next.message.size_bytes();
        if bytes > BATCH_BYTES_MAX && !taken.is_empty() {
            break;
        }
        taken.extend(left.pop_front());
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::sync::oneshot;
    use tracing::Span;
    use uuid::Uuid;

    use super::*;
    use crate::broker::claim::Granted;
    use crate::domain::Result;
    use crate::domain::clock::Timestamp;
    use crate::domain::ids::{MessageId, StreamId, SubscriptionId, SubscriptionKey};
    use crate::domain::lease::MessageRef;
    use crate::domain::message::Message;

    fn candidates(sizes: &[usize]) -> Vec<Candidate> {
        let candidate = |(offset, size): (i64, &usize)| Candidate {
            at: MessageRef { offset, attempts: 1, appended_at: Timestamp(0) },
            message: Message {
                id: MessageId(Uuid::nil()),
                body: Bytes::from(vec![b'1'; *size]),
                attributes: Bytes::new(),
                tags: vec![],
                dead_letter: None,
                trace: None,
            },
            skipped_before: 0,
        };
        (0..).zip(sizes).map(candidate).collect()
    }

    fn request(max_messages: usize) -> (ClaimRequest, oneshot::Receiver<Result<Granted>>) {
        let (reply, answer) = oneshot::channel();
        let key = SubscriptionKey { stream: StreamId(1), subscription: SubscriptionId(1) };
        let request = ClaimRequest {
            key,
            exclusive: false,
            retention: Duration::MAX,
            max_messages,
            lease: Duration::ZERO,
            rule: None,
            caller: Span::none(),
            reply,
            parked: false,
        };
        (request, answer)
    }

    fn lens(batches: &[Batch]) -> Vec<usize> {
        batches.iter().map(|batch| batch.messages.len()).collect()
    }

    #[test]
    fn serves_in_order_of_arrival() {
        let (requests, _answers): (VecDeque<_>, Vec<_>) = [3, 1, 10].into_iter().map(request).unzip();
        let mut waiting = requests;
        let (batches, left) = cut(&mut waiting, candidates(&[1; 6]), usize::MAX);
        assert_eq!(lens(&batches), [3, 1, 2]);
        assert!(left.is_empty() && waiting.is_empty());
    }

    #[test]
    fn leaves_out_consumers_that_have_given_up() {
        let (gone, answer) = request(10);
        drop(answer);
        let (live, _answer) = request(2);
        let (batches, left) = cut(&mut VecDeque::from([gone, live]), candidates(&[1; 3]), usize::MAX);
        assert_eq!((lens(&batches), left.len()), (vec![2], 1));
    }

    #[test]
    fn a_batch_is_at_most_512_kb() {
        let (first, _a) = request(10);
        let (second, _b) = request(10);
        let sizes = [BATCH_BYTES_MAX - 1, 1, 1];
        let (batches, _) = cut(&mut VecDeque::from([first, second]), candidates(&sizes), usize::MAX);
        assert_eq!(lens(&batches), [2, 1]);
    }
}
