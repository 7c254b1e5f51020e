//! Resource tags of queues.

use crate::broker::Broker;
use crate::domain::Result;
use crate::domain::ids::{ProjectId, QueueId};
use crate::domain::page::ListPage;
use crate::domain::search::{self, Filter, Found, Page};
use crate::domain::tag::{Tag, TagBatch, TagSelector, TagValues};
use crate::memory::Answer;
use crate::store::metadata::tags;

impl Broker {
    /// Adds a tag or overwrites the value of its key.
    pub async fn add_queue_tag(&self, project: &ProjectId, queue: QueueId, tag: Tag) -> Result<()> {
        let _share = self.core.pool_shares.enter(project).await?;
        tags::put(&self.core.store.pool, project, queue, &[tag]).await
    }

    /// Deletes the tag with this key, which must be there.
    pub(crate) async fn delete_queue_tag(&self, project: &ProjectId, queue: QueueId, key: &str) -> Result<()> {
        let _share = self.core.pool_shares.enter(project).await?;
        let selector = TagSelector { key: key.to_owned(), value: None };
        match tags::delete(&self.core.store.pool, project, queue, &[selector]).await? {
            0 => Err(tags::not_found(key)),
            _ => Ok(()),
        }
    }

    /// Adds or deletes several tags, all or none.
    pub async fn batch_queue_tags(&self, project: &ProjectId, queue: QueueId, batch: &TagBatch) -> Result<()> {
        let _share = self.core.pool_shares.enter(project).await?;
        match batch {
            TagBatch::Create(new) => tags::put(&self.core.store.pool, project, queue, new).await,
            TagBatch::Delete(selectors) => {
                tags::delete(&self.core.store.pool, project, queue, selectors).await.map(drop)
            }
        }
    }

    /// The tags of a queue by key.
    pub(crate) async fn list_queue_tags(&self, project: &ProjectId, queue: QueueId) -> Result<Vec<Tag>> {
        let _share = self.core.pool_shares.enter(project).await?;
        tags::of_queue(&self.core.store.pool, project, queue).await
    }

    /// A page of the tags in use in a project, by key, and the token of the next one. Errors: `Overloaded`.
    pub async fn list_project_tags(
        &self,
        project: &ProjectId,
        page: &ListPage<String>,
        memory: &Answer,
    ) -> Result<(Vec<TagValues>, String)> {
        let _share = self.core.pool_shares.enter(project).await?;
        // No key is empty: all stand behind it.
        let after = page.after.as_deref().unwrap_or_default();
        let mut tags = tags::of_project(&self.core.store.pool, project, after, memory).await?;
        let next = page.cut(&mut tags, |tag| tag.key.clone());
        Ok((tags, next))
    }

    /// The queues of a project that a filter selects, by creation time. Errors: `Overloaded`.
    pub async fn search_queues(
        &self,
        project: &ProjectId,
        filter: &Filter,
        page: Page,
        memory: &Answer,
    ) -> Result<Found> {
        let _share = self.core.pool_shares.enter(project).await?;
        Ok(search::search(tags::queues(&self.core.store.pool, project, memory).await?, filter, page))
    }
}
