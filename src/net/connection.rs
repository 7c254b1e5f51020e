//! What is known of one connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::call::{Call, InFlight};
use super::ending::Ending;
use super::newcomers::Newcomer;
use super::slots::{Slot, Slots};
use crate::observe::metrics::{Connections, Cut};

/// A connection without a call with good credentials, and without a health check, is asked to end after this.
const UNKNOWN_MAX: Duration = Duration::from_secs(60);
/// An answer of which nothing is taken for so long is given up.
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// What was asked to end and has not is cut.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection, for its listener, its calls and whoever serves it.
#[derive(Debug)]
pub(super) struct Connection {
    peer: SocketAddr,
    /// Cuts it.
    must_go: Arc<Notify>,
    /// Lets its calls end, and takes no more.
    should_go: Notify,
    settled: Arc<Slots>,
    /// Whether it has a place among those of known callers, or needs none.
    is_settled: AtomicBool,
    /// Whether it was asked to end.
    is_leaving: AtomicBool,
    standing: Mutex<Standing>,
    heads: AtomicU64,
    calls: AtomicUsize,
    /// Answers on their way.
    answers: Mutex<HashMap<u64, Weak<InFlight>>>,
    cuts: Connections,
    /// A connection without a call is asked to end after this.
    idle_max: Option<Duration>,
    ending: Ending,
}

#[derive(Debug)]
struct Standing {
    place: HeldSlot,
    alive_at: Instant,
    /// How many requests had come when it was seen without a call first, and when.
    idle_since: (u64, Instant),
}

/// Held for what dropping it does.
#[derive(Debug)]
#[expect(dead_code, reason = "a place is held, and read by nobody")]
enum HeldSlot {
    Unknown(Newcomer),
    Known(Slot),
}

impl Connection {
    /// Of a caller at this address. `settled` is for connections of known callers; one that is `trusted` has no need of them.
    /// Why it is ended, if it is, is counted in `cuts`.
    pub(super) fn new(
        peer: SocketAddr,
        must_go: Arc<Notify>,
        place: Newcomer,
        settled: Arc<Slots>,
        trusted: bool,
        cuts: Connections,
    ) -> Self {
        let now = Instant::now();
        Self {
            peer,
            must_go,
            should_go: Notify::new(),
            settled,
            is_settled: AtomicBool::new(trusted),
            is_leaving: AtomicBool::new(false),
            standing: Mutex::new(Standing { place: HeldSlot::Unknown(place), alive_at: now, idle_since: (0, now) }),
            heads: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            answers: Mutex::default(),
            cuts,
            idle_max: None,
            ending: Ending::default(),
        }
    }

    /// It, or a call of it, is ended.
    pub(super) fn is_cut(&self, reason: Cut) {
        self.cuts.cut(reason);
    }

    /// With an end when it has had no call for this time.
    #[must_use]
    pub(super) fn ending_idle(self, idle_max: Option<Duration>) -> Self {
        Self { idle_max, ..self }
    }

    /// The end of what its caller sends.
    pub(super) fn ending(&self) -> &Ending {
        &self.ending
    }

    /// Where the caller is.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What cuts it.
    pub(super) fn must_go(&self) -> Arc<Notify> {
        Arc::clone(&self.must_go)
    }

    /// Returns when the connection is asked to end.
    pub(super) async fn should_go(&self) {
        self.should_go.notified().await;
    }

    /// Requests whose headers are complete, and whether one is being answered.
    pub(super) fn heads(&self) -> (u64, bool) {
        (self.heads.load(Ordering::Acquire), self.calls.load(Ordering::Acquire) > 0)
    }

    /// A call with good credentials came: the connection counts among those of their owner, if there is a place.
    pub(super) fn settle(&self, owner: &str) {
        if self.is_settled.load(Ordering::Acquire) {
            return;
        }
        if let Ok(share) = self.settled.take(owner) {
            self.standing().place = HeldSlot::Known(share);
            self.is_settled.store(true, Ordering::Release);
        }
    }

    /// A health check was answered.
    pub(super) fn is_alive(&self) {
        if !self.is_settled.load(Ordering::Acquire) {
            self.standing().alive_at = Instant::now();
        }
    }

    pub(super) fn call_begins(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        self.heads.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn call_ends(&self, number: u64) {
        self.answers().remove(&number);
        self.calls.fetch_sub(1, Ordering::AcqRel);
        self.ending.read_again();
    }

    /// The answer of this call has a body; it is watched until it is sent.
    pub(super) fn answers_with(&self, call: &Call) {
        self.answers().insert(call.number(), Arc::downgrade(call.in_flight()));
    }

    /// Ends what has taken too long.
    pub(super) fn look_after(&self, now: Instant) {
        if !self.is_settled.load(Ordering::Acquire) {
            let unknown = now.saturating_duration_since(self.standing().alive_at);
            if unknown >= UNKNOWN_MAX + PATIENCE {
                self.must_go.notify_one();
            } else if unknown >= UNKNOWN_MAX && !self.is_leaving.swap(true, Ordering::AcqRel) {
                self.is_cut(Cut::Unknown);
                self.should_go.notify_one();
            }
        }
        if self.idle_max.is_some_and(|idle_max| self.idle(now) >= idle_max) {
            self.should_go.notify_one();
        }
        let unread: Vec<_> = self.answers().values().filter_map(Weak::upgrade).collect();
        for answer in unread {
            let unread = answer.unread_since().map(|since| now.saturating_duration_since(since));
            if unread.is_some_and(|unread| unread >= UNREAD_MAX + PATIENCE) {
                // The library holds the last of it, and has no way to give up a stream alone.
                self.must_go.notify_one();
            } else if unread.is_some_and(|unread| unread >= UNREAD_MAX) && answer.end_once() {
                self.is_cut(Cut::Unread);
            }
        }
    }

    /// How long it has been seen without a call.
    fn idle(&self, now: Instant) -> Duration {
        let (heads, busy) = self.heads();
        let mut standing = self.standing();
        if busy || standing.idle_since.0 != heads {
            standing.idle_since = (heads, now);
        }
        now.saturating_duration_since(standing.idle_since.1)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<u64, Weak<InFlight>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
