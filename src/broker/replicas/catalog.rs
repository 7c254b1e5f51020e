//! Queues and groups by id, kept in memory until a wake-up tells of a deletion. A stale entry is safe: every hot statement
//! checks its row, and one that finds it gone has the entry forgotten. Nothing in an entry changes while its queue and groups
//! exist.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::single_flight::SingleFlight;
use foldhash::HashMap;

use crate::broker::batching::pool_shares::PoolShares;
use crate::domain::ids::{GroupId, ProjectId, QueueId, StreamId};
use crate::domain::queue::{Group, Queue};
use crate::domain::{ErrorKind, Result};
use crate::store::Store;
use crate::store::metadata::{groups, queues};

/// For deletions that no wake-up told of. Long, for a waiting consumer must not cost a statement each time it asks again.
const KEPT: Duration = Duration::from_secs(6 * 3_600);
/// Beyond it any one makes room.
const ENTRIES_MAX: usize = 100_000;

/// A queue with its groups.
#[derive(Debug)]
pub(crate) struct CatalogEntry {
    /// The queue.
    pub queue: Queue,
    groups: Vec<Group>,
    loaded: Instant,
}

impl CatalogEntry {
    /// A group of the queue.
    pub(crate) fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }

    /// The queue's stream, and those of its dead letters.
    fn streams(&self) -> impl Iterator<Item = StreamId> {
        [self.queue.stream].into_iter().chain(self.groups.iter().filter_map(|group| group.dead_letters))
    }
}

/// A queue that is being read.
#[derive(Debug, Default)]
struct Loading {
    /// How many calls read it.
    calls: usize,
    /// How often it was said to have changed since the first of them began.
    changes: u64,
}

/// What is kept, and what is being read: it may have been read before a change, and is not kept then. Changes are counted for
/// each queue that is being read, so that whoever changes queues all the time keeps nobody else's from being kept.
#[derive(Debug)]
struct Entries<T> {
    kept: HashMap<QueueId, Arc<T>>,
    loading: HashMap<QueueId, Loading>,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { kept: HashMap::default(), loading: HashMap::default() }
    }
}

impl<T> Entries<T> {
    /// A reading begins: the changes so far.
    fn begin(&mut self, id: QueueId) -> u64 {
        let loading = self.loading.entry(id).or_default();
        loading.calls += 1;
        loading.changes
    }

    /// A reading has ended.
    fn end(&mut self, id: QueueId) {
        if let Some(loading) = self.loading.get_mut(&id) {
            loading.calls -= 1;
            if loading.calls == 0 {
                self.loading.remove(&id);
            }
        }
    }

    /// Keeps what a reading has found, unless the queue has changed since it began.
    fn insert(&mut self, id: QueueId, entry: Arc<T>, read_after: u64) {
        if self.loading.get(&id).is_none_or(|loading| loading.changes != read_after) {
            return;
        }
        if self.kept.len() >= ENTRIES_MAX
            && let Some(any) = self.kept.keys().next().copied()
        {
            self.kept.remove(&any);
        }
        self.kept.insert(id, entry);
    }

    /// Drops what is kept, if it is the asker's.
    fn gone(&mut self, id: QueueId, own: impl Fn(&T) -> bool) {
        if self.kept.get(&id).is_some_and(|entry| own(entry)) {
            self.kept.remove(&id);
        }
    }

    fn changed(&mut self, id: QueueId) -> Option<Arc<T>> {
        self.loading.get_mut(&id).into_iter().for_each(|loading| loading.changes += 1);
        self.kept.remove(&id)
    }

    fn all_changed(&mut self) {
        self.kept.clear();
        self.loading.values_mut().for_each(|loading| loading.changes += 1);
    }
}

/// The cache of metadata.
#[derive(Debug)]
pub(crate) struct Catalog {
    store: Store,
    shares: Arc<PoolShares>,
    entries: Mutex<Entries<CatalogEntry>>,
    /// By project too: what one finds is no answer for another.
    readings: SingleFlight<(ProjectId, QueueId), Arc<CatalogEntry>>,
}

impl Catalog {
    /// An empty catalog; what it reads counts against the project's share of the pool.
    pub(crate) fn new(store: Store, shares: Arc<PoolShares>) -> Self {
        Self { store, shares, entries: Mutex::default(), readings: SingleFlight::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<CatalogEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue of a project; one of another project is not found. Ids are given once, so a stranger who names an id that is
    /// kept for its owner is answered without a look at Postgres.
    pub(crate) async fn queue(&self, project: &ProjectId, id: QueueId) -> Result<Arc<CatalogEntry>> {
        if let Some(entry) = self.kept(id) {
            return if entry.queue.project == *project { Ok(entry) } else { Err(queues::not_found(id)) };
        }
        self.read(project, id, |_| true).await
    }

    fn kept(&self, id: QueueId) -> Option<Arc<CatalogEntry>> {
        self.lock().kept.get(&id).filter(|entry| entry.loaded.elapsed() < KEPT).cloned()
    }

    /// A queue that has this group; read again before the group is said not to be there.
    pub(crate) async fn group(
        &self,
        project: &ProjectId,
        queue: QueueId,
        group: GroupId,
    ) -> Result<(Arc<CatalogEntry>, Group)> {
        let mut entry = self.queue(project, queue).await?;
        if entry.group(group).is_none() {
            entry = self.read(project, queue, |entry| entry.group(group).is_some()).await?;
        }
        let found = entry.group(group).cloned().ok_or_else(|| groups::not_found(group))?;
        Ok((entry, found))
    }

    /// Reads a queue, once for all calls that ask for it now; nothing is read when another one's reading has brought what is `enough`.
    async fn read(
        &self,
        project: &ProjectId,
        id: QueueId,
        enough: impl Fn(&CatalogEntry) -> bool,
    ) -> Result<Arc<CatalogEntry>> {
        let known = || self.kept(id).filter(|entry| entry.queue.project == *project && enough(entry));
        self.readings.find((project.clone(), id), known, async || self.load(project, id).await).await
    }

    async fn load(&self, project: &ProjectId, id: QueueId) -> Result<Arc<CatalogEntry>> {
        let _share = self.shares.look_up(project).await?;
        let reading = Reading::begin(self, id);
        let queue = queues::find(&self.store.pool, project, id).await.inspect_err(|error| {
            // Not a change, and only the owner's word: a stranger finds nothing, whatever is there.
            if error.kind() == ErrorKind::QueueNotFound {
                self.lock().gone(id, |entry| entry.queue.project == *project);
            }
        })?;
        let groups = groups::list(&self.store.pool, id).await?;
        let entry = Arc::new(CatalogEntry { queue, groups, loaded: Instant::now() });
        self.lock().insert(id, Arc::clone(&entry), reading.read_after);
        Ok(entry)
    }

    /// Drops an entry that has changed; the streams that it named.
    pub(crate) fn forget(&self, id: QueueId) -> Vec<StreamId> {
        let dropped = self.lock().changed(id);
        dropped.map(|entry| entry.streams().collect()).unwrap_or_default()
    }

    /// Drops all entries: what has changed is not known.
    pub(crate) fn forget_all(&self) {
        self.lock().all_changed();
    }
}

/// A reading under way; it ends when this is dropped, also with a call that is given up.
struct Reading<'a> {
    catalog: &'a Catalog,
    id: QueueId,
    read_after: u64,
}

impl<'a> Reading<'a> {
    fn begin(catalog: &'a Catalog, id: QueueId) -> Self {
        Self { catalog, id, read_after: catalog.lock().begin(id) }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.catalog.lock().end(self.id);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ID: QueueId = QueueId(Uuid::nil());
    const OTHER: QueueId = QueueId(Uuid::max());

    /// Reads a queue while something happens; what is kept of it afterwards.
    fn kept_after(happens: impl Fn(&mut Entries<&'static str>)) -> Option<&'static str> {
        let mut entries = Entries::default();
        let read_after = entries.begin(ID);
        happens(&mut entries);
        entries.insert(ID, Arc::new("read"), read_after);
        entries.end(ID);
        assert!(entries.loading.is_empty());
        entries.kept.get(&ID).map(|entry| **entry)
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        assert_eq!(kept_after(|_| {}), Some("read"));
        assert_eq!(kept_after(|entries| drop(entries.changed(ID))), None);
        assert_eq!(kept_after(Entries::all_changed), None);
        let overtaken = kept_after(|entries| {
            let read_after = entries.begin(ID);
            entries.changed(ID);
            entries.insert(ID, Arc::new("before"), read_after);
            entries.end(ID);
        });
        assert_eq!(overtaken, None);
    }

    #[test]
    fn what_changes_elsewhere_keeps_nothing_from_being_kept() {
        let changes = |entries: &mut Entries<_>| (0..100).for_each(|_| drop(entries.changed(OTHER)));
        assert_eq!(kept_after(changes), Some("read"));
    }

    #[test]
    fn only_the_owner_finds_that_an_entry_is_gone() {
        let mut entries = Entries::default();
        entries.kept.insert(ID, Arc::new("owner"));
        entries.gone(ID, |owner| *owner == "stranger");
        assert!(entries.kept.contains_key(&ID));
        entries.gone(ID, |owner| *owner == "owner");
        assert!(entries.kept.is_empty());
    }
}
