//! Queues, groups, counters and quotas.

use uuid::Uuid;

use crate::broker::Broker;
use crate::domain::Result;
use crate::domain::counters::{GroupCounters, QueueQuota};
use crate::domain::ids::{GroupId, ProjectId, QueueId, StreamId, SubscriptionKey};
use crate::domain::limits::RETENTION_DEFAULT;
use crate::domain::page::{GroupPage, ListPage, QueueKey};
use crate::domain::queue::{Group, GroupSummary, NewQueue, Queue, QueueSummary};
use crate::memory::Answer;
use crate::store::metadata::{counters, deletion, groups, queues};

/// What a group in a list takes, on its way from a row to an answer.
const GROUP_BYTES: usize = 512;

impl Broker {
    /// Creates a queue. Errors: `QueueExists`, `QueueQuota`.
    pub async fn create_queue(&self, project: &ProjectId, new: NewQueue) -> Result<Queue> {
        let _share = self.core.pool_shares.enter(project).await?;
        let (pool, quota) = (&self.core.store.pool, self.core.settings.queues_per_project);
        queues::create(pool, project, QueueId(Uuid::new_v4()), &new, quota, self.core.clock.now()).await
    }

    /// Shows a queue. Errors: `QueueNotFound`.
    pub async fn get_queue(&self, project: &ProjectId, queue: QueueId) -> Result<QueueSummary> {
        let _share = self.core.pool_shares.enter(project).await?;
        let now = self.core.clock.expiry_now();
        queues::summary(&self.core.store.pool, project, queue, now).await
    }

    /// A page of the queues of a project by creation time, and the token of the next one. Errors: `Overloaded`.
    pub async fn list_queues(
        &self,
        project: &ProjectId,
        page: &ListPage<QueueKey>,
        memory: &Answer,
    ) -> Result<(Vec<QueueSummary>, String)> {
        let _share = self.core.pool_shares.enter(project).await?;
        let (pool, now) = (&self.core.store.pool, self.core.clock.expiry_now());
        let mut queues = queues::summaries(pool, project, page, now, memory).await?;
        let key = |found: &QueueSummary| QueueKey { created_at: found.queue.created_at, stream: found.queue.stream };
        let next = page.cut(&mut queues, key);
        Ok((queues, next))
    }

    /// Deletes a queue with everything in it; consumers that wait for it are told. Errors: `QueueNotFound`.
    pub async fn delete_queue(&self, project: &ProjectId, queue: QueueId) -> Result<()> {
        let _share = self.core.pool_shares.enter(project).await?;
        let streams = queues::delete(&self.core.store.pool, project, queue).await?;
        self.core.deleted(queue, streams.iter().copied());
        deletion::purge_streams(&self.core.store.pool, &streams).await;
        Ok(())
    }

    /// Creates groups, all or none; names were checked. Errors: `QueueNotFound`, `GroupExists`, `TooManyGroups`.
    pub async fn create_groups(&self, project: &ProjectId, queue: QueueId, names: Vec<String>) -> Result<Vec<Group>> {
        let _share = self.core.pool_shares.enter(project).await?;
        let pool = &self.core.store.pool;
        let queue = queues::find(pool, project, queue).await?;
        let groups: Vec<(GroupId, String)> = names.into_iter().map(|name| (GroupId(Uuid::new_v4()), name)).collect();
        let max = self.core.settings.groups_per_queue;
        let created = groups::create(pool, &queue, &groups, max, self.core.clock.now()).await?;
        self.core.catalog.forget(queue.id);
        Ok(created)
    }

    /// A page of the groups of a queue by creation, with their counters when asked for, and the token of the next one. Errors:
    /// `QueueNotFound`, `Overloaded`.
    pub(crate) async fn list_groups(
        &self,
        project: &ProjectId,
        queue: QueueId,
        page: &GroupPage,
        with_counters: bool,
        memory: &Answer,
    ) -> Result<(Queue, Vec<GroupSummary>, String)> {
        let _share = self.core.pool_shares.enter(project).await?;
        let pool = &self.core.store.pool;
        let queue = queues::find(pool, project, queue).await?;
        let mut groups = groups::summaries(pool, &queue).await?;
        let next = page.cut(&mut groups);
        for summary in &mut groups {
            memory.grow(GROUP_BYTES)?;
            if with_counters {
                summary.counters = Some(self.counters(&queue, &summary.group).await?);
            }
        }
        Ok((queue, groups, next))
    }

    async fn counters(&self, queue: &Queue, group: &Group) -> Result<GroupCounters> {
        let now = self.core.clock.expiry_now();
        let key = |stream| SubscriptionKey { stream, subscription: group.subscription };
        let normal = (key(queue.stream), now.minus(queue.retention()));
        let dead_letters = group.dead_letters.map(|stream| (key(stream), now.minus(RETENTION_DEFAULT)));
        counters::group(&self.core.store.pool, normal, dead_letters).await
    }

    /// Deletes a group with its dead letters; consumers that wait for it are told. Errors: `GroupNotFound`, `QueueNotFound`.
    pub async fn delete_group(&self, project: &ProjectId, queue: QueueId, group: GroupId) -> Result<()> {
        let _share = self.core.pool_shares.enter(project).await?;
        let pool = &self.core.store.pool;
        let queue = queues::find(pool, project, queue).await?;
        let deleted = groups::delete(pool, project, &queue, group).await?;
        let streams: Vec<StreamId> = deleted.dead_letters.into_iter().chain([queue.stream]).collect();
        self.core.deleted(queue.id, streams.iter().copied());
        deletion::purge_subscription(pool, &streams, deleted.subscription).await;
        Ok(())
    }

    /// The queue quota of a project.
    pub async fn quota(&self, project: &ProjectId) -> Result<QueueQuota> {
        let _share = self.core.pool_shares.enter(project).await?;
        queues::quota(&self.core.store.pool, project, self.core.settings.queues_per_project).await
    }
}
