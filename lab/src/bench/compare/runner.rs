//! Runs loads in turns and takes medians.

use std::time::Duration;

use anyhow::Result;

use crate::bench::args::{BenchArgs, Scenario, System};
use crate::bench::report::Report;
use crate::bench::scenario::{self, STALL_LIMIT};
use crate::bench::testbed::Testbed;
use crate::bench::workload::Workload;

const TRIAL: Duration = Duration::from_secs(6);

/// Runs loads on a testbed.
pub(super) struct Runner<'a> {
    /// Where.
    pub testbed: &'a Testbed,
    args: &'a BenchArgs,
}

impl<'a> Runner<'a> {
    /// A runner with the durations and rounds of these flags.
    pub(super) fn new(testbed: &'a Testbed, args: &'a BenchArgs) -> Self {
        Self { testbed, args }
    }

    /// The service over gRPC.
    pub(super) fn ours(&self, scenario: Scenario) -> Workload {
        self.load(System::Grpc, scenario)
    }

    /// A load of the duration that the flags say.
    pub(super) fn load(&self, system: System, scenario: Scenario) -> Workload {
        let duration = self.args.duration();
        Workload { duration, warmup: self.args.warmup(), ..Workload::new(system, scenario) }
    }

    /// Messages that last for a run of a load at this rate.
    pub(super) fn enough(&self, per_second: u64) -> u64 {
        (self.args.duration() + self.args.warmup()).as_secs() * per_second
    }

    /// pgmq with the number of connections that it is fastest with in a short trial.
    pub(super) async fn best_of_pgmq(
        &self,
        scenario: Scenario,
        change: impl Fn(Workload) -> Workload,
    ) -> Result<Workload> {
        let load = change(self.load(System::Pgmq, scenario));
        let mut best: Option<(f64, Workload)> = None;
        for clients in peer_connections(load.queues) {
            let load = Workload { clients, ..load.clone() };
            let backlog = load.backlog.min(100_000);
            let trial = Workload { backlog, warmup: TRIAL / 6, duration: TRIAL.min(load.duration), ..load.clone() };
            let rate = rate(&self.once(&trial).await?);
            if best.as_ref().is_none_or(|(fastest, _)| rate > *fastest) {
                best = Some((rate, load));
            }
        }
        Ok(best.map_or(load, |(_, load)| load))
    }

    /// One run.
    pub(super) async fn once(&self, load: &Workload) -> Result<Report> {
        scenario::run(self.testbed, load, STALL_LIMIT).await
    }

    /// All loads, one after the other, as many times as there are rounds.
    pub(super) async fn in_turns<const N: usize>(&self, loads: [Workload; N]) -> Result<[Measured; N]> {
        let mut measured = loads.map(|load| Measured { load, reports: Vec::new() });
        for _ in 0..self.args.rounds {
            for measured in &mut measured {
                let report = self.once(&measured.load).await?;
                measured.reports.push(report);
            }
        }
        Ok(measured)
    }

    /// How many times each load runs.
    pub(super) fn rounds(&self) -> u32 {
        self.args.rounds
    }

    /// How long one run measures.
    pub(super) fn duration(&self) -> Duration {
        self.args.duration()
    }
}

/// Connections that a peer is tried with; its best counts. As many for each of several queues.
fn peer_connections(queues: u32) -> [u32; 3] {
    if queues == 1 { [4, 16, 64] } else { [1, 2, 6].map(|each| each * queues) }
}

/// The runs of one load.
#[derive(Debug)]
pub(super) struct Measured {
    /// What ran.
    pub load: Workload,
    /// A report a round.
    pub reports: Vec<Report>,
}

impl Measured {
    /// Median messages a second.
    pub(super) fn rate(&self) -> f64 {
        rate(self.median())
    }

    /// Lowest and highest messages a second.
    pub(super) fn range(&self) -> (f64, f64) {
        let rates = || self.reports.iter().map(rate);
        (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max))
    }

    /// The run with the median rate; one of the two in the middle when they are even.
    pub(super) fn median(&self) -> &Report {
        let mut reports: Vec<&Report> = self.reports.iter().collect();
        reports.sort_by(|one, other| rate(one).total_cmp(&rate(other)));
        reports[reports.len() / 2]
    }

    /// The median over the rounds of any figure.
    pub(super) fn median_of(&self, figure: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
        let mut figures: Vec<f64> = self.reports.iter().filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }
}

/// Messages a second that went all the way of this load.
pub(super) fn rate(report: &Report) -> f64 {
    if report.workload.scenario.consumes() { report.acked_per_second } else { report.sent_per_second }
}
