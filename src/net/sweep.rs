//! The connections of a listener, looked after every now and then: time limits that need no timer of their own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;

const INTERVAL: Duration = Duration::from_secs(2);

/// All connections of a listener.
#[derive(Debug, Default)]
pub(super) struct Present {
    next: AtomicU64,
    connections: Mutex<HashMap<u64, Weak<Connection>>>,
}

impl Present {
    /// Looks after this one until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, connection: &Arc<Connection>) -> Entry {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Arc::downgrade(connection));
        Entry { present: Arc::clone(self), number }
    }

    /// For ever.
    pub(super) async fn look_after(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let connections: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
            let now = Instant::now();
            connections.iter().for_each(|connection| connection.look_after(now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is looked after.
#[derive(Debug)]
pub(super) struct Entry {
    present: Arc<Present>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.present.lock().remove(&self.number);
    }
}
