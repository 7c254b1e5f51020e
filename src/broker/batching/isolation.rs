//! A flush that Postgres has refused, or that met a locked row, because of one of those it serves: finds out which, and carries
//! out the rest without it.
//!
//! What is locked is asked for, what is refused is found by halves: a few statements more, once, for what has failed is served
//! apart from its lane for a while (`apart.rs`).

use std::time::{Duration, Instant};

use crate::domain::Error;
use crate::store::session::connection::{Failure, FlushError};

/// Attempts at one flush. One stream in 512 that is refused takes eighteen.
const ATTEMPTS_MAX: usize = 64;

/// A part that was not carried out, as it was, and why.
pub(crate) type Failed<T> = (Vec<T>, FlushError);

/// How a lane carries out parts of a flush, and what becomes of those that cannot be.
pub(crate) trait Parts: Send {
    /// What is served together.
    type Item: Send;

    /// Carries out a part in one transaction, or gives it back with nothing done.
    fn attempt(&mut self, part: Vec<Self::Item>) -> impl Future<Output = Result<(), Failed<Self::Item>>> + Send;

    /// Sets apart those whose rows are locked from the others; all of them stay when that cannot be told.
    fn split_locked(
        &mut self,
        part: Vec<Self::Item>,
    ) -> impl Future<Output = (Vec<Self::Item>, Vec<Self::Item>)> + Send;

    /// Postgres refuses this one, also alone.
    fn refused(&mut self, item: Self::Item, error: Error);

    /// This one has to be tried again, apart from the others.
    fn set_apart(&mut self, item: Self::Item);

    /// The connection is lost; what was written is not known.
    fn lost(&mut self, items: Vec<Self::Item>, error: Error);
}

/// Carries out what can be of a part that has failed. What is still in doubt after `limit`, or after too many attempts, is set
/// apart.
pub(crate) async fn isolate<P: Parts>(parts: &mut P, (part, error): Failed<P::Item>, limit: Duration) {
    let deadline = Instant::now() + limit;
    let (mut untried, mut failed, mut attempts) = (Vec::new(), Some((part, error)), 0);
    loop {
        if let Some((mut part, FlushError { failure, error })) = failed.take() {
            match failure {
                Failure::Lost => {
                    part.extend(untried.into_iter().flatten());
                    return parts.lost(part, error);
                }
                Failure::Refused if part.len() == 1 => {
                    part.into_iter().for_each(|item| parts.refused(item, error.clone()))
                }
                Failure::Locked if part.len() == 1 => part.into_iter().for_each(|item| parts.set_apart(item)),
                _ if attempts >= ATTEMPTS_MAX || Instant::now() > deadline => {
                    part.extend(untried.into_iter().flatten());
                    return part.into_iter().for_each(|item| parts.set_apart(item));
                }
                Failure::Refused => untried.extend(halves(part)),
                Failure::Locked => match parts.split_locked(part).await {
                    // Another row than those that were looked at.
                    (locked, free) if locked.is_empty() => untried.extend(halves(free)),
                    (locked, free) => {
                        locked.into_iter().for_each(|item| parts.set_apart(item));
                        untried.extend([free].into_iter().filter(|free| !free.is_empty()));
                    }
                },
            }
        }
        let Some(part) = untried.pop() else { return };
        attempts += 1;
        failed = parts.attempt(part).await.err();
    }
}

/// The second half and the first, which is tried first.
fn halves<T>(mut part: Vec<T>) -> [Vec<T>; 2] {
    let second = part.split_off(part.len() / 2);
    [second, part]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers; some are refused, some are locked, some take the connection with them.
    #[derive(Default)]
    struct Numbers {
        refused_by_postgres: Vec<u32>,
        locked: Vec<u32>,
        /// Locked, and not found by a look.
        hidden: Vec<u32>,
        deadly: Option<u32>,
        attempts: usize,
        done: Vec<u32>,
        refused: Vec<u32>,
        apart: Vec<u32>,
        lost: Vec<u32>,
    }

    impl Parts for Numbers {
        type Item = u32;

        async fn attempt(&mut self, part: Vec<u32>) -> Result<(), Failed<u32>> {
            self.attempts += 1;
            let has = |numbers: &[u32]| part.iter().any(|number| numbers.contains(number));
            let failure = if self.deadly.is_some_and(|deadly| part.contains(&deadly)) {
                Failure::Lost
            } else if has(&self.locked) || has(&self.hidden) {
                Failure::Locked
            } else if has(&self.refused_by_postgres) {
                Failure::Refused
            } else {
                self.done.extend(part);
                return Ok(());
            };
            Err((part, FlushError { failure, error: Error::internal("refused") }))
        }

        async fn split_locked(&mut self, part: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
            part.into_iter().partition(|number| self.locked.contains(number))
        }

        fn refused(&mut self, item: u32, _: Error) {
            self.refused.push(item);
        }

        fn set_apart(&mut self, item: u32) {
            self.apart.push(item);
        }

        fn lost(&mut self, items: Vec<u32>, _: Error) {
            self.lost.extend(items);
        }
    }

    async fn isolated(mut numbers: Numbers, limit: Duration) -> Numbers {
        if let Err(failed) = numbers.attempt((0..512).collect()).await {
            isolate(&mut numbers, failed, limit).await;
        }
        for outcome in [&mut numbers.done, &mut numbers.refused, &mut numbers.apart, &mut numbers.lost] {
            outcome.sort_unstable();
        }
        let outcomes = [&numbers.done, &numbers.refused, &numbers.apart, &numbers.lost];
        let mut all: Vec<u32> = outcomes.into_iter().flatten().copied().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..512), "each has one outcome");
        numbers
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_rest_is_carried_out() {
        let (refused_by_postgres, locked, hidden) = (vec![0, 300], vec![7, 8, 511], vec![200]);
        let numbers = isolated(Numbers { refused_by_postgres, locked, hidden, ..Numbers::default() }, MINUTE).await;
        assert_eq!((&numbers.refused[..], &numbers.apart[..]), (&[0, 300][..], &[7, 8, 200, 511][..]));
        assert!(numbers.attempts < 60, "{}", numbers.attempts);
    }

    #[tokio::test]
    async fn when_all_are_refused_it_soon_gives_up() {
        let all = || Numbers { refused_by_postgres: (0..512).collect(), ..Numbers::default() };
        let numbers = isolated(all(), MINUTE).await;
        assert!(numbers.attempts <= ATTEMPTS_MAX + 1 && !numbers.apart.is_empty(), "{}", numbers.attempts);
        assert_eq!(isolated(all(), Duration::ZERO).await.apart.len(), 512, "no time left");
    }

    #[tokio::test]
    async fn a_lost_connection_ends_it() {
        let numbers = Numbers { refused_by_postgres: vec![511], deadly: Some(0), ..Numbers::default() };
        let mut numbers = numbers;
        let failed = (0..512).collect();
        let error = FlushError { failure: Failure::Refused, error: Error::internal("refused") };
        isolate(&mut numbers, (failed, error), MINUTE).await;
        assert_eq!((numbers.attempts, numbers.lost.len(), numbers.done.len()), (1, 512, 0));
    }
}
