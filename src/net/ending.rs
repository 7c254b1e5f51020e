//! Callers of HTTP/1 that have said all they have to say. A client may end its direction of the connection behind its last request and wait
//! for the answer; one that has gone away looks the same. So the end is kept from the HTTP library, which would drop the call, until the
//! call has ended. Whoever would wait long for an answer asks [`Ending::has_come`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// The end of what a caller sends.
#[derive(Debug, Default)]
pub(super) struct Ending {
    seen: AtomicBool,
    /// A body waits for more, which will not come.
    cut_off: AtomicBool,
    told: Notify,
    reader: Mutex<Option<Waker>>,
}

impl Ending {
    /// Nothing more will be read. Ready when the HTTP library may know.
    pub(super) fn poll_shown(&self, cx: &mut Context<'_>, busy: bool) -> Poll<()> {
        if !busy || self.cut_off.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if !self.seen.swap(true, Ordering::AcqRel) {
            self.told.notify_waiters();
            // A body that waits in the same task looks again.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// A body is not complete. If the end was seen, it never will be.
    pub(super) fn body_waits(&self) {
        if self.seen.load(Ordering::Acquire) && !self.cut_off.swap(true, Ordering::AcqRel) {
            self.read_again();
        }
    }

    /// Something has changed for who reads.
    pub(super) fn read_again(&self) {
        if self.seen.load(Ordering::Acquire) {
            let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            reader.into_iter().for_each(Waker::wake);
        }
    }

    /// Returns when the end has come: the caller waits for its answer, or is gone.
    pub(super) async fn has_come(&self) {
        let told = self.told.notified();
        if !self.seen.load(Ordering::Acquire) {
            told.await;
        }
    }
}
