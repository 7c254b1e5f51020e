//! What a consumer does with a batch: mostly what it should, at times what it should not.

use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::chaos::api::AckStatus::{self, Fail, Success};

/// One entry: the index in the batch and what to say of it.
pub(super) type Say = (usize, AckStatus);

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    /// Acknowledge.
    Ack(Vec<Say>),
    /// Acknowledge the same on two connections at the same time.
    AtOnce(Vec<Say>),
    /// Acknowledge so long after.
    Late(Duration, Vec<Say>),
}

/// One way to treat a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// All with success, in order.
    Right,
    /// All with success, in any order.
    Shuffled,
    /// Each in a call of its own.
    OneByOne,
    /// The same from the end.
    Backwards,
    /// The first ones only.
    Prefix,
    /// Success up to one that fails, and what is behind it is named too.
    Fails,
    /// The same, but what is behind it is not named.
    FailsAlone,
    /// All, and then all again.
    Again,
    /// All, twice at the same time.
    AtOnce,
    /// All, after the lease.
    Late,
    /// Not at all.
    Never,
}

/// How often each is seen, in a thousand: on NORMAL queues, and on FIFO queues, where a batch that is left alone stops the
/// group until its lease ends. The rest is right.
const HABITS: [(Habit, u32, u32); 10] = [
    (Habit::Shuffled, 50, 50),
    (Habit::OneByOne, 30, 30),
    (Habit::Backwards, 20, 20),
    (Habit::Prefix, 20, 1),
    (Habit::Fails, 60, 60),
    (Habit::FailsAlone, 10, 1),
    (Habit::Again, 30, 30),
    (Habit::AtOnce, 20, 20),
    (Habit::Late, 10, 1),
    (Habit::Never, 20, 1),
];

/// How late is late, after the end of the lease.
const LATE: std::ops::Range<u64> = 200..3_000;

/// What to do with a batch. `poisoned` tells for each message whether it can never be consumed.
pub(super) fn moves(rng: &mut StdRng, fifo: bool, lease: Duration, poisoned: &[bool]) -> Vec<Move> {
    let all: Vec<Say> = (0..poisoned.len()).map(|index| (index, Success)).collect();
    if poisoned.contains(&true) {
        return vec![Move::Ack(poison_last(poisoned))];
    }
    match draw(rng, fifo) {
        Habit::Right => vec![Move::Ack(all)],
        Habit::Shuffled => vec![Move::Ack(shuffled(rng, all))],
        Habit::OneByOne => all.into_iter().map(|say| Move::Ack(vec![say])).collect(),
        Habit::Backwards => all.into_iter().rev().map(|say| Move::Ack(vec![say])).collect(),
        Habit::Prefix => vec![Move::Ack(all[..rng.random_range(1..=all.len())].to_vec())],
        Habit::Fails => vec![Move::Ack(with_failure(rng, all))],
        Habit::FailsAlone => {
            let mut says = with_failure(rng, all);
            says.truncate(says.iter().position(|(_, status)| *status == Fail).map_or(0, |index| index + 1));
            vec![Move::Ack(says)]
        }
        Habit::Again => vec![Move::Ack(all.clone()), Move::Ack(all)],
        Habit::AtOnce => vec![Move::AtOnce(all)],
        Habit::Late => vec![Move::Late(lease + Duration::from_millis(rng.random_range(LATE)), all)],
        Habit::Never => Vec::new(),
    }
}

/// What to do with a batch when all behave.
pub(super) fn calm_moves(count: usize) -> Vec<Move> {
    vec![Move::Ack((0..count).map(|index| (index, Success)).collect())]
}

fn draw(rng: &mut StdRng, fifo: bool) -> Habit {
    let mut point = rng.random_range(0..1_000);
    for (habit, normal, in_fifo) in HABITS {
        let weight = if fifo { in_fifo } else { normal };
        if point < weight {
            return habit;
        }
        point -= weight;
    }
    Habit::Right
}

/// What can be consumed first, then what cannot.
fn poison_last(poisoned: &[bool]) -> Vec<Say> {
    let those = |which: bool| poisoned.iter().enumerate().filter(move |(_, poisoned)| **poisoned == which);
    let good = those(false).map(|(index, _)| (index, Success));
    good.chain(those(true).map(|(index, _)| (index, Fail))).collect()
}

fn shuffled(rng: &mut StdRng, mut all: Vec<Say>) -> Vec<Say> {
    all.shuffle(rng);
    all
}

fn with_failure(rng: &mut StdRng, mut all: Vec<Say>) -> Vec<Say> {
    let at = rng.random_range(0..all.len());
    all[at].1 = Fail;
    all
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn every_habit_is_seen_and_names_messages_of_the_batch_only() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut lates, mut nevers, mut fails) = (0, 0, 0);
        for _ in 0..2_000 {
            let moves = moves(&mut rng, false, Duration::from_secs(15), &[false; 3]);
            nevers += usize::from(moves.is_empty());
            for one in moves {
                let (Move::Ack(says) | Move::AtOnce(says) | Move::Late(_, says)) = &one;
                assert!(!says.is_empty() && says.iter().all(|(index, _)| *index < 3), "{one:?}");
                lates += usize::from(matches!(one, Move::Late(..)));
                fails += usize::from(says.iter().any(|(_, status)| *status == Fail));
            }
        }
        assert!(lates > 0 && nevers > 0 && fails > 0, "{lates} {nevers} {fails}");
    }

    #[test]
    fn what_cannot_be_consumed_fails_behind_what_can() {
        let mut rng = StdRng::seed_from_u64(1);
        let moves = moves(&mut rng, true, Duration::from_secs(15), &[true, false]);
        assert_eq!(moves, [Move::Ack(vec![(1, Success), (0, Fail)])]);
    }
}
