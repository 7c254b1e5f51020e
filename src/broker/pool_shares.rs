//! The pool of connections, shared among projects: metadata calls and look-ups of one project take at most three quarters of it at
//! a time, however many arrive and however long Postgres takes over each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::ids::ProjectId;
use crate::domain::{Error, Result};

/// How long a call waits for others of its project.
const PATIENCE: Duration = Duration::from_secs(10);

/// What each project has in use.
#[derive(Debug)]
pub struct PoolShares {
    each: usize,
    projects: Mutex<HashMap<ProjectId, Arc<Semaphore>>>,
}

/// One connection's worth of a project's share, given back when dropped.
#[derive(Debug)]
pub struct PoolShare<'a> {
    permit: Option<OwnedSemaphorePermit>,
    shares: &'a PoolShares,
    project: &'a ProjectId,
}

impl PoolShares {
    /// Shares of a pool of this size.
    pub fn new(pool_connections: u32) -> Self {
        let each = usize::try_from(pool_connections - pool_connections.div_ceil(4)).unwrap_or(1).max(1);
        Self { each, projects: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProjectId, Arc<Semaphore>>> {
        self.projects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer calls of the project than its share are at Postgres.
    ///
    /// # Errors
    /// `Unavailable` after ten seconds.
    pub async fn enter<'a>(&'a self, project: &'a ProjectId) -> Result<PoolShare<'a>> {
        let semaphore = {
            let mut projects = self.lock();
            let share = projects.entry(project.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each)));
            Arc::clone(share)
        };
        // Before it waits: a call that is given up meanwhile leaves nothing behind.
        let mut share = PoolShare { permit: None, shares: self, project };
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
        if projects.get(self.project).is_some_and(|share| Arc::strong_count(share) == 1) {
            projects.remove(self.project);
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
        let others = (shares.enter(&busy).await.expect("free"), shares.enter(&busy).await.expect("free"));
        let refused = shares.enter(&busy).await.expect_err("used up");
        assert_eq!((refused.kind(), refused.retry_hint().is_some()), (ErrorKind::Unavailable, true));
        drop(shares.enter(&quiet).await.expect("free"));
        drop(first);
        drop(shares.enter(&busy).await.expect("free again"));
        drop(others);
        assert!(shares.lock().is_empty());
    }

    #[tokio::test]
    async fn the_smallest_pool_still_has_a_share() {
        let shares = PoolShares::new(1);
        shares.enter(&project("p")).await.expect("free");
    }
}
