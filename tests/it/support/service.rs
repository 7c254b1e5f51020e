//! A service of its own for each test: real Postgres, real sockets, a clock that the test turns.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dms::api::TrafficLimits;
use dms::app::server::{Server, ServerOptions};
use dms::auth::AuthOptions;
use dms::broker::clock::ManualClock;
use dms::broker::{BrokerOptions, Settings};
use dms::domain::clock::{Clock, Timestamp};
use dms::net::NetLimits;
use dms::store::Database;
use dms_client::v1 as pb;
use dms_client::v1::dead_letter_service_client::DeadLetterServiceClient;
use dms_client::v1::message_service_client::MessageServiceClient;
use dms_client::v1::queue_service_client::QueueServiceClient;
use dms_client::v1::tag_service_client::TagServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::postgres::TestDatabase;

/// The project of the tests.
pub(crate) const PROJECT: &str = "fdc60cfe407a4b2a96a498efda55c785";
/// Long enough for an answer that is there; an empty one takes this long.
const GLANCE: Duration = Duration::from_millis(150);

/// Who may call a replica, and how much.
pub(crate) struct Door {
    pub auth: AuthOptions,
    pub limits: TrafficLimits,
    /// How old connections get.
    pub connection_age: Option<Duration>,
    /// How many connections and calls.
    pub net: NetLimits,
}

impl Door {
    /// Anyone, as much as they like.
    pub(crate) fn open() -> Self {
        Self {
            auth: AuthOptions::Open,
            limits: TrafficLimits::default(),
            connection_age: None,
            net: NetLimits::default(),
        }
    }
}

/// One replica with its clients.
pub(crate) struct Replica {
    server: Option<Server>,
    rest: String,
    admin: String,
    /// The connection of the clients below.
    pub channel: Channel,
    pub queues: QueueServiceClient<Channel>,
    pub messages: MessageServiceClient<Channel>,
    pub dead_letters: DeadLetterServiceClient<Channel>,
    pub tags: TagServiceClient<Channel>,
}

impl Replica {
    /// On any migrated database; without a clock, on that of Postgres.
    pub(crate) async fn start(
        database: impl Into<Database>,
        settings: Settings,
        clock: Option<Arc<dyn Clock>>,
    ) -> Self {
        Self::guarded(database, settings, clock, Door::open()).await
    }

    /// The same for other callers.
    pub(crate) async fn guarded(
        database: impl Into<Database>,
        settings: Settings,
        clock: Option<Arc<dyn Clock>>,
        door: Door,
    ) -> Self {
        let broker = BrokerOptions { database: database.into(), settings, clock };
        let any = "127.0.0.1:0".parse().unwrap();
        let shutdown_limit = Duration::from_secs(10);
        let options = ServerOptions {
            broker,
            auth: door.auth,
            limits: door.limits,
            grpc_addr: any,
            grpc_tls: None,
            grpc_connection_age: door.connection_age,
            rest_addr: Some(any),
            rest_tls: None,
            rest: dms::gateway::RestOptions::default(),
            admin_addr: Some(any),
            metrics_groups_max: 2,
            allowed_hosts: Vec::new(),
            net: door.net,
            shutdown_limit,
        };
        let server = Server::start(options).await.unwrap();
        let url = format!("http://{}", server.grpc_addr());
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Self {
            rest: format!("http://{}", server.rest_addr().unwrap()),
            admin: format!("http://{}", server.admin_addr().unwrap()),
            server: Some(server),
            queues: QueueServiceClient::new(channel.clone()),
            messages: MessageServiceClient::new(channel.clone()),
            dead_letters: DeadLetterServiceClient::new(channel.clone()),
            tags: TagServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn rest(&self) -> &str {
        &self.rest
    }

    /// Root of the admin listener.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// Where gRPC listens: `http://127.0.0.1:port`.
    pub(crate) fn grpc(&self) -> String {
        format!("http://{}", self.server.as_ref().unwrap().grpc_addr())
    }

    /// The REST URL of a path below `/v1.0/{project}`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v1.0/{PROJECT}{path}", self.rest)
    }

    /// Stops it in order.
    pub(crate) async fn shutdown(mut self) {
        self.server.take().unwrap().shutdown().await;
    }
}

/// A database, a clock, and one replica; more can be added.
pub(crate) struct TestService {
    pub replica: Replica,
    pub clock: ManualClock,
    pub database: TestDatabase,
}

impl TestService {
    /// Default settings, a clock that stands still.
    pub(crate) async fn start() -> Self {
        Self::with(Settings { pool_connections: 4, ..Settings::default() }).await
    }

    /// Other settings.
    pub(crate) async fn with(settings: Settings) -> Self {
        Self::guarded_with(settings, Door::open()).await
    }

    /// Default settings, for callers with credentials.
    pub(crate) async fn guarded(auth: AuthOptions) -> Self {
        Self::guarded_with(Settings { pool_connections: 4, ..Settings::default() }, Door { auth, ..Door::open() }).await
    }

    /// Default settings, with limits for each project.
    pub(crate) async fn limited(limits: TrafficLimits) -> Self {
        Self::guarded_with(Settings { pool_connections: 4, ..Settings::default() }, Door { limits, ..Door::open() })
            .await
    }

    /// Default settings, on a database that was prepared for it.
    pub(crate) async fn on(database: TestDatabase) -> Self {
        Self::on_with(database, Settings { pool_connections: 4, ..Settings::default() }).await
    }

    /// Other settings, on a database that was prepared for it.
    pub(crate) async fn on_with(database: TestDatabase, settings: Settings) -> Self {
        Self::begin(database, settings, Door::open()).await
    }

    pub(crate) async fn guarded_with(settings: Settings, door: Door) -> Self {
        Self::begin(TestDatabase::create().await, settings, door).await
    }

    async fn begin(database: TestDatabase, settings: Settings, door: Door) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let clock = ManualClock::new(Timestamp(i64::try_from(now.as_micros()).unwrap()));
        let replica = Replica::guarded(database.url(), settings, Some(Arc::new(clock.clone())), door).await;
        Self { replica, clock, database }
    }

    /// Another replica on the same database and clock.
    pub(crate) async fn another_replica(&self) -> Replica {
        let settings = Settings { pool_connections: 4, ..Settings::default() };
        Replica::start(self.database.url(), settings, Some(Arc::new(self.clock.clone()))).await
    }

    /// Turns the clock.
    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// A NORMAL queue without redrive; its id.
    pub(crate) async fn queue(&self, name: &str) -> String {
        self.create_queue(pb::CreateQueueRequest { name: name.into(), ..Default::default() }).await
    }

    /// A queue with dead letters after `max_consume_count` failures.
    pub(crate) async fn redrive_queue(&self, name: &str, mode: pb::QueueMode, max_consume_count: i32) -> String {
        self.create_queue(pb::CreateQueueRequest {
            name: name.into(),
            queue_mode: mode.into(),
            redrive_policy: pb::RedrivePolicy::Enable.into(),
            max_consume_count: Some(max_consume_count),
            ..Default::default()
        })
        .await
    }

    /// Any queue; the project is filled in.
    pub(crate) async fn create_queue(&self, request: pb::CreateQueueRequest) -> String {
        let request = pb::CreateQueueRequest { project_id: PROJECT.into(), ..request };
        self.replica.queues.clone().create_queue(request).await.unwrap().into_inner().queue.unwrap().id
    }

    /// A group; its address for all calls.
    pub(crate) async fn group(&self, queue: &str, name: &str) -> Group {
        let request = pb::CreateConsumerGroupsRequest {
            project_id: PROJECT.into(),
            queue_id: queue.into(),
            names: vec![name.into()],
        };
        let created = self.replica.queues.clone().create_consumer_groups(request).await.unwrap().into_inner();
        Group { queue: queue.into(), id: created.groups[0].id.clone() }
    }

    /// Sends bodies (JSON texts) in one call.
    pub(crate) async fn send(&self, queue: &str, bodies: &[&str]) {
        let messages = bodies.iter().map(|body| message(body)).collect();
        self.send_messages(queue, messages).await.unwrap();
    }

    /// Sends any messages in one call.
    pub(crate) async fn send_messages(
        &self,
        queue: &str,
        messages: Vec<pb::NewMessage>,
    ) -> Result<Vec<String>, Status> {
        let request =
            pb::SendMessagesRequest { project_id: PROJECT.into(), queue_id: queue.into(), messages, return_ids: true };
        let answer = self.replica.messages.clone().send_messages(request).await?.into_inner();
        Ok(answer.results.into_iter().map(|result| result.message_id).collect())
    }

    /// What a group has for a consumer right now, at most `max`.
    pub(crate) async fn consume(&self, group: &Group, max: i32) -> Vec<pb::LeasedMessage> {
        group.consume_from(&self.replica, max).await.unwrap()
    }

    /// The dead letters that a group has for a consumer right now, at most `max`.
    pub(crate) async fn consume_dead_letters(&self, group: &Group, max: i32) -> Vec<pb::LeasedMessage> {
        let request = pb::ConsumeDeadLettersRequest {
            project_id: PROJECT.into(),
            queue_id: group.queue.clone(),
            group_id: group.id.clone(),
            options: Some(pb::ConsumeOptions { max_messages: Some(max), ..Default::default() }),
        };
        loop {
            let mut request = Request::new(request.clone());
            request.set_timeout(GLANCE);
            match self.replica.dead_letters.clone().consume_dead_letters(request).await {
                Err(status) if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) => {}
                answer => return answer.unwrap().into_inner().messages,
            }
        }
    }

    /// Acknowledges `(handler, success)` pairs.
    pub(crate) async fn ack(&self, group: &Group, entries: &[(&str, bool)]) -> Result<pb::AckResult, Status> {
        group.ack_at(&self.replica, entries).await
    }

    /// Acknowledges dead letters.
    pub(crate) async fn ack_dead_letters(
        &self,
        group: &Group,
        entries: &[(&str, bool)],
    ) -> Result<pb::AckResult, Status> {
        let request = pb::AckDeadLettersRequest {
            project_id: PROJECT.into(),
            queue_id: group.queue.clone(),
            group_id: group.id.clone(),
            entries: ack_entries(entries),
        };
        Ok(self.replica.dead_letters.clone().ack_dead_letters(request).await?.into_inner().result.unwrap())
    }

    /// The counters of a group.
    pub(crate) async fn counters(&self, group: &Group) -> pb::GroupCounters {
        let request = pb::ListConsumerGroupsRequest {
            project_id: PROJECT.into(),
            queue_id: group.queue.clone(),
            include_counters: true,
            ..Default::default()
        };
        let groups = self.replica.queues.clone().list_consumer_groups(request).await.unwrap().into_inner().groups;
        groups.into_iter().find(|found| found.id == group.id).unwrap().counters.unwrap()
    }
}

/// A consumer group and its queue.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub queue: String,
    pub id: String,
}

impl Group {
    /// A consume request with a long wait; the caller sets what else it wants.
    pub(crate) fn consume_request(&self, max: i32) -> pb::ConsumeMessagesRequest {
        pb::ConsumeMessagesRequest {
            project_id: PROJECT.into(),
            queue_id: self.queue.clone(),
            group_id: self.id.clone(),
            options: Some(pb::ConsumeOptions { max_messages: Some(max), ..Default::default() }),
            ..Default::default()
        }
    }

    /// What there is right now, through one replica.
    pub(crate) async fn consume_from(&self, replica: &Replica, max: i32) -> Result<Vec<pb::LeasedMessage>, Status> {
        self.glance_at(replica, self.consume_request(max)).await
    }

    /// What there is right now for any request: the deadline of the call cuts the wait short. On a busy machine an answer
    /// may miss the deadline, and the call is made again; messages that were in it stay leased.
    pub(crate) async fn glance_at(
        &self,
        replica: &Replica,
        request: pb::ConsumeMessagesRequest,
    ) -> Result<Vec<pb::LeasedMessage>, Status> {
        loop {
            let mut request = Request::new(request.clone());
            request.set_timeout(GLANCE);
            match replica.messages.clone().consume_messages(request).await {
                Err(status) if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) => {}
                answer => return Ok(answer?.into_inner().messages),
            }
        }
    }

    /// Acknowledges through one replica.
    pub(crate) async fn ack_at(&self, replica: &Replica, entries: &[(&str, bool)]) -> Result<pb::AckResult, Status> {
        let request = pb::AckMessagesRequest {
            project_id: PROJECT.into(),
            queue_id: self.queue.clone(),
            group_id: self.id.clone(),
            entries: ack_entries(entries),
        };
        Ok(replica.messages.clone().ack_messages(request).await?.into_inner().result.unwrap())
    }
}

fn ack_entries(entries: &[(&str, bool)]) -> Vec<pb::AckEntry> {
    let status = |success| if success { pb::AckStatus::Success } else { pb::AckStatus::Fail };
    let entry = |(handler, success): &(&str, bool)| pb::AckEntry {
        handler: (*handler).into(),
        status: status(*success).into(),
    };
    entries.iter().map(entry).collect()
}

/// A message with this JSON text as body.
pub(crate) fn message(body: &str) -> pb::NewMessage {
    pb::NewMessage { body: body.to_owned().into(), ..Default::default() }
}

/// The bodies of messages, in order.
pub(crate) fn bodies(messages: &[pb::LeasedMessage]) -> Vec<String> {
    let body = |message: &pb::LeasedMessage| message.message.as_ref().unwrap().body.clone();
    messages.iter().map(|message| String::from_utf8(body(message).into()).unwrap()).collect()
}

/// The attempt numbers of messages, in order.
pub(crate) fn attempts(messages: &[pb::LeasedMessage]) -> Vec<i32> {
    messages.iter().map(|message| message.delivery_attempt).collect()
}

/// All handlers with success (or all with fail).
pub(crate) fn handlers(messages: &[pb::LeasedMessage], success: bool) -> Vec<(&str, bool)> {
    messages.iter().map(|message| (message.handler.as_str(), success)).collect()
}

/// The DMS code of an error: `DMS.10542209`.
pub(crate) fn code(status: &Status) -> String {
    let error = dms_client::Error::from(status.clone());
    error.dms_code().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}")).to_owned()
}
