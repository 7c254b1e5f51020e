//! Clocks: Postgres's own, carried on by the monotonic clock of this machine, and one that tests turn by hand.

mod hands;
mod manual;
#[cfg(test)]
mod simulation;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub(super) use self::hands::{Followed, Step, pause_after};
pub use self::manual::ManualClock;

use self::hands::{Hands, Reading};
use crate::domain::Result;
use crate::domain::clock::{Clock, Sleep, Timestamp};
use crate::store::session::clock::ClockConnection;

/// A first reading as good as this is taken at once; else the best of several.
const GOOD_ERROR: Duration = Duration::from_millis(5);
const FIRST_READINGS: usize = 5;

/// Postgres's clock as of the best reading plus the time since. Steps of this machine's wall clock do not matter, and replicas
/// agree to within their known errors.
#[derive(Debug, Clone)]
pub struct DatabaseClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start: Instant,
    hands: Mutex<Hands>,
    /// Wakes those who wait for an instant: the way there may have become shorter or longer.
    set: watch::Sender<()>,
}

impl Shared {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DatabaseClock {
    /// Reads Postgres's clock, several times if need be.
    pub async fn start(connection: &mut ClockConnection) -> Result<Self> {
        let start = Instant::now();
        let mut best = read(connection, start).await?;
        for _ in 1..FIRST_READINGS {
            if best.error() <= GOOD_ERROR {
                break;
            }
            let next = read(connection, start).await?;
            if next.error() < best.error() {
                best = next;
            }
        }
        Ok(Self(Arc::new(Shared { start, hands: Mutex::new(Hands::new(best)), set: watch::Sender::new(()) })))
    }

    /// Reads Postgres's clock again and goes by the better reading.
    pub(super) async fn refresh(&self, connection: &mut ClockConnection) -> Result<Followed> {
        let fresh = read(connection, self.0.start).await?;
        let followed = self.0.hands().follow(fresh, self.0.elapsed());
        self.0.set.send_replace(());
        Ok(followed)
    }
}

async fn read(connection: &mut ClockConnection, start: Instant) -> Result<Reading> {
    let read = connection.read().await?;
    let since = |instant: Instant| instant.saturating_duration_since(start);
    Ok(Reading::between(since(read.asked), since(read.answered), read.shown))
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        self.0.hands().show(self.0.elapsed())
    }

    fn error(&self) -> Duration {
        self.0.hands().error(self.0.elapsed())
    }

    fn latest(&self) -> Timestamp {
        self.0.hands().latest(self.0.elapsed())
    }

    fn expiry_now(&self) -> Timestamp {
        self.0.hands().expiry_now(self.0.elapsed())
    }

    fn sleep_until(&self, instant: Timestamp) -> Sleep {
        let shared = Arc::clone(&self.0);
        let mut set = shared.set.subscribe();
        Box::pin(async move {
            loop {
                let left = shared.hands().left_until(instant, shared.elapsed());
                if left.is_zero() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(left) => {}
                    // The sender lives as long as the clock.
                    _ = set.changed() => {}
                }
            }
        })
    }
}
