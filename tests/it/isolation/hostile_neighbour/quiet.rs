//! A project with hundreds of parked consumers, for whom a message comes now and then.

use std::time::Duration;

use dms_client::v1 as pb;
use dms_client::v1::message_service_client::MessageServiceClient;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;

use crate::support::calls::{PATIENCE, eventually};
use crate::support::service::{TestService, message};
use crate::support::statements::Statements;

const CONSUMERS: u32 = 200;
/// Messages of one exchange, each to another queue.
pub(super) const MESSAGES: u32 = 40;
const PROJECT: &str = "quiet";
/// Longer than a test takes: no poll may be answered with nothing.
const WAIT_SECONDS: i64 = 60;
/// Sends in flight.
const AT_ONCE: u32 = 8;

/// Queues with a group each, faster than by calls. Ids are numbers.
fn create() -> String {
    format!(
        "WITH numbers AS (SELECT n, n + 1000000 AS stream, lpad(n::text, 32, '0')::uuid AS id FROM generate_series(1, {CONSUMERS}) AS n),
         queue AS (INSERT INTO queues (queue_id, project_id, name, description, mode, retention_hours, created_at, stream_id)
             SELECT id, '{PROJECT}', 'queue-' || n, '', 'NORMAL', 72, now(), stream FROM numbers),
         stream AS (INSERT INTO streams (stream_id, last_appended_at, queue_id, kind) SELECT stream, now(), id, 'normal' FROM numbers),
         subscription AS (INSERT INTO subscriptions (stream_id, subscription_id, cursor_offset, cursor_time)
             SELECT stream, stream, 0, now() FROM numbers)
         SELECT FROM numbers"
    )
}

const CREATE_GROUPS: &str = "INSERT INTO consumer_groups (group_id, queue_id, name, subscription_id)
    SELECT queue_id, queue_id, 'group', stream_id FROM queues WHERE project_id = 'quiet'";

/// The id of a queue, and of its group.
fn id(number: u32) -> String {
    uuid::Uuid::from_u128(u128::from_str_radix(&number.to_string(), 16).unwrap()).to_string()
}

/// The project and its consumers. They end with this value.
pub(super) struct Quiet {
    messages: MessageServiceClient<Channel>,
    /// The queue of each message that has come and was acknowledged, or what went wrong.
    came: mpsc::UnboundedReceiver<Result<u32, String>>,
    _consumers: JoinSet<()>,
    next: u32,
}

impl Quiet {
    /// Parks the consumers; returns when each has had a message, all wait, and the lanes have nothing to do.
    pub(super) async fn park(service: &TestService, statements: &Statements) -> Self {
        let mut sql = service.sql().await;
        sql.execute(AssertSqlSafe(create())).await.unwrap();
        sql.execute(CREATE_GROUPS).await.unwrap();
        // No connection that neighbours use too: what they send would be in the way.
        let channel = Channel::from_shared(service.replica.grpc()).unwrap().connect().await.unwrap();
        let messages = MessageServiceClient::new(channel);
        let (sender, came) = mpsc::unbounded_channel();
        let mut consumers = JoinSet::new();
        for number in 1..=CONSUMERS {
            consumers.spawn(consume(messages.clone(), number, sender.clone()));
        }
        let mut quiet = Self { messages, came, _consumers: consumers, next: 0 };
        for _ in 0..CONSUMERS / MESSAGES {
            assert_eq!(quiet.exchange().await, [""; 0], "while consumers are parked");
        }
        calm(statements).await;
        quiet
    }

    /// Sends a message to each of the next queues, a few at once; calls that failed and messages that did not come.
    pub(super) async fn exchange(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..MESSAGES / AT_ONCE {
            let mut sends = JoinSet::new();
            for _ in 0..AT_ONCE {
                self.next = self.next % CONSUMERS + 1;
                sends.spawn(send(self.messages.clone(), self.next));
            }
            let sent = timeout_at(deadline, sends.join_all()).await.unwrap_or_default();
            let stored = sent.iter().filter(|answer| answer.is_ok()).count();
            failures.extend((sent.len()..AT_ONCE as usize).map(|_| "a send was not answered in time".to_owned()));
            failures.extend(sent.into_iter().filter_map(Result::err));
            for _ in 0..stored {
                match timeout_at(deadline, self.came.recv()).await {
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(failure))) => failures.push(failure),
                    Ok(None) | Err(_) => failures.push("a message did not come in time".to_owned()),
                }
            }
        }
        while let Ok(Err(failure)) = self.came.try_recv() {
            failures.push(failure);
        }
        failures
    }
}

/// Waits until no lane has run a statement for a while.
pub(super) async fn calm(statements: &Statements) {
    let mut before = u64::MAX;
    eventually("the lanes are calm", async || {
        sleep(Duration::from_millis(400)).await;
        let now = statements.total();
        std::mem::replace(&mut before, now) == now
    })
    .await;
}

async fn send(mut client: MessageServiceClient<Channel>, number: u32) -> Result<(), String> {
    let request = pb::SendMessagesRequest {
        project_id: PROJECT.into(),
        queue_id: id(number),
        messages: vec![message(&number.to_string())],
        return_ids: false,
    };
    client.send_messages(request).await.map(drop).map_err(|status| format!("send: {status}"))
}

async fn consume(
    mut client: MessageServiceClient<Channel>,
    number: u32,
    came: mpsc::UnboundedSender<Result<u32, String>>,
) {
    loop {
        let _ = came.send(match consume_one(&mut client, number).await {
            Ok(()) => Ok(number),
            Err(failure) => {
                sleep(Duration::from_millis(100)).await;
                Err(failure)
            }
        });
    }
}

/// Waits for a message and acknowledges it.
async fn consume_one(client: &mut MessageServiceClient<Channel>, number: u32) -> Result<(), String> {
    let request = pb::ConsumeMessagesRequest {
        project_id: PROJECT.into(),
        queue_id: id(number),
        group_id: format!("g-{}", id(number)),
        options: Some(pb::ConsumeOptions {
            wait: Some(prost_types::Duration { seconds: WAIT_SECONDS, nanos: 0 }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let consumed = client.consume_messages(request).await.map_err(|status| format!("consume: {status}"))?;
    let [leased] = &consumed.into_inner().messages[..] else { return Err("consume: not one message".to_owned()) };
    let request = pb::AckMessagesRequest {
        project_id: PROJECT.into(),
        queue_id: id(number),
        group_id: format!("g-{}", id(number)),
        entries: vec![pb::AckEntry { handler: leased.handler.clone(), ..Default::default() }],
    };
    let acked = client.ack_messages(request).await.map_err(|status| format!("ack: {status}"))?.into_inner();
    let acked = acked.result.unwrap_or_default().success_count;
    if acked == 1 { Ok(()) } else { Err(format!("ack: {acked} of 1")) }
}
