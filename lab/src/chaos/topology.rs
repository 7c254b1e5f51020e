//! The queues and groups of a run: every kind that promises something, in two projects.

use anyhow::{Context, Result};
use dms_client::Client;
use dms_client::v1::{CreateConsumerGroupsRequest, CreateQueueRequest, QueueMode, RedrivePolicy};

use super::client::Target;
use super::history::QueueRules;
use super::recorder::ReaderId;
use crate::chaos::api::Source;

/// What to make.
struct Plan {
    name: &'static str,
    project: &'static str,
    fifo: bool,
    max_consume_count: Option<u32>,
    groups: usize,
    /// Whether some messages are sent with a delay.
    delays: bool,
}

const PLANS: [Plan; 5] = [
    Plan { name: "normal", project: "chaos", fifo: false, max_consume_count: None, groups: 3, delays: true },
    Plan {
        name: "normal-redrive",
        project: "chaos",
        fifo: false,
        max_consume_count: Some(3),
        groups: 2,
        delays: false,
    },
    Plan { name: "fifo", project: "chaos", fifo: true, max_consume_count: None, groups: 2, delays: false },
    Plan { name: "fifo-redrive", project: "chaos", fifo: true, max_consume_count: Some(3), groups: 2, delays: false },
    Plan { name: "elsewhere", project: "chaos-2", fifo: false, max_consume_count: Some(2), groups: 1, delays: false },
];

/// A queue that is there.
#[derive(Debug)]
pub(super) struct Queue {
    /// Whose it is.
    pub project: &'static str,
    /// UUID.
    pub id: String,
    /// How it treats its messages.
    pub rules: QueueRules,
    /// Whether some messages are sent with a delay.
    pub delays: bool,
}

/// A group that is there.
#[derive(Debug)]
pub(super) struct Group {
    /// Index of its queue.
    pub queue: usize,
    /// As the service named it.
    pub id: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Topology {
    /// By index.
    pub queues: Vec<Queue>,
    /// By index; those of a queue are neighbours.
    pub groups: Vec<Group>,
}

impl Topology {
    /// Makes the queues and groups.
    pub(super) async fn create(client: &Client) -> Result<Self> {
        let mut topology = Self::default();
        for (index, plan) in PLANS.iter().enumerate() {
            let id = create_queue(client, plan).await?;
            let groups = create_groups(client, plan, &id).await?;
            topology.groups.extend(groups.into_iter().map(|id| Group { queue: index, id }));
            let rules = QueueRules { fifo: plan.fifo, max_consume_count: plan.max_consume_count };
            topology.queues.push(Queue { project: plan.project, id, rules, delays: plan.delays });
        }
        Ok(topology)
    }

    /// Every stream of every group: dead letters where there are any.
    pub(super) fn readers(&self) -> Vec<ReaderId> {
        let readers = self.groups.iter().enumerate().flat_map(|(group, of)| {
            let redrive = self.queues[of.queue].rules.max_consume_count.is_some();
            let sources = [Some(Source::Normal), redrive.then_some(Source::DeadLetters)];
            sources.into_iter().flatten().map(move |source| ReaderId { group, source })
        });
        readers.collect()
    }

    /// The rules of a reader's queue.
    pub(super) fn rules(&self, reader: ReaderId) -> QueueRules {
        self.queues[self.groups[reader.group].queue].rules
    }

    /// The address of a reader.
    pub(super) fn target(&self, reader: ReaderId) -> Target {
        let group = &self.groups[reader.group];
        let queue = &self.queues[group.queue];
        let project = queue.project.to_owned();
        Target { project, queue: queue.id.clone(), group: group.id.clone(), source: reader.source }
    }
}

async fn create_queue(client: &Client, plan: &Plan) -> Result<String> {
    let mode = if plan.fifo { QueueMode::Fifo } else { QueueMode::Normal };
    let redrive = if plan.max_consume_count.is_some() { RedrivePolicy::Enable } else { RedrivePolicy::Disable };
    let request = CreateQueueRequest {
        project_id: plan.project.to_owned(),
        name: plan.name.to_owned(),
        queue_mode: mode.into(),
        redrive_policy: redrive.into(),
        max_consume_count: plan.max_consume_count.map(u32::cast_signed),
        ..CreateQueueRequest::default()
    };
    let created = client.create_queue(request).await.with_context(|| format!("cannot create queue {}", plan.name))?;
    Ok(created.queue.context("the answer has no queue")?.id)
}

async fn create_groups(client: &Client, plan: &Plan, queue: &str) -> Result<Vec<String>> {
    let request = CreateConsumerGroupsRequest {
        project_id: plan.project.to_owned(),
        queue_id: queue.to_owned(),
        names: (0..plan.groups).map(|group| format!("group-{group}")).collect(),
    };
    let created = client.create_consumer_groups(request).await.context("cannot create groups")?;
    Ok(created.groups.into_iter().map(|group| group.id).collect())
}
