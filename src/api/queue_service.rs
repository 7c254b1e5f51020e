//! `QueueService`: queues, consumer groups, quotas.

use dms_client::v1::{
    CreateConsumerGroupsRequest, CreateConsumerGroupsResponse, CreateQueueRequest, CreateQueueResponse,
    DeleteConsumerGroupRequest, DeleteConsumerGroupResponse, DeleteQueueRequest, DeleteQueueResponse, GetQueueRequest,
    GetQueueResponse, GetQuotasRequest, GetQuotasResponse, ListConsumerGroupsRequest, ListConsumerGroupsResponse,
    ListQueuesRequest, ListQueuesResponse,
};
use tonic::{Request, Response, Status};

use super::access::admit;
use super::answer::holding;
use super::convert::queues as convert;
use crate::broker::Broker;
use crate::domain::ids::{GroupId, QueueId};
use crate::domain::page::ListPage;
use crate::proto::v1::queue_service_server::QueueService;

/// The service.
pub(super) struct Queues(pub Broker);

#[tonic::async_trait]
impl QueueService for Queues {
    async fn create_queue(
        &self,
        request: Request<CreateQueueRequest>,
    ) -> Result<Response<CreateQueueResponse>, Status> {
        let project = admit(&request)?;
        let new = convert::create(&request.into_inner())?;
        let queue = self.0.create_queue(&project, new).await?;
        Ok(Response::new(CreateQueueResponse { queue: Some(convert::queue(queue)) }))
    }

    async fn get_queue(&self, request: Request<GetQueueRequest>) -> Result<Response<GetQueueResponse>, Status> {
        let project = admit(&request)?;
        let queue = QueueId::parse(&request.get_ref().queue_id)?;
        let summary = self.0.get_queue(&project, queue).await?;
        Ok(Response::new(GetQueueResponse { queue: Some(convert::summary(summary)) }))
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Result<Response<ListQueuesResponse>, Status> {
        let project = admit(&request)?;
        let request = request.into_inner();
        let page = ListPage::parse(project.as_str(), request.page_size, &request.page_token)?;
        let memory = self.0.answer(&project);
        let (queues, next_page_token) = self.0.list_queues(&project, &page, &memory).await?;
        let queues = queues.into_iter().map(convert::summary).collect();
        Ok(holding(ListQueuesResponse { queues, next_page_token }, memory))
    }

    async fn delete_queue(
        &self,
        request: Request<DeleteQueueRequest>,
    ) -> Result<Response<DeleteQueueResponse>, Status> {
        let project = admit(&request)?;
        let queue = QueueId::parse(&request.get_ref().queue_id)?;
        self.0.delete_queue(&project, queue).await?;
        Ok(Response::new(DeleteQueueResponse {}))
    }

    async fn create_consumer_groups(
        &self,
        request: Request<CreateConsumerGroupsRequest>,
    ) -> Result<Response<CreateConsumerGroupsResponse>, Status> {
        let project = admit(&request)?;
        let queue = QueueId::parse(&request.get_ref().queue_id)?;
        let names = convert::group_names(&request.get_ref().names)?;
        let groups = self.0.create_groups(&project, queue, names).await?;
        let groups = groups.into_iter().map(|group| convert::group(group.into())).collect();
        Ok(Response::new(CreateConsumerGroupsResponse { groups }))
    }

    async fn list_consumer_groups(
        &self,
        request: Request<ListConsumerGroupsRequest>,
    ) -> Result<Response<ListConsumerGroupsResponse>, Status> {
        let project = admit(&request)?;
        let request = request.into_inner();
        let queue = QueueId::parse(&request.queue_id)?;
        let page = convert::group_page(&request)?;
        let memory = self.0.answer(&project);
        let listed = self.0.list_groups(&project, queue, &page, request.include_counters, &memory).await?;
        let (queue, groups, next_page_token) = listed;
        let groups = groups.into_iter().map(convert::group).collect();
        let queue = Some(convert::queue(queue));
        Ok(holding(ListConsumerGroupsResponse { queue, groups, next_page_token }, memory))
    }

    async fn delete_consumer_group(
        &self,
        request: Request<DeleteConsumerGroupRequest>,
    ) -> Result<Response<DeleteConsumerGroupResponse>, Status> {
        let project = admit(&request)?;
        let queue = QueueId::parse(&request.get_ref().queue_id)?;
        let group = GroupId::parse(&request.get_ref().group_id)?;
        self.0.delete_group(&project, queue, group).await?;
        Ok(Response::new(DeleteConsumerGroupResponse {}))
    }

    async fn get_quotas(&self, request: Request<GetQuotasRequest>) -> Result<Response<GetQuotasResponse>, Status> {
        let project = admit(&request)?;
        let quota = self.0.quota(&project).await?;
        Ok(Response::new(GetQuotasResponse { quotas: vec![convert::quota(quota)] }))
    }
}
