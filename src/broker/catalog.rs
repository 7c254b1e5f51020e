//! Queues and groups by id, kept in memory until a wake-up tells of a deletion. A stale entry is safe: every hot statement
//! checks its row, and one that finds it gone has the entry forgotten. Nothing in an entry changes while its queue and groups
//! exist.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::Result;
use crate::domain::ids::{GroupId, ProjectId, QueueId};
use crate::domain::queue::{Group, Queue};
use crate::store::{self, Store};

/// For deletions that no wake-up told of. Long, for a waiting consumer must not cost a statement each time it asks again.
const KEPT: Duration = Duration::from_secs(6 * 3_600);
const ENTRIES_MAX: usize = 100_000;

/// A queue with its groups.
#[derive(Debug)]
pub struct CatalogEntry {
    /// The queue.
    pub queue: Queue,
    groups: Vec<Group>,
    loaded: Instant,
}

impl CatalogEntry {
    /// A group of the queue.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }
}

/// What is kept, and how often something in it was said to have changed.
#[derive(Debug)]
struct Entries<T> {
    kept: HashMap<QueueId, Arc<T>>,
    changes: u64,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { kept: HashMap::new(), changes: 0 }
    }
}

impl<T> Entries<T> {
    /// Keeps what was read, unless something has changed since the reading began: it may have been read before the change.
    fn insert(&mut self, id: QueueId, entry: Arc<T>, read_after: u64) {
        if self.changes != read_after {
            return;
        }
        if self.kept.len() >= ENTRIES_MAX {
            self.kept.clear();
        }
        self.kept.insert(id, entry);
    }

    fn changed(&mut self, id: QueueId) {
        self.kept.remove(&id);
        self.changes += 1;
    }

    fn all_changed(&mut self) {
        self.kept.clear();
        self.changes += 1;
    }
}

/// The cache of metadata.
#[derive(Debug)]
pub struct Catalog {
    store: Store,
    entries: Mutex<Entries<CatalogEntry>>,
}

impl Catalog {
    /// An empty catalog.
    pub fn new(store: Store) -> Self {
        Self { store, entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<CatalogEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue of a project; one of another project is not found.
    pub async fn queue(&self, project: &ProjectId, id: QueueId) -> Result<Arc<CatalogEntry>> {
        if let Some(entry) = self.lock().kept.get(&id)
            && entry.queue.project == *project
            && entry.loaded.elapsed() < KEPT
        {
            return Ok(Arc::clone(entry));
        }
        self.load(project, id).await
    }

    /// A queue that has this group; read again before the group is said not to be there.
    pub async fn group(
        &self,
        project: &ProjectId,
        queue: QueueId,
        group: GroupId,
    ) -> Result<(Arc<CatalogEntry>, Group)> {
        let mut entry = self.queue(project, queue).await?;
        if entry.group(group).is_none() {
            entry = self.load(project, queue).await?;
        }
        let found = entry.group(group).cloned().ok_or_else(|| store::groups::not_found(group))?;
        Ok((entry, found))
    }

    async fn load(&self, project: &ProjectId, id: QueueId) -> Result<Arc<CatalogEntry>> {
        let changes = self.lock().changes;
        // Not a change: who asks for what is not there must not keep others from being kept.
        let gone = |_: &_| drop(self.lock().kept.remove(&id));
        let queue = store::queues::find(&self.store.pool, project, id).await.inspect_err(gone)?;
        let groups = store::groups::list(&self.store.pool, id).await?;
        let entry = Arc::new(CatalogEntry { queue, groups, loaded: Instant::now() });
        self.lock().insert(id, Arc::clone(&entry), changes);
        Ok(entry)
    }

    /// Drops an entry that has changed.
    pub fn forget(&self, id: QueueId) {
        self.lock().changed(id);
    }

    /// Drops all entries: what has changed is not known.
    pub fn forget_all(&self) {
        self.lock().all_changed();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let id = QueueId(Uuid::nil());
        let mut entries = Entries::default();
        let reading = entries.changes;
        entries.changed(id);
        entries.insert(id, Arc::new("with the group that was deleted"), reading);
        assert_eq!(entries.kept.get(&id), None);
        let reading = entries.changes;
        entries.insert(id, Arc::new("without"), reading);
        assert_eq!(entries.kept.get(&id).map(|entry| **entry), Some("without"));
        entries.changed(id);
        assert_eq!(entries.kept.get(&id), None);
        let reading = entries.changes;
        entries.all_changed();
        entries.insert(id, Arc::new("of a deletion that was not heard of"), reading);
        assert_eq!(entries.kept.get(&id), None);
    }
}
