//! What is lost, dead letters, counters.

use super::*;

#[test]
fn what_was_answered_is_never_lost() {
    let acked = |count: usize| {
        let sequences: Vec<u32> = (0..).take(count).collect();
        let script = Script::normal().sent(2).batch(1_000, &sequences).ack(1_200, 0, &vec![Acked; count]);
        script.counters(2, 2, 0).violates_at_the_end()
    };
    assert_eq!(acked(2), []);
    assert_eq!(acked(1), [Rule::Lost, Rule::Counters]);
    let delivered_only = Script::normal().sent(1).batch(1_000, &[0]).counters(1, 1, 0);
    assert_eq!(delivered_only.violates_at_the_end(), [Rule::Lost, Rule::Counters]);
    let perhaps_acked = Script::normal().sent(1).batch(1_000, &[0]).ack_without_outcome(1_200, 0, AckAnswer::Unknown);
    assert_eq!(perhaps_acked.counters(1, 1, 0).violates_at_the_end(), []);
}

#[test]
fn what_was_not_answered_may_be_stored_or_not() {
    let mut unanswered = Script::normal().sent(2).batch(1_000, &[1]).ack(1_200, 0, &[Acked]).counters(1, 1, 0);
    unanswered.0.sends[0].answered = false;
    assert_eq!(unanswered.violates_at_the_end(), []);
}

#[test]
fn what_was_never_sent_does_not_come() {
    assert_eq!(Script::normal().sent(1).batch(1_000, &[1]).violates(), [Rule::Stranger]);
    let mut elsewhere = Script::normal().sent(1).batch(1_000, &[0]);
    elsewhere.0.sends[0].queue = 1;
    assert_eq!(elsewhere.violates(), [Rule::Stranger]);
}

/// A message that fails once, which makes it a dead letter.
fn dead() -> Script {
    Script::redrive(1).sent(1).batch_of(Stream::Normal, 1_000, &[(0, Some(1))]).ack(1_200, 0, &[Failed])
}

fn letter(script: Script, ended_ms: u64) -> Script {
    script.batch_of(Stream::DeadLetters, ended_ms, &[(0, Some(1))])
}

#[test]
fn a_message_that_failed_for_good_is_one_dead_letter() {
    let acked = || letter(dead(), 1_400).ack_of(Stream::DeadLetters, 1_600, 0, &[Acked]).counters(1, 0, 1);
    assert_eq!(acked().violates_at_the_end(), []);
    assert_eq!(dead().counters(1, 0, 0).violates_at_the_end(), [Rule::DeadLetter, Rule::Counters]);
    assert_eq!(letter(dead(), 1_400).counters(1, 0, 1).violates_at_the_end(), [Rule::DeadLetter]);
    assert_eq!(letter(acked(), 20_000).violates_at_the_end(), [Rule::DeadLetter]);
    assert_eq!(letter(acked(), 1_450).violates_at_the_end(), [Rule::DeadLetter], "two at a time");
}

#[test]
fn a_dead_letter_is_nothing_else() {
    let again = letter(dead(), 1_400).batch(20_000, &[0]);
    assert!(again.violates().contains(&Rule::DeadLetter));
    let acked = Script::redrive(1).sent(1).batch(1_000, &[0]).ack(1_200, 0, &[Acked]);
    assert_eq!(letter(acked, 1_400).violates(), [Rule::DeadLetter]);
    let too_early = Script::redrive(2).sent(1).batch(1_000, &[0]).ack(1_200, 0, &[Failed]);
    assert_eq!(letter(too_early, 1_400).violates(), [Rule::DeadLetter]);
    let without_redrive = Script::normal().sent(1).batch(1_000, &[0]).ack(1_200, 0, &[Failed]);
    assert_eq!(letter(without_redrive, 1_400).violates(), [Rule::DeadLetter]);
}

#[test]
fn counters_are_exact_at_the_end() {
    let right = || Script::normal().sent(2).batch(1_000, &[0, 1]).ack(1_200, 0, &[Acked; 2]);
    assert_eq!(right().counters(2, 2, 0).violates_at_the_end(), []);
    for (produced, consumed, dead) in [(3, 3, 0), (2, 1, 0), (2, 1, 1)] {
        assert_eq!(right().counters(produced, consumed, dead).violates_at_the_end(), [Rule::Counters]);
    }
    assert_eq!(right().violates_at_the_end(), [Rule::Counters], "they could not be read");
    let mut left = right().counters(2, 2, 0);
    left.0.groups[0].counters.as_mut().unwrap().available_messages = 1;
    assert_eq!(left.violates_at_the_end(), [Rule::Counters]);
}
