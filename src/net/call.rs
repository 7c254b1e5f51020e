//! Calls in flight: each has a place from its first byte until its answer is sent or given up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::NetLimits;
use super::connection::Connection;
use super::newcomers::{Newcomer, Newcomers};
use super::slots::{Full, Slot, Slots};
use crate::domain::{Error, Result};
use crate::observe::metrics::Cut;

/// Calls of callers who are not known (yet), for each call of known ones that there may be: health checks, refusals on their way
/// out, requests whose signature covers a body that has not come.
const UNKNOWN_SHARE: usize = 10;

tokio::task_local! {
    /// Ends the stream of HTTP/2 that the present task serves.
    pub(super) static ENDS_STREAM: Arc<Notify>;
}

/// The calls in flight of a process. Clones share them.
#[derive(Debug, Clone)]
pub struct Calls(Arc<Pools>);

#[derive(Debug)]
struct Pools {
    unknown: Arc<Newcomers>,
    known: Arc<Slots>,
    connections: Arc<Slots>,
    begun: AtomicU64,
}

impl Calls {
    /// None in flight.
    pub fn new(limits: NetLimits) -> Self {
        let unknown = Newcomers::new(limits.calls_max / UNKNOWN_SHARE);
        let connections = Slots::new(limits.known_connections_max());
        let known = Slots::new(limits.calls_max);
        Self(Arc::new(Pools { unknown, known, connections, begun: AtomicU64::new(0) }))
    }

    /// The connections of known callers, on all listeners of the process.
    pub(super) fn connections(&self) -> Arc<Slots> {
        Arc::clone(&self.0.connections)
    }

    /// A call begins, in the task that serves it.
    pub(super) fn begin(&self, connection: Arc<Connection>) -> Call {
        // HTTP/1 has no streams: a call ends with its connection.
        let ends = ENDS_STREAM.try_with(Arc::clone).unwrap_or_else(|_| connection.must_go());
        let (place, crowded) = self.0.unknown.enter(connection.peer().ip(), Arc::clone(&ends));
        if crowded {
            connection.is_cut(Cut::CallCrowd);
        }
        let number = self.0.begun.fetch_add(1, Ordering::Relaxed);
        connection.call_begins();
        Call(Arc::new(InFlight {
            number,
            pools: Arc::clone(&self.0),
            connection,
            ends,
            ended: AtomicBool::new(false),
            known: AtomicBool::new(false),
            place: Mutex::new(HeldSlot::Unknown(place)),
            unsent: Mutex::default(),
        }))
    }
}

/// One call: an extension of its request, which nobody can set from outside. Clones are the same call.
#[derive(Debug, Clone)]
pub struct Call(Arc<InFlight>);

#[derive(Debug)]
pub(super) struct InFlight {
    number: u64,
    pools: Arc<Pools>,
    connection: Arc<Connection>,
    ends: Arc<Notify>,
    ended: AtomicBool,
    known: AtomicBool,
    place: Mutex<HeldSlot>,
    unsent: Mutex<Unsent>,
}

/// Held for what dropping it does.
#[derive(Debug)]
#[expect(dead_code, reason = "a place is held, and read by nobody")]
enum HeldSlot {
    Unknown(Newcomer),
    Known(Slot),
}

/// What of the answer was handed over and is not on its way yet.
#[derive(Debug, Default)]
struct Unsent {
    pieces: usize,
    /// When the first of them was handed over, or the last one was sent.
    since: Option<Instant>,
    waiting: Option<Waker>,
}

impl Call {
    /// The credentials of the call are good, and these are theirs. From now on it counts among the calls of this owner.
    ///
    /// # Errors
    /// `Overloaded` when the owner has its share of the calls in flight.
    pub(crate) fn belongs_to(&self, owner: &str) -> Result<()> {
        if self.0.known.load(Ordering::Acquire) {
            return Ok(());
        }
        let share = self.0.pools.known.take(owner).map_err(|full| match full {
            Full::ForAll => Error::overloaded("too many calls in flight: retry later"),
            Full::ForOwner => Error::overloaded("this caller has too many calls in flight: retry later"),
        })?;
        *self.place() = HeldSlot::Known(share);
        self.0.known.store(true, Ordering::Release);
        Ok(())
    }

    /// The call was answered to somebody whose credentials are good.
    pub(crate) fn was_known(&self, owner: &str) {
        self.0.connection.settle(owner);
    }

    /// It has turned out that the credentials are not good: what is left of the call counts among those of its address.
    pub(crate) fn belongs_to_nobody(&self) {
        let (place, _) = self.0.pools.unknown.enter(self.0.connection.peer().ip(), Arc::clone(&self.0.ends));
        *self.place() = HeldSlot::Unknown(place);
        self.0.known.store(false, Ordering::Release);
    }

    /// Returns when its caller has ended its direction of the connection, on HTTP/1: it only waits for the answer, or is gone.
    pub(crate) async fn was_left(&self) {
        self.0.connection.ending().has_come().await;
    }

    /// The body of the request is not complete.
    pub(super) fn body_waits(&self) {
        self.0.connection.ending().body_waits();
    }

    /// Where it comes from.
    pub fn peer(&self) -> SocketAddr {
        self.0.connection.peer()
    }

    /// The call was a health check, which needs no credentials.
    pub(crate) fn was_health_check(&self) {
        self.0.connection.is_alive();
    }

    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(super) fn in_flight(&self) -> &Arc<InFlight> {
        &self.0
    }

    /// A piece of the answer is handed over.
    pub(super) fn piece_begins(&self) {
        let mut unsent = self.0.unsent();
        unsent.pieces += 1;
        unsent.since.get_or_insert_with(Instant::now);
    }

    /// A piece was sent, or dropped.
    pub(super) fn piece_ends(&self) {
        let mut unsent = self.0.unsent();
        unsent.pieces = unsent.pieces.saturating_sub(1);
        unsent.since = (unsent.pieces > 0).then(Instant::now);
        if let Some(waiting) = unsent.waiting.take() {
            drop(unsent);
            waiting.wake();
        }
    }

    /// Ready when at most so many pieces are not sent yet.
    pub(super) fn poll_sent(&self, cx: &mut Context<'_>, pieces_max: usize) -> Poll<()> {
        let mut unsent = self.0.unsent();
        if unsent.pieces <= pieces_max {
            return Poll::Ready(());
        }
        unsent.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn place(&self) -> MutexGuard<'_, HeldSlot> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight {
    fn unsent(&self) -> MutexGuard<'_, Unsent> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when nothing of an answer that is there has been taken.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        self.unsent().since
    }

    /// Ends the call as if its caller had; false when that was done before.
    pub(super) fn end_once(&self) -> bool {
        self.ends.notify_one();
        !self.ended.swap(true, Ordering::AcqRel)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.call_ends(self.number);
    }
}
