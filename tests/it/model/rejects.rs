//! The checker can fail: answers of a broken service, each of which it must refuse, beside the right ones that it takes.

use std::collections::BTreeSet;
use std::time::Duration;

use dms_client::v1::AckOutcome::{self, Acked, AfterFailure, Failed, InvalidHandler};
use dms_client::v1::{DeadLetterReason, QueueMode};

use super::linearize::linearize;
use super::operations::*;
use super::queue::{QueueModel, SECOND, Spec};

const GROUP: GroupNo = 1;
const OTHER: GroupNo = 2;
const LEASE: Duration = Duration::from_secs(30);
const NORMAL: ReaderName = ReaderName { group: GROUP, source: Source::Normal };
const DEAD: ReaderName = ReaderName { group: GROUP, source: Source::Dead };

/// A queue with two groups and messages 1, 2, 3 (number = offset + 1), redrive after two deliveries.
fn queue(mode: QueueMode) -> QueueModel {
    let spec = Spec { mode, max_consume_count: Some(2), retention: Duration::from_secs(72 * 3600) };
    let mut model = QueueModel::new(spec, 0);
    for group in [GROUP, OTHER] {
        model.apply(&Op::CreateGroup(group), &Answer::Done).unwrap();
    }
    must(&model, &[send(1, 0), send(2, 1), send(3, 2)])
}

fn at_once(op: Op, answer: Answer) -> Observed {
    Observed { op, answer, replica: 0, began: Duration::ZERO, ended: Duration::from_millis(5) }
}

fn send(number: Number, offset: i64) -> Observed {
    let sent = Sent { number, labels: Vec::new(), delay: 0 };
    at_once(Op::Send(vec![sent]), Answer::Sent(vec![Some(Place { offset, appended_at: 0 })]))
}

fn consumed_by(reader: ReaderName, max: usize, batch: Vec<Delivery>) -> Observed {
    at_once(Op::Consume { reader, max, lease: LEASE, rule: None }, Answer::Batch(batch))
}

fn consumed(max: usize, batch: Vec<Delivery>) -> Observed {
    consumed_by(NORMAL, max, batch)
}

/// The delivery of a message at time 0 with a handler.
fn delivery(number: Number, attempt: i32, token: Token) -> Delivery {
    let place = Place { offset: i64::from(number) - 1, appended_at: 0 };
    Delivery { number, place, attempt, token, expires: 30 * SECOND, death: None }
}

fn first(numbers: &[Number]) -> Vec<Delivery> {
    numbers.iter().map(|number| delivery(*number, 1, Token::try_from(*number).unwrap())).collect()
}

fn acked(entries: &[(Token, bool)], outcomes: &[AckOutcome]) -> Observed {
    acked_by(NORMAL, NORMAL, entries, Answer::Acked(outcomes.to_vec()))
}

fn acked_by(reader: ReaderName, to: ReaderName, entries: &[(Token, bool)], answer: Answer) -> Observed {
    let entries = entries.iter().map(|(token, success)| (Handler::Given { token: *token, to }, *success)).collect();
    at_once(Op::Ack { reader, entries }, answer)
}

fn refused(code: &str) -> Answer {
    Answer::Refused(code.into())
}

/// The one state after operations of which each ended before the next began.
fn must(model: &QueueModel, operations: &[Observed]) -> QueueModel {
    operations.iter().fold(model.clone(), |model, operation| {
        let mut states = linearize(&[model], std::slice::from_ref(operation)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(states.len(), 1);
        states.remove(0)
    })
}

/// Refused, and for this reason.
#[track_caller]
fn must_not(model: &QueueModel, round: &[Observed], why: &str) {
    let error = linearize(std::slice::from_ref(model), round).expect_err("refused").to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn right_answers_are_taken() {
    for mode in [QueueMode::Normal, QueueMode::Fifo] {
        let model =
            must(&queue(mode), &[consumed(2, first(&[1, 2])), acked(&[(1, true), (2, false)], &[Acked, Failed])]);
        // A failed message is the first one of a FIFO queue, and behind new ones elsewhere.
        let mut batch = vec![delivery(2, 2, 7), delivery(3, 1, 8)];
        if mode == QueueMode::Normal {
            batch.reverse();
        }
        let model = must(&model, &[consumed(10, batch)]);
        let model = must(&model, &[acked(&[(7, false), (8, true)], &[Failed, AfterFailure])]);
        let group = &model.groups[&GROUP];
        assert_eq!(
            (group.consumed, group.died, group.normal.available.len(), group.dead.available.len()),
            (1, 1, 1, 1)
        );
    }
}

#[test]
fn a_leased_message_is_not_delivered_to_another_consumer() {
    let model = queue(QueueMode::Normal);
    let again = vec![delivery(1, 1, 9)];
    must_not(&must(&model, &[consumed(1, first(&[1]))]), &[consumed(1, again.clone())], "1 is under lease h1");
    must_not(&model, &[consumed(1, first(&[1])), consumed(1, again)], "is under lease");
}

/// Messages 1 and 2 have failed, and 3 has been there for two rounds.
fn failed_before_new(mode: QueueMode) -> QueueModel {
    let model = must(&queue(mode), &[consumed(2, first(&[1, 2]))]);
    let mut model = must(&model, &[acked(&[(1, false), (2, false)], &[Failed, AfterFailure])]);
    (0..2).for_each(|_| model.begin_round());
    model
}

#[test]
fn failed_messages_do_not_starve_new_ones() {
    let model = failed_before_new(QueueMode::Normal);
    let again = |number, token| delivery(number, 2, token);
    must_not(&model, &[consumed(2, vec![again(1, 7), again(2, 8)])], "2 failed messages and 0 new ones, though 1 wait");
    let turn = must(&model, &[consumed(1, vec![again(1, 7)])]);
    must_not(&turn, &[consumed(1, vec![again(2, 8)])], "1 failed messages and 0 new ones, though 1 wait");
    let turn = must(&turn, &[consumed(1, vec![delivery(3, 1, 8)])]);
    must(&turn, &[consumed(1, vec![again(2, 9)])]);
    must_not(&model, &[consumed(10, vec![again(1, 7), delivery(3, 1, 8)])], "not in stream order");
    must(&model, &[consumed(10, vec![delivery(3, 1, 8), again(1, 7), again(2, 9)])]);
    must(&failed_before_new(QueueMode::Fifo), &[consumed(2, vec![again(1, 7), again(2, 8)])]);
}

#[test]
fn a_message_that_fails_again_waits_for_those_that_failed_before() {
    let model = must(&failed_before_new(QueueMode::Normal), &[consumed(1, vec![delivery(1, 2, 7)])]);
    let mut model = must(&model, &[consumed(1, vec![delivery(3, 1, 8)])]);
    // Two deliveries make a dead letter here: of the dead letters one fails again.
    model.begin_round();
    let dead = |number, offset, attempt, token| {
        let at = Place { offset: i64::from(number) - 1, appended_at: 0 };
        let death = Death { reason: DeadLetterReason::AckFail, attempts: 2, origin: at };
        let place = Place { offset, appended_at: 0 };
        Delivery { number, place, attempt, token, expires: 30 * SECOND, death: Some(death) }
    };
    let model = must(&model, &[acked(&[(7, false)], &[Failed]), consumed(1, vec![delivery(2, 2, 9)])]);
    let mut model = must(&model, &[acked(&[(9, false)], &[Failed])]);
    let both = vec![dead(1, 0, 1, 20), dead(2, 1, 1, 21)];
    model = must(&model, &[consumed_by(DEAD, 2, both)]);
    let fail = |token| acked_by(DEAD, DEAD, &[(token, false)], Answer::Acked(vec![Failed]));
    model = must(&model, &[fail(21)]);
    model.begin_round();
    let model = must(&model, &[fail(20)]);
    must_not(&model, &[consumed_by(DEAD, 1, vec![dead(1, 0, 2, 22)])], "1 has passed one that failed before it");
    must(&model, &[consumed_by(DEAD, 1, vec![dead(2, 1, 2, 22)])]);
}

#[test]
fn a_message_is_in_a_batch_once() {
    let twice = vec![delivery(1, 1, 1), delivery(1, 1, 2)];
    must_not(&queue(QueueMode::Normal), &[consumed(10, twice)], "not in stream order");
}

#[test]
fn an_acknowledged_message_is_not_delivered_again() {
    let model = must(&queue(QueueMode::Normal), &[consumed(1, first(&[1])), acked(&[(1, true)], &[Acked])]);
    must_not(&model, &[consumed(1, vec![delivery(1, 2, 9)])], "1 is not available");
    // The other group has not consumed it.
    let other = ReaderName { group: OTHER, source: Source::Normal };
    must(&model, &[consumed_by(other, 1, vec![delivery(1, 1, 9)])]);
}

#[test]
fn fifo_passes_nothing_over() {
    let model = queue(QueueMode::Fifo);
    must_not(&model, &[consumed(10, first(&[1, 3]))], "2 comes first");
    must_not(&model, &[consumed(10, first(&[2, 3]))], "1 comes first");
    must_not(&model, &[consumed(10, first(&[2, 1]))], "not in stream order");
    must(&queue(QueueMode::Normal), &[consumed(10, first(&[2, 3]))]);
}

#[test]
fn fifo_delivers_a_failed_message_first() {
    let model = must(&queue(QueueMode::Fifo), &[consumed(1, first(&[1])), acked(&[(1, false)], &[Failed])]);
    must_not(&model, &[consumed(1, first(&[2]))], "1 comes first");
}

#[test]
fn fifo_delivers_nothing_while_a_batch_is_in_flight() {
    let model = must(&queue(QueueMode::Fifo), &[consumed(1, first(&[1]))]);
    must_not(&model, &[consumed(1, first(&[2]))], "a batch is in flight");
    must(&model, &[consumed(1, vec![])]);
}

#[test]
fn offsets_follow_the_order_of_commits_without_gaps() {
    let model = queue(QueueMode::Fifo);
    must_not(&model, &[send(4, 4)], "4 was appended at");
    must_not(&model, &[send(4, 2)], "4 was appended at");
    assert_eq!(linearize(std::slice::from_ref(&model), &[send(5, 4), send(4, 3)]).unwrap().len(), 1);
}

#[test]
fn attempts_are_counted() {
    let model = queue(QueueMode::Normal);
    must_not(&model, &[consumed(1, vec![delivery(1, 2, 9)])], "attempt 2, not 1");
    let model = must(&model, &[consumed(1, first(&[1])), acked(&[(1, false)], &[Failed])]);
    must_not(&model, &[consumed(1, vec![delivery(1, 1, 9)])], "attempt 1, not 2");
}

#[test]
fn an_empty_answer_means_that_nothing_was_available() {
    let model = queue(QueueMode::Normal);
    must_not(&model, &[consumed(1, vec![])], "nothing, though 3 are available");
    // Another consumer may have been first.
    let round = [consumed(10, vec![]), consumed(10, first(&[1, 2, 3]))];
    assert_eq!(linearize(std::slice::from_ref(&model), &round).unwrap().len(), 1);
    must_not(&model, &[consumed(10, vec![]), consumed(10, first(&[1, 2]))], "nothing, though");
}

#[test]
fn a_consumer_that_waits_is_woken() {
    let model = must(&queue(QueueMode::Normal), &[consumed(10, first(&[1, 2, 3]))]);
    let waited = |ended| Observed { ended: Duration::from_millis(ended), ..consumed(10, vec![]) };
    must_not(&model, &[waited(1000), send(4, 3)], "nothing, though 1 are available");
    // An answer at about the same time may have come before the send.
    assert_eq!(linearize(std::slice::from_ref(&model), &[waited(300), send(4, 3)]).unwrap().len(), 1);
}

#[test]
fn answers_of_the_past_are_not_those_of_the_future() {
    let model = must(&queue(QueueMode::Normal), &[consumed(10, first(&[1, 2, 3]))]);
    let later = Observed { began: Duration::from_millis(6), ended: Duration::from_millis(9), ..send(4, 3) };
    must_not(&model, &[later, consumed(10, vec![delivery(4, 1, 4)])], "4 is not available");
}

#[test]
fn no_more_than_asked_for() {
    must_not(&queue(QueueMode::Normal), &[consumed(2, first(&[1, 2, 3]))], "3 messages, 2 asked for");
}

#[test]
fn acks_are_counted_by_prefix() {
    let model = must(&queue(QueueMode::Normal), &[consumed(10, first(&[1, 2, 3]))]);
    let entries = [(1, true), (2, false), (3, true)];
    must_not(&model, &[acked(&entries, &[Acked, Failed, Acked])], "expected: acked failed after");
    must_not(&model, &[acked(&entries, &[Acked, Acked, Acked])], "expected: acked failed after");
    must_not(&model, &[acked(&entries, &[Failed, AfterFailure, AfterFailure])], "expected: acked failed after");
    must_not(&model, &[acked(&[(1, true), (1, true)], &[Acked, Acked])], "expected: acked invalid");
    let model = must(&model, &[acked(&entries, &[Acked, Failed, AfterFailure])]);
    must_not(&model, &[acked(&[(3, true)], &[Acked])], "expected: refused DMS.10542209");
}

#[test]
fn stale_and_foreign_handlers_are_refused() {
    let mut model = must(&queue(QueueMode::Normal), &[consumed(10, first(&[1, 2]))]);
    let other = ReaderName { group: OTHER, source: Source::Normal };
    must_not(&model, &[acked_by(other, NORMAL, &[(1, true)], refused(HANDLER_INVALID))], HANDLER_MISMATCH);
    must_not(&model, &[acked_by(DEAD, NORMAL, &[(1, true)], refused(HANDLER_INVALID))], HANDLER_MISMATCH);
    must_not(&model, &[acked(&[(1, true), (3, true)], &[Acked, Acked])], "expected: acked invalid");
    must(&model, &[acked(&[(1, true), (3, true)], &[Acked, InvalidHandler])]);
    model.advance(LEASE, &[]).unwrap();
    must_not(&model, &[acked(&[(1, true)], &[Acked])], HANDLER_INVALID);
}

#[test]
fn a_message_dies_once_after_its_last_attempt() {
    let mut model = must(&queue(QueueMode::Fifo), &[consumed(1, first(&[1])), acked(&[(1, false)], &[Failed])]);
    model = must(&model, &[consumed(1, vec![delivery(1, 2, 9)])]);
    model.advance(LEASE, &[]).unwrap();
    must_not(&model, &[consumed(1, vec![delivery(1, 3, 10)])], "1 is not available");
    must_not(&model, &[consumed_by(DEAD, 1, vec![])], "nothing, though 1 are available");
    let origin = Place { offset: 0, appended_at: 0 };
    let dead = |reason, attempts| Delivery {
        place: Place { offset: 0, appended_at: 30 * SECOND },
        expires: 60 * SECOND,
        death: Some(Death { reason, attempts, origin }),
        ..delivery(1, 1, 11)
    };
    let right = dead(DeadLetterReason::LeaseExpired, 2);
    must_not(&model, &[consumed_by(DEAD, 1, vec![dead(DeadLetterReason::AckFail, 2)])], "1 has origin");
    must_not(&model, &[consumed_by(DEAD, 1, vec![dead(DeadLetterReason::LeaseExpired, 3)])], "1 has origin");
    must_not(&model, &[consumed_by(DEAD, 2, vec![right.clone(), right.clone()])], "not in stream order");
    must(&model, &[consumed_by(DEAD, 1, vec![right])]);
}

#[test]
fn delays_hide_messages_until_they_end() {
    let sent = Sent { number: 4, labels: Vec::new(), delay: 10 };
    let model = must(&queue(QueueMode::Fifo), &[at_once(Op::Send(vec![sent]), Answer::Sent(vec![None]))]);
    must_not(&model, &[consumed(10, first(&[1, 2, 3, 4]))], "4 is not available");
    let due = |seconds| (4, Place { offset: 3, appended_at: seconds * SECOND });
    let early = model.clone().advance(Duration::from_secs(9), &[due(9)]);
    assert!(early.unwrap_err().contains("4 is due at"));
    let late = model.clone().advance(Duration::from_secs(10), &[]);
    assert!(late.unwrap_err().contains("4 is due and has not appeared"));
    model.clone().advance(Duration::from_secs(10), &[due(10)]).unwrap();
}

#[test]
fn expired_messages_are_gone() {
    let mut model = queue(QueueMode::Normal);
    model.advance(model.spec.retention, &[]).unwrap();
    let late = Delivery { expires: model.now + 30 * SECOND, ..delivery(1, 1, 1) };
    must_not(&model, &[consumed(1, vec![late])], "1 is not available");
    must(&model, &[consumed(1, vec![])]);
}

#[test]
fn a_group_keeps_its_first_label_rule() {
    let rule = Rule { labels: BTreeSet::from(["a".to_owned()]), all: false };
    let labelled =
        |answer| at_once(Op::Consume { reader: NORMAL, max: 1, lease: LEASE, rule: Some(rule.clone()) }, answer);
    let model = queue(QueueMode::Normal);
    must_not(&model, &[labelled(Answer::Batch(first(&[1])))], "1 is not available");
    let model = must(&model, &[labelled(Answer::Batch(vec![]))]);
    must_not(&model, &[consumed(1, vec![])], CONSUME_FAILED);
    must_not(&model, &[consumed(1, first(&[1]))], CONSUME_FAILED);
}

#[test]
fn a_retrieval_binds_on_arrival_and_looks_until_its_wait_ends() {
    let model = must(&queue(QueueMode::Normal), &[consumed(10, first(&[1, 2, 3]))]);
    let rule = Rule { labels: BTreeSet::from(["a".to_owned()]), all: false };
    let labelled = Op::Consume { reader: NORMAL, max: 1, lease: LEASE, rule: Some(rule) };
    let waited = Observed { ended: Duration::from_secs(1), ..at_once(labelled, Answer::Batch(vec![])) };
    let other = at_once(Op::Consume { reader: NORMAL, max: 1, lease: LEASE, rule: None }, refused(CONSUME_FAILED));
    assert_eq!(linearize(std::slice::from_ref(&model), &[waited.clone(), other.clone()]).unwrap().len(), 1);
    must_not(&model, &[other], "not a batch");
    // Bound, but not blind: what matches and came in time has to be delivered.
    let sent = Sent { number: 4, labels: vec!["a".into()], delay: 0 };
    let send = at_once(Op::Send(vec![sent]), Answer::Sent(vec![Some(Place { offset: 3, appended_at: 0 })]));
    must_not(&model, &[waited, send], "nothing, though 1 are available");
}

#[test]
fn a_deleted_group_is_not_there() {
    let model = must(&queue(QueueMode::Normal), &[at_once(Op::DeleteGroup(GROUP), Answer::Done)]);
    must_not(&model, &[consumed(1, first(&[1]))], GROUP_NOT_FOUND);
    must_not(&model, &[at_once(Op::DeleteGroup(GROUP), Answer::Done)], GROUP_NOT_FOUND);
}
