//! Sharing the deliveries of a group between new and failed messages.

use super::*;

/// Message 0 fails so many times at intervals of 100 ms, beginning behind its send at 10 s.
fn poison(mut script: Script, times: u8) -> Script {
    for attempt in 1..=times {
        let at = 10_000 + u64::from(attempt) * 200;
        script = script.batch_of(Stream::Normal, at, &[(0, Some(attempt))]);
        script = script.ack(at + 100, u32::from(attempt) - 1, &[Failed]);
    }
    script
}

#[test]
fn a_new_message_does_not_wait_behind_one_that_fails_again_and_again() {
    let first = |script: Script, at| script.batch_of(Stream::Normal, at, &[(1, Some(1))]);
    let starved = first(poison(Script::normal().sent_by(0, 2, 500), 250), 61_000);
    assert_eq!(starved.violates(), [Rule::Starved]);
    let in_turn = first(poison(Script::normal().sent_by(0, 2, 500), 250), 12_000);
    assert_eq!(in_turn.violates(), []);
    let fifo = first(poison(Script::fifo().sent_by(0, 2, 500), 250), 61_000);
    assert_eq!(fifo.violates(), [], "there a failed message is first");
}

/// Message 0 fails, and comes again behind so many others.
fn failed_behind(others: u32, attempt: u8) -> Script {
    let mut script = Script::normal().sent(others + 1).batch_of(Stream::Normal, 1_000, &[(0, Some(1))]);
    script = script.ack(1_200, 0, &[Failed]);
    for other in 1..=others {
        script = script.batch_of(Stream::Normal, 1_400 + u64::from(other) * 10, &[(other, Some(1))]);
    }
    script.batch_of(Stream::Normal, 60_000, &[(0, Some(attempt))])
}

#[test]
fn a_failed_message_does_not_wait_behind_all_that_is_new() {
    assert_eq!(failed_behind(300, 2).violates(), [Rule::Starved]);
    assert_eq!(failed_behind(100, 2).violates(), []);
    assert_eq!(failed_behind(300, 3).violates(), [], "a delivery between the two was lost on its way");
}

/// Message 0 fails, and comes again behind 300 others, whose answers tell no count.
fn failed_behind_untold(unanswered: u32) -> Vec<Rule> {
    let mut script = Script::normal().sent(301).batch_of(Stream::Normal, 1_000, &[(0, Some(1))]);
    script = script.ack(1_200, 0, &[Failed]);
    for other in 1..=300 {
        script = script.batch_of(Stream::Normal, 1_400 + u64::from(other) * 10, &[(other, None)]);
    }
    let consume = Unanswered { began: window(1_000).began, max: 10 };
    script.reader(Stream::Normal).unanswered.extend((0..unanswered).map(|_| consume));
    script.batch_of(Stream::Normal, 60_000, &[(0, Some(2))]).violates()
}

#[test]
fn what_no_answer_told_is_new_unless_a_consume_without_an_answer_may_have_leased_it() {
    assert_eq!(failed_behind_untold(0), [Rule::Starved]);
    assert_eq!(failed_behind_untold(3), [Rule::Starved], "270 new ones at least, and 30 failed ones at most");
    assert_eq!(failed_behind_untold(6), [], "240 new ones at least, and 60 failed ones at most");
}
