//! Leases, handlers, attempts.

use super::*;
use crate::chaos::api::AckOutcome::{AfterFailure, InvalidHandler};

#[test]
fn a_message_comes_again_after_its_lease() {
    let again = |ended_ms| Script::normal().sent(1).batch(1_000, &[0]).batch(ended_ms, &[0]).violates();
    assert_eq!(again(15_900), []);
    // The lease may have begun with the call, at 0.9 s, and clocks may be 0.1 s apart.
    assert_eq!(again(15_700), [Rule::Lease]);
}

#[test]
fn a_message_comes_again_after_a_failure() {
    let failed =
        |outcome| Script::normal().sent(1).batch(1_000, &[0]).ack(1_200, 0, &[outcome]).batch(1_400, &[0]).violates();
    assert_eq!(failed(Failed), []);
    assert_eq!(failed(AfterFailure), []);
    let unknown = Script::normal().sent(1).batch(1_000, &[0]).ack_without_outcome(1_200, 0, AckAnswer::Unknown);
    // A lone success that got no answer has either succeeded or done nothing.
    assert_eq!(unknown.batch(1_400, &[0]).violates(), [Rule::Lease]);
}

#[test]
fn a_crash_takes_back_the_last_leases_only() {
    let crashed = |crash_ms, again_ms| {
        Script::normal().sent(1).batch(1_000, &[0]).crash(crash_ms).batch(again_ms, &[0]).violates()
    };
    assert_eq!(crashed(1_500, 3_000), []);
    assert_eq!(crashed(2_500, 4_000), [Rule::Lease]);
    let mut synchronous = Script::normal().sent(1).batch(1_000, &[0]).crash(1_500).batch(3_000, &[0]);
    synchronous.0.allowance.taken_back = None;
    assert_eq!(synchronous.violates(), [Rule::Lease]);
}

#[test]
fn nothing_comes_after_its_acknowledgement() {
    let acked = || Script::normal().sent(1).batch(1_000, &[0]).ack(1_200, 0, &[Acked]);
    assert_eq!(acked().violates(), []);
    assert_eq!(acked().batch(20_000, &[0]).violates(), [Rule::AfterAck]);
    // A delivery that had ended before is one of the past.
    let before = Script::normal().sent(1).batch(1_000, &[0]).batch(17_000, &[0]).ack(17_200, 1, &[Acked]);
    assert_eq!(before.violates(), []);
}

#[test]
fn handlers_of_ended_leases_are_refused() {
    let late = |outcome| Script::normal().sent(1).batch(1_000, &[0]).ack(20_000, 0, &[outcome]).violates();
    assert_eq!(late(InvalidHandler), []);
    assert_eq!(late(Acked), [Rule::OldHandler]);
    let older = |outcome| {
        let script = Script::normal().sent(1).batch(1_000, &[0]).batch(16_050, &[0]);
        script.ack(16_200, 0, &[outcome]).violates()
    };
    assert_eq!(older(InvalidHandler), []);
    assert_eq!(older(Acked), [Rule::OldHandler]);
    assert_eq!(older(Failed), [Rule::OldHandler]);
}

#[test]
fn a_handler_is_good_once() {
    let twice = |outcome| {
        let script = Script::normal().sent(1).batch(1_000, &[0]).ack(1_200, 0, &[Acked]);
        script.ack(1_400, 0, &[outcome]).violates()
    };
    assert_eq!(twice(InvalidHandler), []);
    assert_eq!(twice(Acked), [Rule::OldHandler]);
}

#[test]
fn a_handler_is_good_until_its_lease_ends() {
    let refused = |ended_ms| {
        Script::normal().sent(1).batch(1_000, &[0]).ack_without_outcome(ended_ms, 0, AckAnswer::Refused).violates()
    };
    assert_eq!(refused(16_000), []);
    assert_eq!(refused(10_000), [Rule::Lease]);
    let after_one_without_answer = Script::normal()
        .sent(1)
        .batch(1_000, &[0])
        .ack_without_outcome(1_200, 0, AckAnswer::Unknown)
        .ack_without_outcome(1_400, 0, AckAnswer::Refused);
    assert_eq!(after_one_without_answer.violates(), []);
    let taken_back = Script::normal().sent(1).batch(1_000, &[0]).crash(1_500);
    assert_eq!(taken_back.ack_without_outcome(2_000, 0, AckAnswer::Refused).violates(), []);
}

#[test]
fn deliveries_are_bounded_and_each_counts() {
    let attempts = |told: &[u8]| {
        let first = Script::redrive(2).sent(1);
        let script = (0..).zip(told).fold(first, |script, (number, told)| {
            script.batch_of(Stream::Normal, 1_000 + number * 20_000, &[(0, Some(*told))])
        });
        script.violates_at_the_end().contains(&Rule::Attempts)
    };
    assert!(!attempts(&[1, 2]));
    assert!(attempts(&[1, 2, 3]));
    assert!(attempts(&[1, 1]));
    // What the answers do not tell is counted here.
    let untold = |count| {
        let script =
            (0..count).fold(Script::redrive(2).sent(1), |script, number| script.batch(1_000 + number * 20_000, &[0]));
        script.violates_at_the_end().contains(&Rule::Attempts)
    };
    assert!(!untold(2));
    assert!(untold(3));
}
