//! Room in memory for what arrives: shared by all who need some, and given back with what was in it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::{Error, Result};

/// So many bytes. Clones share them.
#[derive(Debug, Clone)]
pub struct Room {
    left: Arc<Semaphore>,
    of: &'static str,
}

impl Room {
    /// `of` says in a refusal what too many are arriving of.
    pub fn new(bytes: usize, of: &'static str) -> Self {
        Self { left: Arc::new(Semaphore::new(bytes)), of }
    }

    /// A share of it, empty at first.
    pub fn share(&self) -> Share {
        Share { room: self.clone(), taken: None }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.left.available_permits()
    }
}

/// What one of them has taken, until it is dropped.
#[derive(Debug)]
pub struct Share {
    room: Room,
    taken: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Takes more.
    ///
    /// # Errors
    /// `Overloaded` when not so much is left.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.room.left).try_acquire_many_owned(bytes) else {
            return Err(Error::overloaded(format!("too many large {} are arriving: retry later", self.room.of)));
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}
