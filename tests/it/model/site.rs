//! The real service: two replicas on one database, and what the clients know of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dms::broker::Settings;
use dms::domain::clock::{Clock as _, Timestamp};
use dms::store::{self, Store, StoreOptions};
use dms_client::v1 as pb;
use tonic::Status;

use super::operations::*;
use super::queue::Spec;
use crate::support::service::{Group, PROJECT, Replica, TestService, code};

/// How long the service may take for what happens by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

/// A handler that was given out.
pub(super) struct Given {
    pub queue: usize,
    pub to: ReaderName,
    text: String,
}

/// The service and its clients' knowledge.
pub(super) struct Site {
    service: TestService,
    second: Replica,
    store: Store,
    queues: Vec<String>,
    groups: HashMap<GroupNo, Group>,
    pub given: Vec<Given>,
    sent: HashMap<Number, pb::NewMessage>,
    ids: HashMap<Number, String>,
}

/// A request on its way to a replica.
enum Call {
    Send(pb::SendMessagesRequest),
    Consume(pb::ConsumeMessagesRequest),
    ConsumeDead(pb::ConsumeDeadLettersRequest),
    Ack(pb::AckMessagesRequest),
    AckDead(pb::AckDeadLettersRequest),
    CreateGroup(pb::CreateConsumerGroupsRequest),
    DeleteGroup(pb::DeleteConsumerGroupRequest),
}

/// Its answer.
pub(super) enum Reply {
    Sent(pb::SendMessagesResponse),
    Batch(Vec<pb::LeasedMessage>),
    Acked(pb::AckResult),
    Created(String),
    Deleted,
    Refused(Status),
}

impl Site {
    pub(super) async fn start(specs: &[Spec]) -> Self {
        let service = TestService::with(Settings { pool_connections: 4, ..Settings::default() }).await;
        let second = service.another_replica().await;
        let store = Store::new(&StoreOptions {
            database: service.database.url().into(),
            pool_connections: 1,
            statement_timeout: PATIENCE,
        });
        let mut queues = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            queues.push(service.create_queue(create_request(index, spec)).await);
        }
        Self {
            service,
            second,
            store: store.unwrap(),
            queues,
            groups: HashMap::new(),
            given: Vec::new(),
            sent: HashMap::new(),
            ids: HashMap::new(),
        }
    }

    /// The present, by the clock that the test turns.
    pub(super) fn now(&self) -> Micros {
        self.service.clock.now().0
    }

    /// Turns the clock and waits until the leases that end have ended in the database. Delays: see the witness.
    pub(super) async fn advance(&self, by: Duration) {
        self.service.clock.advance(by);
        let (begun, now) = (Instant::now(), Timestamp(self.now()));
        while !store::subscriptions::leases::expired_in(&self.store.pool, now, 1).await.unwrap().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "leases that have ended are still there");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Carries out an operation at a replica; the future holds nothing of this.
    pub(super) fn perform(
        &mut self,
        replica: usize,
        queue: usize,
        op: &Op,
    ) -> impl Future<Output = Reply> + Send + use<> {
        let call = self.call(queue, op);
        let replica = if replica == 0 { &self.service.replica } else { &self.second };
        let (mut messages, mut dead) = (replica.messages.clone(), replica.dead_letters.clone());
        let mut queues = replica.queues.clone();
        async move {
            let reply = match call {
                Call::Send(request) => messages.send_messages(request).await.map(|ok| Reply::Sent(ok.into_inner())),
                Call::Consume(request) => {
                    messages.consume_messages(request).await.map(|ok| Reply::Batch(ok.into_inner().messages))
                }
                Call::ConsumeDead(request) => {
                    dead.consume_dead_letters(request).await.map(|ok| Reply::Batch(ok.into_inner().messages))
                }
                Call::Ack(request) => {
                    messages.ack_messages(request).await.map(|ok| Reply::Acked(ok.into_inner().result.unwrap()))
                }
                Call::AckDead(request) => {
                    dead.ack_dead_letters(request).await.map(|ok| Reply::Acked(ok.into_inner().result.unwrap()))
                }
                Call::CreateGroup(request) => {
                    let created = queues.create_consumer_groups(request).await;
                    created.map(|ok| Reply::Created(ok.into_inner().groups[0].id.clone()))
                }
                Call::DeleteGroup(request) => queues.delete_consumer_group(request).await.map(|_| Reply::Deleted),
            };
            reply.unwrap_or_else(Reply::Refused)
        }
    }

    fn call(&mut self, queue: usize, op: &Op) -> Call {
        let (project_id, queue_id) = (PROJECT.to_owned(), self.queues[queue].clone());
        match op {
            Op::Send(sent) => {
                let messages: Vec<pb::NewMessage> = sent.iter().map(new_message).collect();
                self.sent.extend(sent.iter().map(|sent| sent.number).zip(messages.clone()));
                Call::Send(pb::SendMessagesRequest { project_id, queue_id, messages, return_ids: true })
            }
            Op::Consume { reader, max, lease, rule } => {
                let group_id = self.groups[&reader.group].id.clone();
                let options = Some(consume_options(*max, *lease));
                if reader.source == Source::Dead {
                    return Call::ConsumeDead(pb::ConsumeDeadLettersRequest {
                        project_id,
                        queue_id,
                        group_id,
                        options,
                    });
                }
                let all = rule.as_ref().is_some_and(|rule| rule.all);
                let tag_match = if all { pb::TagMatch::All } else { pb::TagMatch::Any }.into();
                let tags = rule.iter().flat_map(|rule| rule.labels.iter().cloned()).collect();
                Call::Consume(pb::ConsumeMessagesRequest { project_id, queue_id, group_id, options, tags, tag_match })
            }
            Op::Ack { reader, entries } => {
                let group_id = self.groups[&reader.group].id.clone();
                let entries = entries.iter().map(|(handler, success)| self.entry(handler, *success)).collect();
                if reader.source == Source::Dead {
                    return Call::AckDead(pb::AckDeadLettersRequest { project_id, queue_id, group_id, entries });
                }
                Call::Ack(pb::AckMessagesRequest { project_id, queue_id, group_id, entries })
            }
            Op::CreateGroup(group) => {
                let names = vec![format!("g{group}")];
                Call::CreateGroup(pb::CreateConsumerGroupsRequest { project_id, queue_id, names })
            }
            Op::Bind(..) => unreachable!("no call"),
            Op::DeleteGroup(group) => {
                let group_id = self.groups[group].id.clone();
                Call::DeleteGroup(pb::DeleteConsumerGroupRequest { project_id, queue_id, group_id })
            }
        }
    }

    fn entry(&self, handler: &Handler, success: bool) -> pb::AckEntry {
        let handler = match handler {
            Handler::Given { token, .. } => self.given[*token].text.clone(),
            Handler::Nonsense => "nonsense".into(),
        };
        let status = if success { pb::AckStatus::Success } else { pb::AckStatus::Fail };
        pb::AckEntry { handler, status: status.into() }
    }

    /// Puts a reply into the words of the model. Replies to sends come first: they tell the ids of messages.
    pub(super) fn read(&mut self, queue: usize, op: &Op, reply: Reply, kafka: bool) -> Answer {
        match (op, reply) {
            (Op::Send(sent), Reply::Sent(answer)) => {
                let ids = answer.results.into_iter().map(|result| result.message_id);
                self.ids.extend(sent.iter().map(|sent| sent.number).zip(ids));
                Answer::Sent(vec![None; sent.len()])
            }
            (Op::Consume { reader, .. }, Reply::Batch(batch)) => {
                Answer::Batch(batch.into_iter().map(|leased| self.delivery(queue, *reader, leased, kafka)).collect())
            }
            (_, Reply::Acked(result)) => Answer::Acked(outcomes(&result)),
            (Op::CreateGroup(group), Reply::Created(id)) => {
                self.groups.insert(*group, Group { queue: self.queues[queue].clone(), id });
                Answer::Done
            }
            (_, Reply::Deleted) => Answer::Done,
            (_, Reply::Refused(status)) => Answer::Refused(code(&status)),
            (op, _) => panic!("an answer that does not fit: {op}"),
        }
    }

    /// Everything that was sent comes back as it was sent; the rest is for the model to judge.
    fn delivery(&mut self, queue: usize, to: ReaderName, leased: pb::LeasedMessage, kafka: bool) -> Delivery {
        let message = leased.message.unwrap();
        let number: Number = std::str::from_utf8(&message.body).unwrap().parse().unwrap();
        let sent = &self.sent[&number];
        let attributes = if sent.attributes.is_empty() || kafka { &b"{}"[..] } else { &sent.attributes };
        assert_eq!(message.attributes, attributes, "attributes of {number}");
        assert_eq!(message.tags, sent.tags, "labels of {number}");
        assert_eq!(Some(&message.id), self.ids.get(&number), "id of {number}");
        let death = message.dead_letter.map(|origin| {
            assert_eq!(origin.queue_id, self.queues[queue]);
            let place = Place { offset: origin.offset, appended_at: micros(origin.append_time) };
            Death { reason: origin.reason(), attempts: origin.delivery_attempts, origin: place }
        });
        self.given.push(Given { queue, to, text: leased.handler });
        Delivery {
            number,
            place: Place { offset: message.offset, appended_at: micros(message.append_time) },
            attempt: leased.delivery_attempt,
            token: self.given.len() - 1,
            expires: micros(leased.lease_expire_time),
            death,
        }
    }

    /// A group by its number.
    pub(super) async fn counters(&self, group: GroupNo) -> pb::GroupCounters {
        self.service.counters(&self.groups[&group]).await
    }

    /// Messages and groups of a queue as the second replica shows them.
    pub(super) async fn queue_totals(&self, queue: usize) -> (i64, usize) {
        let request = pb::GetQueueRequest { project_id: PROJECT.into(), queue_id: self.queues[queue].clone() };
        let shown = self.second.queues.clone().get_queue(request).await.unwrap().into_inner().queue.unwrap();
        (shown.produced_messages, usize::try_from(shown.group_count).unwrap())
    }

    pub(super) async fn shutdown(self) {
        self.second.shutdown().await;
        self.service.replica.shutdown().await;
    }
}

fn create_request(index: usize, spec: &Spec) -> pb::CreateQueueRequest {
    let redrive = if spec.max_consume_count.is_some() { pb::RedrivePolicy::Enable } else { pb::RedrivePolicy::Disable };
    let hours = i32::try_from(spec.retention.as_secs() / 3600).unwrap();
    pb::CreateQueueRequest {
        name: format!("queue-{index}"),
        queue_mode: spec.mode.into(),
        redrive_policy: redrive.into(),
        max_consume_count: spec.max_consume_count,
        retention_hours: spec.is_kafka().then_some(hours),
        ..Default::default()
    }
}

fn new_message(sent: &Sent) -> pb::NewMessage {
    let attributes =
        if sent.number.is_multiple_of(2) { String::new() } else { format!(r#"{{ "number" : {} }}"#, sent.number) };
    pb::NewMessage {
        body: sent.number.to_string().into(),
        attributes: attributes.into(),
        tags: sent.labels.clone(),
        delay: (sent.delay > 0)
            .then(|| prost_types::Duration { seconds: i64::try_from(sent.delay).unwrap(), nanos: 0 }),
        ..Default::default()
    }
}

/// Waits a second and sets no deadline of the call: every answer is definite.
fn consume_options(max: usize, lease: Duration) -> pb::ConsumeOptions {
    let seconds = |seconds: u64| Some(prost_types::Duration { seconds: i64::try_from(seconds).unwrap(), nanos: 0 });
    pb::ConsumeOptions {
        max_messages: Some(i32::try_from(max).unwrap()),
        wait: seconds(1),
        lease: seconds(lease.as_secs()),
    }
}

fn outcomes(result: &pb::AckResult) -> Vec<pb::AckOutcome> {
    let outcomes: Vec<pb::AckOutcome> = result.outcomes().collect();
    let acked = outcomes.iter().take_while(|outcome| **outcome == pb::AckOutcome::Acked).count();
    let counts = (usize::try_from(result.success_count).unwrap(), usize::try_from(result.fail_count).unwrap());
    assert_eq!(counts, (acked, outcomes.len() - acked), "counts of {outcomes:?}");
    outcomes
}

fn micros(timestamp: Option<prost_types::Timestamp>) -> Micros {
    let timestamp = timestamp.unwrap();
    timestamp.seconds * 1_000_000 + i64::from(timestamp.nanos) / 1000
}
