//! One load: on which system, what kind, how much.

use std::time::Duration;

use serde::Serialize;

use crate::bench::args::{BenchArgs, Scenario, System};

/// What to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Workload {
    /// What is loaded.
    pub system: System,
    /// The kind of load.
    pub scenario: Scenario,
    /// Bytes of a body.
    pub size: usize,
    /// Messages of a call.
    pub batch: u32,
    /// Producers, and as many consumers.
    pub clients: u32,
    /// HTTP/2 connections that gRPC clients share; other clients have one each.
    pub connections: u32,
    /// Replicas of the service that the clients are spread over.
    pub replicas: u32,
    /// Queues that the load is spread over.
    pub queues: u32,
    /// Consumer groups of each queue.
    pub groups: u32,
    /// Messages stored before it begins.
    pub backlog: u64,
    /// How far producers of `both` may be ahead of each group, besides the backlog.
    pub lead: u32,
    /// Messages a second to send, spread evenly over time; as fast as it goes when absent.
    pub rate: Option<u32>,
    /// Whether to consume what is left after the measured time, and to check that all of it comes.
    pub drain: bool,
    /// Before measuring.
    #[serde(skip)]
    pub warmup: Duration,
    /// To measure.
    #[serde(skip)]
    pub duration: Duration,
}

impl Workload {
    /// 1 KB in batches of 10 to one queue with one group, from 32 clients.
    pub(super) fn new(system: System, scenario: Scenario) -> Self {
        Self {
            system,
            scenario,
            size: 1_024,
            batch: 10,
            clients: 32,
            connections: 4,
            replicas: 1,
            queues: 1,
            groups: 1,
            backlog: 0,
            lead: 2_560,
            rate: None,
            drain: true,
            warmup: Duration::from_secs(3),
            duration: Duration::from_secs(30),
        }
    }

    /// The load that the flags describe.
    pub(super) fn from_args(args: &BenchArgs, scenario: Scenario) -> Self {
        Self {
            // Bounded by the limit of a batch, far below usize on every platform.
            size: usize::try_from(args.size).unwrap_or(usize::MAX),
            batch: args.batch,
            clients: args.clients,
            connections: args.connections,
            queues: args.queues,
            groups: args.groups,
            backlog: if scenario == Scenario::Consume { args.backlog() } else { 0 },
            lead: args.lead(),
            rate: args.rate,
            warmup: args.warmup(),
            duration: args.duration(),
            ..Self::new(args.system, scenario)
        }
    }

    /// Whether it goes through the service.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.system, System::Grpc | System::Rest)
    }

    /// When a producer's next call is due, counted from its first: its share of the rate, evenly spread.
    pub(super) fn pace(&self) -> Option<Duration> {
        let calls = f64::from(self.batch) * f64::from(self.clients);
        self.rate.map(|rate| Duration::from_secs_f64(calls / f64::from(rate)))
    }

    /// One line for people.
    pub(super) fn describe(&self) -> String {
        let Self { system, scenario, size, batch, clients, queues, groups, .. } = self;
        let mut text = format!("{} {}: {size} B x {batch}, {clients} clients", system.name(), scenario.name());
        for (count, what) in [(*queues, "queues"), (*groups, "groups"), (self.replicas, "replicas")] {
            if count > 1 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        if self.backlog > 0 {
            text.push_str(&format!(", {} waiting", self.backlog));
        }
        if let Some(rate) = self.rate {
            text.push_str(&format!(", {rate} messages/s offered"));
        }
        text
    }
}
