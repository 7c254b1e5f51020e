//! `TagService`: the resource tags of queues.

use dms_client::v1::{
    AddQueueTagRequest, AddQueueTagResponse, BatchQueueTagsRequest, BatchQueueTagsResponse, DeleteQueueTagRequest,
    DeleteQueueTagResponse, ListProjectTagsRequest, ListProjectTagsResponse, ListQueueTagsRequest,
    ListQueueTagsResponse, SearchQueuesRequest, SearchQueuesResponse,
};
use tonic::{Request, Response, Status};

use super::access::admit;
use super::answer::holding;
use super::convert::tags as convert;
use crate::broker::Broker;
use crate::domain::ids::QueueId;
use crate::domain::page::ListPage;
use crate::domain::tag;
use crate::proto::v1::tag_service_server::TagService;

/// The service.
pub(super) struct Tags(pub Broker);

#[tonic::async_trait]
impl TagService for Tags {
    async fn add_queue_tag(
        &self,
        request: Request<AddQueueTagRequest>,
    ) -> Result<Response<AddQueueTagResponse>, Status> {
        let project = admit(&request)?;
        let queue = QueueId::parse(&request.get_ref().queue_id)?;
        let tag = convert::tag(request.into_inner().tag)?;
        self.0.add_queue_tag(&project, queue, tag).await?;
        Ok(Response::new(AddQueueTagResponse {}))
    }

    async fn delete_queue_tag(
        &self,
        request: Request<DeleteQueueTagRequest>,
    ) -> Result<Response<DeleteQueueTagResponse>, Status> {
        let project = admit(&request)?;
        let request = request.into_inner();
        let queue = QueueId::parse(&request.queue_id)?;
        tag::check_key("key", &request.key)?;
        self.0.delete_queue_tag(&project, queue, &request.key).await?;
        Ok(Response::new(DeleteQueueTagResponse {}))
    }

    async fn batch_queue_tags(
        &self,
        request: Request<BatchQueueTagsRequest>,
    ) -> Result<Response<BatchQueueTagsResponse>, Status> {
        let project = admit(&request)?;
        let queue = QueueId::parse(&request.get_ref().queue_id)?;
        let batch = convert::batch(request.into_inner())?;
        self.0.batch_queue_tags(&project, queue, &batch).await?;
        Ok(Response::new(BatchQueueTagsResponse {}))
    }

    async fn list_queue_tags(
        &self,
        request: Request<ListQueueTagsRequest>,
    ) -> Result<Response<ListQueueTagsResponse>, Status> {
        let project = admit(&request)?;
        let queue = QueueId::parse(&request.get_ref().queue_id)?;
        let tags = self.0.list_queue_tags(&project, queue).await?;
        Ok(Response::new(ListQueueTagsResponse { tags: convert::tags(tags) }))
    }

    async fn list_project_tags(
        &self,
        request: Request<ListProjectTagsRequest>,
    ) -> Result<Response<ListProjectTagsResponse>, Status> {
        let project = admit(&request)?;
        let request = request.into_inner();
        let page = ListPage::parse(project.as_str(), request.page_size, &request.page_token)?;
        let memory = self.0.answer(&project);
        let (tags, next_page_token) = self.0.list_project_tags(&project, &page, &memory).await?;
        let tags = tags.into_iter().map(convert::tag_values).collect();
        Ok(holding(ListProjectTagsResponse { tags, next_page_token }, memory))
    }

    async fn search_queues(
        &self,
        request: Request<SearchQueuesRequest>,
    ) -> Result<Response<SearchQueuesResponse>, Status> {
        let project = admit(&request)?;
        let (filter, page) = convert::search(request.into_inner())?;
        let memory = self.0.answer(&project);
        let found = self.0.search_queues(&project, &filter, page, &memory).await?;
        Ok(holding(convert::found(found), memory))
    }
}
