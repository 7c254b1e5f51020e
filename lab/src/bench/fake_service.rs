//! A service in memory that can be told to misbehave, so that tests see the benchmark notice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dms_client::v1::message_service_server::{MessageService, MessageServiceServer};
use dms_client::v1::queue_service_server::{QueueService, QueueServiceServer};
use dms_client::v1::*;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What the service does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misdeed {
    None,
    /// Every hundredth message never arrives.
    Loses,
    /// The first batch of a group comes twice.
    Doubles,
    /// One body comes back changed.
    Damages,
    /// It counts one message too many.
    Miscounts,
    /// Every tenth send is refused for overload, which is no fault.
    Refuses,
    /// Sends of the first [`STALL`] are answered at its end.
    Stalls,
    /// Acks fail with an error that should not be.
    Breaks,
}

/// How long a service that stalls answers nothing.
pub(super) const STALL: Duration = Duration::from_millis(500);

#[derive(Default)]
struct State {
    bodies: Vec<Bytes>,
    cursors: HashMap<String, usize>,
    doubled: bool,
    sends: usize,
    stalled_until: Option<Instant>,
}

#[derive(Clone)]
pub(super) struct FakeService {
    misdeed: Misdeed,
    state: Arc<Mutex<State>>,
}

impl FakeService {
    /// Serves on a free port; the address. The task ends with the runtime of the test.
    pub(super) async fn start(misdeed: Misdeed) -> String {
        let service = Self { misdeed, state: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router: Router = tonic::transport::Server::builder()
            .add_service(QueueServiceServer::new(service.clone()))
            .add_service(MessageServiceServer::new(service));
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
        format!("http://{address}")
    }

    fn take(&self, group: &str, max: usize) -> Vec<LeasedMessage> {
        let mut state = self.state.lock().unwrap();
        let begin = *state.cursors.entry(group.to_owned()).or_default();
        let end = state.bodies.len().min(begin + max);
        let repeat = self.misdeed == Misdeed::Doubles && end > begin && !std::mem::replace(&mut state.doubled, true);
        state.cursors.insert(group.to_owned(), if repeat { begin } else { end });
        (begin..end)
            .filter(|offset| self.misdeed != Misdeed::Loses || offset % 100 != 50)
            .map(|offset| leased(offset, self.damage(offset, &state.bodies[offset])))
            .collect()
    }

    async fn stall(&self) {
        if self.misdeed == Misdeed::Stalls {
            let until = *self.state.lock().unwrap().stalled_until.get_or_insert_with(|| Instant::now() + STALL);
            sleep_until(until).await;
        }
    }

    fn damage(&self, offset: usize, body: &Bytes) -> Bytes {
        let mut body = body.to_vec();
        if self.misdeed == Misdeed::Damages && offset == 7 {
            body[100] ^= 1;
        }
        body.into()
    }
}

fn leased(offset: usize, body: Bytes) -> LeasedMessage {
    let message = Message { body, offset: offset as i64, ..Message::default() };
    LeasedMessage { message: Some(message), handler: offset.to_string(), ..LeasedMessage::default() }
}

#[tonic::async_trait]
impl MessageService for FakeService {
    async fn send_messages(&self, request: Request<SendMessagesRequest>) -> Answer<SendMessagesResponse> {
        self.stall().await;
        let mut state = self.state.lock().unwrap();
        state.sends += 1;
        if self.misdeed == Misdeed::Refuses && state.sends.is_multiple_of(10) {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(2)));
            return Err(Status::with_error_details(tonic::Code::ResourceExhausted, "full", details));
        }
        state.bodies.extend(request.into_inner().messages.into_iter().map(|message| message.body));
        Ok(Response::new(Default::default()))
    }

    async fn consume_messages(&self, request: Request<ConsumeMessagesRequest>) -> Answer<ConsumeMessagesResponse> {
        let request = request.into_inner();
        let max = request.options.unwrap_or_default().max_messages() as usize;
        for _ in 0..100 {
            let messages = self.take(&request.group_id, max);
            if !messages.is_empty() {
                return Ok(Response::new(ConsumeMessagesResponse { messages }));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Response::new(Default::default()))
    }

    async fn ack_messages(&self, request: Request<AckMessagesRequest>) -> Answer<AckMessagesResponse> {
        if self.misdeed == Misdeed::Breaks {
            return Err(Status::internal("broken"));
        }
        let count = request.into_inner().entries.len();
        let outcomes = vec![AckOutcome::Acked as i32; count];
        let result = AckResult { success_count: count as i32, fail_count: 0, outcomes, ..AckResult::default() };
        Ok(Response::new(AckMessagesResponse { result: Some(result) }))
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl QueueService for FakeService {
    async fn create_queue(&self, _: Request<CreateQueueRequest>) -> Answer<CreateQueueResponse> {
        *self.state.lock().unwrap() = State::default();
        Ok(Response::new(CreateQueueResponse { queue: Some(Queue::default()) }))
    }

    async fn get_queue(&self, _: Request<GetQueueRequest>) -> Answer<GetQueueResponse> {
        let extra = i64::from(self.misdeed == Misdeed::Miscounts);
        let produced_messages = self.state.lock().unwrap().bodies.len() as i64 + extra;
        Ok(Response::new(GetQueueResponse { queue: Some(Queue { produced_messages, ..Queue::default() }) }))
    }

    async fn delete_queue(&self, _: Request<DeleteQueueRequest>) -> Answer<DeleteQueueResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn create_consumer_groups(
        &self,
        request: Request<CreateConsumerGroupsRequest>,
    ) -> Answer<CreateConsumerGroupsResponse> {
        let groups = request.into_inner().names.into_iter();
        let groups = groups.map(|name| ConsumerGroup { id: name, ..ConsumerGroup::default() }).collect();
        Ok(Response::new(CreateConsumerGroupsResponse { groups }))
    }

    async fn list_queues(&self, _: Request<ListQueuesRequest>) -> Answer<ListQueuesResponse> {
        Err(Status::unimplemented("unused"))
    }

    async fn list_consumer_groups(&self, _: Request<ListConsumerGroupsRequest>) -> Answer<ListConsumerGroupsResponse> {
        Err(Status::unimplemented("unused"))
    }

    async fn delete_consumer_group(
        &self,
        _: Request<DeleteConsumerGroupRequest>,
    ) -> Answer<DeleteConsumerGroupResponse> {
        Err(Status::unimplemented("unused"))
    }

    async fn get_quotas(&self, _: Request<GetQuotasRequest>) -> Answer<GetQuotasResponse> {
        Err(Status::unimplemented("unused"))
    }
}
