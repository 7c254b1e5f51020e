//! What a lane serves apart: streams and subscriptions whose rows somebody has locked, or that Postgres has refused. They are tried
//! alone, on other connections than the lane's, so that nobody who shares the lane waits for them or pays for them.
//!
//! Each is served in order, by a task of its own that ends with the work. Whatever arrives for it in some seconds after its last
//! failure takes the same way. The lane meets it again when it has been well for that long; if it fails again then, the next
//! quarantine is twice as long.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::broker::core::Core;
use crate::domain::Error;
use crate::memory::{Reservation, Use};
use crate::store::session::connection::{Durability, LaneConnection};

/// What has failed for the first time is served apart for this long, and at most for the longest.
const QUARANTINE: Duration = Duration::from_secs(5);
const QUARANTINE_MAX: Duration = Duration::from_secs(60);
/// It is remembered for this many quarantines.
const REMEMBERED: u32 = 4;
/// Connections at a time.
pub(crate) const CONNECTIONS: usize = 2;
/// Bytes that may wait for all together, and for one.
const BYTES_MAX: usize = 32 * 1024 * 1024;
const KEY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The first rest of what is locked; it doubles up to the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Every so many times it gets in the line for the lock: a row that others lock in turns is never found free by chance.
const IN_LINE_EVERY: u32 = 4;

/// What became of one attempt. Who waits for it has been answered, unless it comes back.
#[derive(Debug)]
pub(crate) enum Attempt<W> {
    /// It is done, or nobody knows whether it is.
    Done,
    /// Postgres has refused it.
    Refused,
    /// Nothing was written, for its rows are locked.
    Locked(W),
}

/// Work that can be done apart.
pub(crate) trait ApartWork: Sized + Send + 'static {
    /// What it is for: done in order for each.
    type Key: Copy + Eq + Hash + Debug + Send + Sync + 'static;

    /// What it keeps in memory.
    fn bytes(&self) -> usize;

    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;

    /// Answers that it was not done.
    fn refuse(self, error: &Error);

    /// Tries to do it. `in_line`: waits in line for its locks, for as long as a lane does; otherwise it looks whether they are free.
    fn attempt(
        self,
        core: &Core,
        connection: &mut LaneConnection,
        in_line: bool,
    ) -> impl Future<Output = Attempt<Self>> + Send;
}

/// Work with what it holds of the memory for calls that wait, and since when it does.
type Waiting<W> = (W, Reservation, Instant);

/// What waits for one key.
#[derive(Debug)]
struct Side<W> {
    waiting: VecDeque<Waiting<W>>,
    bytes: usize,
    /// Whether its task runs.
    running: bool,
    failed_at: Instant,
    quarantine: Duration,
}

impl<W> Side<W> {
    fn new() -> Self {
        let failed_at = Instant::now();
        Self { waiting: VecDeque::new(), bytes: 0, running: false, failed_at, quarantine: QUARANTINE }
    }

    /// Whether the lane may try again: nothing waits here that would be overtaken.
    fn is_well(&self) -> bool {
        !self.running && self.failed_at.elapsed() > self.quarantine
    }

    fn is_forgotten(&self) -> bool {
        !self.running && self.failed_at.elapsed() > self.quarantine * REMEMBERED
    }

    fn has_failed(&mut self) {
        if self.is_well() {
            self.quarantine = (self.quarantine * 2).min(QUARANTINE_MAX);
        }
        self.failed_at = Instant::now();
    }
}

#[derive(Debug)]
struct Sides<W: ApartWork> {
    by_key: HashMap<W::Key, Side<W>>,
    bytes: usize,
    running: usize,
    idle: Vec<LaneConnection>,
}

/// All that is served apart from lanes of one kind.
#[derive(Debug)]
pub(crate) struct Apart<W: ApartWork> {
    core: Arc<Core>,
    name: &'static str,
    sides: Mutex<Sides<W>>,
    /// How many keys there are: mostly none, which costs a lane no lock.
    keys: AtomicUsize,
    connections: Semaphore,
    tasks: TaskTracker,
}

impl<W: ApartWork> Apart<W> {
    /// Nothing is apart yet. Its tasks are among those that the end of the service waits for.
    pub(crate) fn new(core: Arc<Core>, name: &'static str, tasks: TaskTracker) -> Self {
        let sides = Sides { by_key: HashMap::new(), bytes: 0, running: 0, idle: Vec::new() };
        let connections = Semaphore::new(CONNECTIONS);
        Self { core, name, sides: Mutex::new(sides), keys: AtomicUsize::new(0), connections, tasks }
    }

    fn lock(&self) -> MutexGuard<'_, Sides<W>> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is served apart; false costs nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.load(Ordering::Relaxed) == 0
    }

    /// Whether this is served apart now.
    pub(crate) fn has(&self, key: W::Key) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut sides = self.lock();
        if sides.by_key.get(&key).is_some_and(Side::is_forgotten) {
            sides.by_key.remove(&key);
            self.keys.store(sides.by_key.len(), Ordering::Relaxed);
        }
        sides.by_key.get(&key).is_some_and(|side| !side.is_well())
    }

    /// It has failed: what comes for it from now on is served apart.
    pub(crate) fn failed(&self, key: W::Key) {
        let mut sides = self.lock();
        if let Some(side) = sides.by_key.get_mut(&key) {
            return side.has_failed();
        }
        tracing::warn!(?key, "locked or refused by the database: served apart from its lane for now");
        // Those that nothing comes for any more are not asked after.
        sides.by_key.retain(|_, side| !side.is_forgotten());
        sides.by_key.insert(key, Side::new());
        self.keys.store(sides.by_key.len(), Ordering::Relaxed);
    }

    /// Serves this apart; refused when too much waits already.
    pub(crate) fn add(self: &Arc<Self>, key: W::Key, work: W) {
        let bytes = work.bytes();
        let reserved = self.core.memory.part(Use::Lanes).reserve(None, bytes);
        let mut guard = self.lock();
        let sides = &mut *guard;
        let side = sides.by_key.entry(key).or_insert_with(Side::new);
        let has_room = sides.bytes + bytes <= BYTES_MAX && side.bytes + bytes <= KEY_BYTES_MAX;
        let Some(reserved) = reserved.ok().filter(|_| has_room) else {
            drop(guard);
            return work.refuse(&Error::overloaded("too much waits for what is locked in the database; retry later"));
        };
        side.waiting.push_back((work, reserved, Instant::now()));
        side.bytes += bytes;
        sides.bytes += bytes;
        let starts = !std::mem::replace(&mut side.running, true);
        sides.running += usize::from(starts);
        self.keys.store(sides.by_key.len(), Ordering::Relaxed);
        drop(guard);
        if starts {
            self.tasks.spawn(Arc::clone(self).serve(key));
        }
    }

    async fn serve(self: Arc<Self>, key: W::Key) {
        while let Some((work, _reserved, since)) = self.next(key) {
            // A task of its own: should it panic, what waits behind it is served.
            let _ = self.tasks.spawn(Arc::clone(&self).see_through(key, work, since)).await;
        }
        let idle = {
            let mut sides = self.lock();
            sides.running -= 1;
            if sides.running == 0 { std::mem::take(&mut sides.idle) } else { Vec::new() }
        };
        for connection in idle {
            connection.close().await;
        }
    }

    /// The next work that somebody waits for.
    fn next(&self, key: W::Key) -> Option<Waiting<W>> {
        let mut sides = self.lock();
        loop {
            let side = sides.by_key.get_mut(&key)?;
            let Some((work, reserved, since)) = side.waiting.pop_front() else {
                side.running = false;
                return None;
            };
            let bytes = work.bytes();
            side.bytes -= bytes;
            sides.bytes -= bytes;
            if !work.is_abandoned() {
                return Some((work, reserved, since));
            }
        }
    }

    /// Tries until it is done or refused, or has been locked for longer than a statement may take.
    async fn see_through(self: Arc<Self>, key: W::Key, mut work: W, since: Instant) {
        let mut rest = RETRY_PAUSE;
        for attempts in 0_u32.. {
            match self.attempt(work, attempts.is_multiple_of(IN_LINE_EVERY)).await {
                Attempt::Done => return,
                Attempt::Refused => return self.failed(key),
                Attempt::Locked(same) => work = same,
            }
            self.failed(key);
            let stops = self.core.stop_waiting.is_cancelled();
            if stops || since.elapsed() > self.core.settings.statement_timeout {
                return work.refuse(&Error::unavailable("the database is busy: a row of this queue is locked"));
            }
            if work.is_abandoned() {
                return;
            }
            let _ = self.core.stop_waiting.run_until_cancelled(tokio::time::sleep(rest)).await;
            rest = (rest * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn attempt(&self, work: W, in_line: bool) -> Attempt<W> {
        let Ok(_permit) = self.connections.acquire().await else { return Attempt::Locked(work) };
        let idle = self.lock().idle.pop();
        let mut connection =
            idle.unwrap_or_else(|| LaneConnection::new(&self.core.store, self.name, Durability::Synchronous));
        let attempted = work.attempt(&self.core, &mut connection, in_line).await;
        self.lock().idle.push(connection);
        attempted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_ends_and_the_next_is_longer() {
        let long_ago =
            |side: &mut Side<()>, ago: Duration| side.failed_at = Instant::now().checked_sub(ago).expect("late enough");
        let mut side: Side<()> = Side::new();
        assert!(!side.is_well() && !side.is_forgotten());
        side.has_failed();
        assert_eq!(side.quarantine, QUARANTINE, "still the same one");
        long_ago(&mut side, QUARANTINE * 2);
        assert!(side.is_well() && !side.is_forgotten());
        side.has_failed();
        assert!(!side.is_well() && side.quarantine == QUARANTINE * 2);
        long_ago(&mut side, QUARANTINE * 20);
        assert!(side.is_forgotten());
        side.running = true;
        assert!(!side.is_well() && !side.is_forgotten());
    }
}
