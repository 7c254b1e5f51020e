//! Order, and one batch at a time.

use super::*;
use crate::chaos::api::AckOutcome::AfterFailure;

#[test]
fn batches_come_one_at_a_time() {
    let next =
        |ended_ms| Script::fifo().sent(2).batch(1_000, &[0]).ack(1_200, 0, &[Acked]).batch(ended_ms, &[1]).violates();
    assert_eq!(next(1_300), []);
    assert_eq!(next(1_050), [Rule::Fifo]);
    let in_parallel = Script::normal().sent(2).batch(1_000, &[0]).batch(1_050, &[1]);
    assert_eq!(in_parallel.violates(), [], "of a NORMAL queue");
}

#[test]
fn a_batch_is_in_flight_until_all_of_it_is_settled() {
    let first = || Script::fifo().sent(3).batch(1_000, &[0, 1]).ack(1_200, 0, &[Acked]);
    assert_eq!(first().batch(1_400, &[2]).violates(), [Rule::Fifo]);
    assert_eq!(first().batch(16_400, &[1, 2]).violates(), []);
}

#[test]
fn order_is_that_of_the_sends() {
    let ack = |script: Script, ended_ms, batch, count| script.ack(ended_ms, batch, &vec![Acked; count]);
    let in_order = ack(Script::fifo().sent(3).batch(1_000, &[0, 1]), 1_200, 0, 2).batch(1_400, &[2]);
    assert_eq!(in_order.violates(), []);
    let swapped = ack(Script::fifo().sent(2).batch(1_000, &[1]), 1_200, 0, 1).batch(1_400, &[0]);
    assert_eq!(swapped.violates(), [Rule::Fifo]);
    let within = ack(Script::fifo().sent(2).batch(1_000, &[1, 0]), 1_200, 0, 2);
    assert_eq!(within.violates(), [Rule::Fifo], "in one batch too");
    let mut unanswered = ack(Script::fifo().sent(2).batch(1_000, &[1]), 1_200, 0, 1).batch(1_400, &[0]);
    unanswered.0.sends[0].answered = false;
    assert_eq!(unanswered.violates(), [], "without an answer there is no order");
}

#[test]
fn order_is_that_of_the_answers_when_senders_are_several() {
    // Producer 1 is delivered first, of whose sends the second begins before that of producer 0 has ended.
    let script = |sent_ms| {
        let mut script = Script::fifo().sent(1).sent_by(1, 1, sent_ms);
        let delivery = Delivery { message: MessageId { producer: 1, sequence: 0 }, attempts: None };
        script.0.groups[0].normal.batches.push(Batch {
            window: window(1_000),
            lease: LEASE,
            deliveries: vec![delivery],
        });
        script.ack(1_200, 0, &[Acked]).batch(1_400, &[0]).violates()
    };
    assert_eq!(script(550), [], "at the same time");
    assert_eq!(script(700), [Rule::Fifo]);
}

#[test]
fn what_failed_comes_again_first() {
    let failed = || Script::fifo().sent(4).batch(1_000, &[0, 1, 2]).ack(1_200, 0, &[Acked, Failed, AfterFailure]);
    let again = failed().batch(1_400, &[1, 2]).ack(1_600, 1, &[Acked, Acked]).batch(1_800, &[3]);
    assert_eq!(again.violates(), []);
    let passed = failed().batch(1_400, &[2]).ack(1_600, 1, &[Acked]).batch(1_800, &[1]);
    assert_eq!(passed.violates(), [Rule::Fifo]);
}
