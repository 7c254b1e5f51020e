//! Queues and groups by id, kept in memory for a short while. A stale entry is safe: every hot statement checks its row.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::Result;
use crate::domain::ids::{GroupId, ProjectId, QueueId};
use crate::domain::queue::{Group, Queue};
use crate::store::{self, Store};

const KEPT: Duration = Duration::from_secs(30);
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

/// The cache of metadata.
#[derive(Debug)]
pub struct Catalog {
    store: Store,
    entries: Mutex<HashMap<QueueId, Arc<CatalogEntry>>>,
}

impl Catalog {
    /// An empty catalog.
    pub fn new(store: Store) -> Self {
        Self { store, entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueId, Arc<CatalogEntry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue of a project; one of another project is not found.
    pub async fn queue(&self, project: &ProjectId, id: QueueId) -> Result<Arc<CatalogEntry>> {
        if let Some(entry) = self.lock().get(&id)
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
        let queue = store::queues::find(&self.store.pool, project, id).await.inspect_err(|_| self.forget(id))?;
        let groups = store::groups::list(&self.store.pool, id).await?;
        let entry = Arc::new(CatalogEntry { queue, groups, loaded: Instant::now() });
        let mut entries = self.lock();
        if entries.len() >= ENTRIES_MAX {
            entries.clear();
        }
        entries.insert(id, Arc::clone(&entry));
        Ok(entry)
    }

    /// Drops an entry that has changed.
    pub fn forget(&self, id: QueueId) {
        self.lock().remove(&id);
    }
}
