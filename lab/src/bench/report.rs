//! The figures of one scenario, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::ledger::Faults;
use super::load::Load;
use super::meter::{Call, Meter};
use super::postgres_usage::Usage;
use super::workload::Workload;
use crate::bench::args::Scenario;

/// What is known after a run besides the meter and the ledger.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    /// Seconds measured.
    pub seconds: f64,
    /// What was spent meanwhile.
    pub usage: Usage,
    /// Messages not read for want of time, summed over the groups.
    pub unread: u64,
}

/// The result of one scenario.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// What ran.
    #[serde(flatten)]
    pub workload: Workload,
    /// Seconds of warm-up.
    pub warmup_seconds: u64,
    /// Seconds that were to be measured.
    pub asked_seconds: u64,
    /// Seconds measured: fewer when a backlog was read earlier.
    pub seconds: f64,
    /// Messages sent a second.
    pub sent_per_second: f64,
    /// Deliveries acked a second, summed over the groups.
    pub acked_per_second: f64,
    /// Latencies by kind of call.
    pub latencies: Vec<Latency>,
    /// What a message costs: one sent, and in `consume` one delivery acked.
    pub cost: Cost,
    /// Failed calls, from the first to the last.
    pub errors: BTreeMap<String, u64>,
    /// Messages followed from send to ack.
    pub verified_messages: u64,
    /// Messages not read for want of time, summed over the groups.
    pub unread_messages: u64,
    /// Whether messages out of order would have been a fault.
    pub order_checked: bool,
    /// What is wrong.
    pub faults: Faults,
}

impl Report {
    /// Sums up a run.
    pub(super) fn new(workload: &Workload, load: &Load, meter: &Meter, observed: Observed) -> Self {
        let scenario = workload.scenario;
        let messages = |call| meter.read(call, |series| series.messages);
        let (sent, acked) = (messages(Call::Send), messages(Call::Ack));
        let per_second = |count: u64| if observed.seconds > 0.0 { count as f64 / observed.seconds } else { 0.0 };
        let mut faults = load.faults();
        faults.wrong_answers += meter.unexpected();
        if observed.unread > 0 || !scenario.consumes() {
            faults.lost = 0;
        }
        let order_checked = scenario.consumes() && load.topics.len() == 1 && meter.cut_off() == 0;
        if !order_checked {
            faults.disordered = 0;
        }
        Self {
            workload: workload.clone(),
            warmup_seconds: workload.warmup.as_secs(),
            asked_seconds: workload.duration.as_secs(),
            seconds: observed.seconds,
            sent_per_second: per_second(sent),
            acked_per_second: per_second(acked),
            latencies: Call::ALL
                .into_iter()
                // The age of a backlog says nothing about the service.
                .filter(|call| *call != Call::EndToEnd || scenario == Scenario::Both && workload.backlog == 0)
                .filter_map(|call| Latency::read(call, meter))
                .collect(),
            cost: match scenario {
                Scenario::Consume => Cost::new(&observed.usage, acked, 0, observed.seconds),
                Scenario::Noop => Cost::new(&observed.usage, sent, 0, observed.seconds),
                _ => Cost::new(&observed.usage, sent, load.payloads.size_bytes(), observed.seconds),
            },
            errors: meter.errors(),
            // Exact for one group; over several the unread ones are spread.
            verified_messages: load.ledger.sent().0.saturating_sub(observed.unread.div_ceil(workload.groups.into())),
            unread_messages: observed.unread,
            order_checked,
            faults,
        }
    }

    /// Whether the load ended long before its time.
    pub(super) fn is_cut_short(&self) -> bool {
        self.seconds < 0.95 * self.asked_seconds as f64
    }

    /// Whether the service did its work, however slowly.
    pub(super) fn is_right(&self) -> bool {
        self.faults.is_none() && self.verified_messages > 0
    }
}

/// Latencies of one kind of call, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Latency {
    /// `send`, `consume`, `ack` or `end to end`.
    pub call: &'static str,
    /// Calls measured; messages for end to end.
    pub count: u64,
    /// Half were at most this.
    pub p50_ms: f64,
    /// 95 of 100 were at most this.
    pub p95_ms: f64,
    /// 99 of 100 were at most this.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Latency {
    /// Of the measured calls, if there were any.
    fn read(call: Call, meter: &Meter) -> Option<Self> {
        meter.read(call, |series| (!series.latency.is_empty()).then(|| Self::of(call, &series.latency)))
    }

    fn of(call: Call, micros: &Histogram<u64>) -> Self {
        let ms = |micros: u64| micros as f64 / 1_000.0;
        let quantile = |quantile| ms(micros.value_at_quantile(quantile));
        Self {
            call: call.name(),
            count: micros.len(),
            p50_ms: quantile(0.50),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            max_ms: ms(micros.max()),
        }
    }
}

/// What one message costs; absent where it could not be measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Cost {
    /// CPU microseconds of all Postgres processes.
    pub postgres_cpu_us: Option<f64>,
    /// CPU microseconds of the service.
    pub service_cpu_us: Option<f64>,
    /// CPU microseconds of the load generator.
    pub client_cpu_us: Option<f64>,
    /// Bytes of WAL.
    pub wal_bytes: Option<f64>,
    /// Bytes of WAL without the body.
    pub wal_bytes_beyond_payload: Option<f64>,
    /// Transactions a second, not a message.
    pub commits_per_second: Option<f64>,
}

impl Cost {
    fn new(usage: &Usage, messages: u64, payload_bytes: usize, seconds: f64) -> Self {
        if messages == 0 || seconds <= 0.0 {
            return Self::default();
        }
        let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6 / messages as f64;
        let wal_bytes = usage.wal_bytes.map(|bytes| bytes as f64 / messages as f64);
        Self {
            postgres_cpu_us: usage.postgres_cpu.map(micros),
            service_cpu_us: usage.service_cpu.map(micros),
            client_cpu_us: usage.client_cpu.map(micros),
            wal_bytes,
            wal_bytes_beyond_payload: wal_bytes.map(|bytes| bytes - payload_bytes as f64),
            commits_per_second: usage.commits.map(|commits| commits as f64 / seconds),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{},", self.workload.describe())?;
        writeln!(f, "{:.1} s after {} s of warm-up\n", self.seconds, self.warmup_seconds)?;
        if self.is_cut_short() {
            writeln!(f, "  shorter than the {} s asked for: the backlog was read before\n", self.asked_seconds)?;
        }
        self.write_rates(f)?;
        self.write_latencies(f)?;
        self.write_costs(f)?;
        self.write_verdict(f)
    }
}

impl Report {
    fn write_rates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb_per_second = |rate: f64| rate * self.workload.size as f64 / 1e6;
        for (title, rate) in [("sent", self.sent_per_second), ("consumed + acked", self.acked_per_second)] {
            if rate > 0.0 {
                writeln!(f, "  {title:<20}{rate:>10.0} messages/s {:>9.1} MB/s", mb_per_second(rate))?;
            }
        }
        if self.sent_per_second + self.acked_per_second == 0.0 {
            writeln!(f, "  nothing went through while measuring: make the warm-up shorter or the backlog longer")?;
        }
        Ok(())
    }

    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["p50 ms", "p95 ms", "p99 ms", "max ms"].map(|title| format!("{title:>10}")).concat();
        writeln!(f, "\n  {:<20}{:>10}{titles}", "latency", "count")?;
        for Latency { call, count, p50_ms, p95_ms, p99_ms, max_ms } in &self.latencies {
            writeln!(f, "  {call:<20}{count:>10}{p50_ms:>10.2}{p95_ms:>10.2}{p99_ms:>10.2}{max_ms:>10.2}")?;
        }
        Ok(())
    }

    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("Postgres CPU", self.cost.postgres_cpu_us, "us a message"),
            ("service CPU", self.cost.service_cpu_us, "us a message"),
            ("client CPU", self.cost.client_cpu_us, "us a message"),
            ("WAL", self.cost.wal_bytes, "B a message"),
            ("WAL beyond payload", self.cost.wal_bytes_beyond_payload, "B a message"),
            ("commits", self.cost.commits_per_second, "a second"),
        ];
        writeln!(f)?;
        for (title, value, unit) in rows {
            match value {
                Some(value) => writeln!(f, "  {title:<20}{value:>10.1} {unit}")?,
                None => writeln!(f, "  {title:<20}{:>10}", "n/a")?,
            }
        }
        Ok(())
    }

    fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (error, count) in &self.errors {
            writeln!(f, "  error {error}: {count}")?;
        }
        if self.unread_messages > 0 {
            writeln!(f, "  {} messages were not read in time and are not checked", self.unread_messages)?;
        }
        if self.workload.scenario.consumes() && !self.order_checked {
            writeln!(f, "  the order of messages is not checked: several queues, or calls that were cut off")?;
        }
        let Faults { lost, duplicates, unknown, damaged, disordered, wrong_answers } = self.faults;
        match (self.is_right(), self.workload.scenario.consumes()) {
            (true, true) if self.unread_messages > 0 => {
                writeln!(f, "  right: {} messages read, none doubled or changed", self.verified_messages)
            }
            (true, true) => writeln!(f, "  right: {} messages, none lost, doubled or changed", self.verified_messages),
            (true, false) if self.workload.is_ours() && self.workload.scenario != Scenario::Noop => {
                writeln!(f, "  right: {} messages, counted by the service too", self.verified_messages)
            }
            (true, false) => writeln!(f, "  right: {} answered", self.verified_messages),
            (false, _) => writeln!(
                f,
                "  WRONG: lost {lost}, duplicates {duplicates}, unknown {unknown}, damaged {damaged}, disordered {disordered}, \
                 wrong answers {wrong_answers}, of {} messages",
                self.verified_messages
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_quantiles_in_milliseconds() {
        let mut micros = Histogram::new(3).unwrap();
        (1..=1_000).for_each(|value| micros.record(value * 1_000).unwrap());
        let latency = Latency::of(Call::Ack, &micros);
        let close = |value: f64, expected: f64| assert!((value - expected).abs() / expected < 0.002, "{value}");
        close(latency.p50_ms, 500.0);
        close(latency.p95_ms, 950.0);
        close(latency.p99_ms, 990.0);
        close(latency.max_ms, 1_000.0);
        assert_eq!((latency.call, latency.count), ("ack", 1_000));
    }

    #[test]
    fn costs_are_per_message_and_absent_when_unknown() {
        let usage = Usage {
            postgres_cpu: Some(Duration::from_secs(3)),
            wal_bytes: Some(120_000_000),
            commits: Some(500),
            ..Usage::default()
        };
        let cost = Cost::new(&usage, 100_000, 1_024, 10.0);
        assert_eq!(
            cost,
            Cost {
                postgres_cpu_us: Some(30.0),
                service_cpu_us: None,
                client_cpu_us: None,
                wal_bytes: Some(1_200.0),
                wal_bytes_beyond_payload: Some(176.0),
                commits_per_second: Some(50.0),
            }
        );
        assert_eq!(Cost::new(&usage, 0, 1_024, 10.0), Cost::default());
    }
}
