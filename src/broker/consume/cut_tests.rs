use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::Span;
use uuid::Uuid;

use super::*;
use crate::broker::consume::Granted;
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MessageId, StreamId, SubscriptionId, SubscriptionKey};
use crate::domain::lease::MessageRef;
use crate::domain::message::Message;

const MIB: usize = 1024 * 1024;

fn candidate(offset: i64, body: Bytes, segment_bytes: usize, origin: Origin) -> Candidate {
    let message = Message {
        id: MessageId(Uuid::nil()),
        body,
        attributes: Bytes::new(),
        tags: vec![],
        dead_letter: None,
        trace: None,
    };
    let at = MessageRef { offset, attempts: 1, appended_at: Timestamp(0) };
    Candidate { at, message, segment_bytes, segment_base: offset, origin }
}

fn of_sizes(sizes: &[usize], origin: impl Fn(i64) -> Origin) -> VecDeque<Candidate> {
    let body = |size| Bytes::from(vec![b'1'; size]);
    (0..).zip(sizes).map(|(offset, size)| candidate(offset, body(*size), *size, origin(offset))).collect()
}

fn new_only(sizes: &[usize]) -> Deliverable {
    let new = of_sizes(sizes, |_| Origin::New { skipped_before: 0, unselected_before: 0 });
    Deliverable { new, failed: VecDeque::new(), failed_next: true }
}

/// New messages 0.. and failed ones 0.., each of so many bytes.
fn both(new: &[usize], failed: &[usize], failed_next: bool) -> Deliverable {
    let failed = of_sizes(failed, |failure| Origin::Failed { failure });
    Deliverable { failed, failed_next, ..new_only(new) }
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

/// What consumers of these sizes get: `n0` is a new message, `f0` a failed one.
fn served(deliverable: &mut Deliverable, sizes: &[usize]) -> Vec<String> {
    let (mut waiting, _answers): (VecDeque<_>, Vec<_>) = sizes.iter().copied().map(request).unzip();
    let name = |candidate: &Candidate| match candidate.origin {
        Origin::New { .. } => format!("n{}", candidate.at.offset),
        Origin::Failed { failure } => format!("f{failure}"),
    };
    let batches = deliverable.cut(&mut waiting, usize::MAX);
    batches.iter().map(|batch| batch.messages.iter().map(name).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn serves_in_order_of_arrival() {
    let (mut waiting, _answers): (VecDeque<_>, Vec<_>) = [3, 1, 10].into_iter().map(request).unzip();
    let mut deliverable = new_only(&[1; 6]);
    assert_eq!(lens(&deliverable.cut(&mut waiting, usize::MAX)), [3, 1, 2]);
    assert!(deliverable.is_empty() && waiting.is_empty());
}

#[test]
fn leaves_out_consumers_that_have_given_up() {
    let (gone, answer) = request(10);
    drop(answer);
    let (live, _answer) = request(2);
    let mut deliverable = new_only(&[1; 3]);
    let batches = deliverable.cut(&mut VecDeque::from([gone, live]), usize::MAX);
    assert_eq!((lens(&batches), deliverable.new.len()), (vec![2], 1));
}

#[test]
fn a_batch_is_at_most_512_kb() {
    let (first, _a) = request(10);
    let (second, _b) = request(10);
    let batches = new_only(&[BATCH_BYTES_MAX - 1, 1, 1]).cut(&mut VecDeque::from([first, second]), usize::MAX);
    assert_eq!(lens(&batches), [2, 1]);
}

#[test]
fn one_at_a_time_every_second_is_new() {
    for (failed_next, expected) in [(true, ["f0", "n0", "f1", "n1", "f2"]), (false, ["n0", "f0", "n1", "f1", "n2"])] {
        let mut deliverable = both(&[1; 5], &[1; 5], failed_next);
        assert_eq!(served(&mut deliverable, &[1; 5]), expected);
    }
}

#[test]
fn the_turn_goes_on_where_the_last_claim_left_it() {
    let mut turn = true;
    let mut order = String::new();
    for _ in 0..6 {
        let mut deliverable = both(&[1], &[1], turn);
        order.push_str(&served(&mut deliverable, &[1])[0]);
        turn = deliverable.failed_next;
    }
    assert_eq!(order, "f0n0f0n0f0n0");
}

#[test]
fn half_of_a_batch_is_new_and_comes_first() {
    for failed_next in [true, false] {
        let mut deliverable = both(&[1; 20], &[1; 20], failed_next);
        let expected = ["n0 n1 n2 n3 n4 f0 f1 f2 f3 f4", "n5 n6 f5"];
        assert_eq!(served(&mut deliverable, &[10, 3]), expected, "{failed_next}");
    }
}

#[test]
fn what_one_kind_lacks_the_other_fills() {
    assert_eq!(served(&mut both(&[1; 1], &[1; 20], false), &[10])[0], "n0 f0 f1 f2 f3 f4 f5 f6 f7 f8");
    assert_eq!(served(&mut both(&[1; 20], &[1; 1], true), &[10])[0], "n0 n1 n2 n3 n4 n5 n6 n7 n8 f0");
}

#[test]
fn batches_that_are_full_with_one_message_take_turns_too() {
    let mut deliverable = both(&[BATCH_BYTES_MAX; 3], &[BATCH_BYTES_MAX; 3], true);
    assert_eq!(served(&mut deliverable, &[10; 4]), ["f0", "n0", "f1", "n1"]);
}

#[test]
fn a_small_part_of_a_segment_is_copied_out_of_it() {
    let segment = Bytes::from(vec![b'1'; 2 * MIB]);
    let part = |at: usize, len: usize| candidate(0, segment.slice(at..at + len), segment.len(), new());
    let mut few = [part(0, 5), part(MIB, 5)];
    assert_eq!(keep_only(&mut few), 10 + 2 * MESSAGE_OVERHEAD_BYTES);
    let inside = |message: &Candidate| segment.as_ptr_range().contains(&message.message.body.as_ptr());
    assert!(few.iter().all(|candidate| !inside(candidate) && candidate.message.body[..] == b"11111"[..]));
    let mut most = [part(0, MIB), part(MIB, 5)];
    assert_eq!(keep_only(&mut most), 2 * MIB + 2 * MESSAGE_OVERHEAD_BYTES);
    assert!(most.iter().all(inside), "copying most of it would save little");
}

fn new() -> Origin {
    Origin::New { skipped_before: 0, unselected_before: 0 }
}
