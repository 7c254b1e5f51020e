//! The pool of connections, shared among projects: what is done for one project takes at most three quarters of it at a time, however
//! much arrives and however long Postgres takes over each. Look-ups have a part of that to themselves: a send or a consumer whose
//! queue is not known here does not wait behind calls that list or create something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::ids::ProjectId;
use crate::domain::{Error, Result};

/// How long a call waits for others of its project.
const PATIENCE: Duration = Duration::from_secs(10);
/// One of so many connections of a project is for look-ups.
const LOOK_UPS: usize = 3;

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    /// A call about queues, groups or tags.
    Call,
    /// A send, a consumer or an acknowledgement asks for its queue.
    LookUp,
}

type Key = (ProjectId, Purpose);

/// What each project has in use.
#[derive(Debug)]
pub(crate) struct PoolShares {
    calls: usize,
    look_ups: usize,
    projects: Mutex<HashMap<Key, Arc<Semaphore>>>,
}

/// One connection's worth of a project's share, given back when dropped.
#[derive(Debug)]
pub(crate) struct PoolShare<'a> {
    permit: Option<OwnedSemaphorePermit>,
    shares: &'a PoolShares,
    key: Key,
}

impl PoolShares {
    /// Shares of a pool of this size.
    pub(crate) fn new(pool_connections: u32) -> Self {
        let all = usize::try_from(pool_connections - pool_connections.div_ceil(4)).unwrap_or(1);
        let look_ups = (all / LOOK_UPS).max(1);
        Self { calls: all.saturating_sub(look_ups).max(1), look_ups, projects: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Semaphore>>> {
        self.projects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer calls of the project than its share are at Postgres.
    ///
    /// # Errors
    /// `Unavailable` after ten seconds.
    pub(crate) async fn enter(&self, project: &ProjectId) -> Result<PoolShare<'_>> {
        self.take(project, Purpose::Call).await
    }

    /// The same for a look-up.
    ///
    /// # Errors
    /// `Unavailable` after ten seconds.
    pub(crate) async fn look_up(&self, project: &ProjectId) -> Result<PoolShare<'_>> {
        self.take(project, Purpose::LookUp).await
    }

    async fn take(&self, project: &ProjectId, purpose: Purpose) -> Result<PoolShare<'_>> {
        let (key, size) = match purpose {
            Purpose::Call => ((project.clone(), purpose), self.calls),
            Purpose::LookUp => ((project.clone(), purpose), self.look_ups),
        };
        let semaphore = Arc::clone(self.lock().entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(size))));
        // Before it waits: a call that is given up meanwhile leaves nothing behind.
        let mut share = PoolShare { permit: None, shares: self, key };
        match tokio::time::timeout(PATIENCE, semaphore.acquire_owned()).await {
            Ok(permit) => share.permit = permit.ok(),
            Err(_) => return Err(Error::unavailable("the database is busy with other calls of this project")),
        }
        Ok(share)
    }
}

impl Drop for PoolShare<'_> {
    fn drop(&mut self) {
        self.permit = None;
        let mut projects = self.shares.lock();
        // Whoever holds or waits for a part of it refers to it too.
        if projects.get(&self.key).is_some_and(|share| Arc::strong_count(share) == 1) {
            projects.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorKind;

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).expect("a project")
    }

    #[tokio::test(start_paused = true)]
    async fn a_project_leaves_a_quarter_of_the_pool_and_nothing_behind() {
        let shares = PoolShares::new(4);
        let (busy, quiet) = (project("busy"), project("quiet"));
        let first = shares.enter(&busy).await.expect("free");
        let others = (shares.enter(&busy).await.expect("free"), shares.look_up(&busy).await.expect("free"));
        let refused = shares.enter(&busy).await.expect_err("used up");
        assert_eq!((refused.kind(), refused.retry_hint().is_some()), (ErrorKind::Unavailable, true));
        assert_eq!(shares.look_up(&busy).await.expect_err("used up").kind(), ErrorKind::Unavailable);
        drop((shares.enter(&quiet).await.expect("free"), shares.look_up(&quiet).await.expect("free")));
        drop(first);
        drop(shares.enter(&busy).await.expect("free again"));
        drop(others);
        assert!(shares.lock().is_empty());
    }

    #[test]
    fn look_ups_have_a_third_of_what_a_project_has() {
        let parts = |connections| {
            let shares = PoolShares::new(connections);
            (shares.calls, shares.look_ups)
        };
        assert_eq!([1, 2, 4, 8, 32].map(parts), [(1, 1), (1, 1), (2, 1), (4, 2), (16, 8)]);
    }

    #[tokio::test]
    async fn the_smallest_pool_still_has_a_share() {
        let shares = PoolShares::new(1);
        shares.enter(&project("p")).await.expect("free");
    }
}
