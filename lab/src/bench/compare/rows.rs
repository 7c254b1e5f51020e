//! The comparisons that are made of ordinary loads.

use std::time::Duration;

use anyhow::Result;

use super::runner::{Measured, Runner};
use super::section::{Section, Target};
use crate::bench::args::{Scenario, System};
use crate::bench::report::Report;
use crate::bench::workload::Workload;

/// Messages a second that a backlog is made for, more than were ever read, so that it lasts: ours, by one group and by ten
/// together, and pgmq's.
const CONSUME_RATE: u64 = 70_000;
const DELIVERY_RATE: u64 = 100_000;
const PGMQ_READ_RATE: u64 = 15_000;
const DEEP: u64 = 10_000_000;
const SHALLOW: u64 = 1_000;

pub(super) fn ratio(of: &Measured, to: &Measured) -> Option<f64> {
    (to.rate() > 0.0).then(|| of.rate() / to.rate())
}

pub(super) fn latency(
    call: &'static str,
    quantile: fn(&crate::bench::report::Latency) -> f64,
) -> impl Fn(&Report) -> Option<f64> {
    move |report| report.latencies.iter().find(|latency| latency.call == call).map(quantile)
}

fn postgres_cpu(measured: &Measured) -> Option<f64> {
    measured.median_of(|report| report.cost.postgres_cpu_us)
}

pub(super) async fn send_1_kb(runner: &Runner<'_>) -> Result<Section> {
    let section = Section::new('a', "a. Send, 1 KB in batches of 10");
    send_batches(runner, section, 1 << 10, [Target::AtLeast(0.6), Target::AtLeast(2.0)]).await
}

pub(super) async fn send_16_kb(runner: &Runner<'_>) -> Result<Section> {
    let section = Section::new('o', "o. Send, 16 KB in batches of 10");
    send_batches(runner, section, 16 << 10, [Target::None, Target::None]).await
}

async fn send_batches(runner: &Runner<'_>, section: Section, size: usize, targets: [Target; 2]) -> Result<Section> {
    let raw = Workload { size, batch: 500, clients: 4, ..runner.load(System::Raw, Scenario::Produce) };
    let pgmq = runner.best_of_pgmq(Scenario::Produce, |load| Workload { size, ..load }).await?;
    let ours = Workload { size, clients: 64, ..runner.ours(Scenario::Produce) };
    let [raw, pgmq, ours] = runner.in_turns([raw, pgmq, ours]).await?;
    let (row, [to_raw, to_pgmq]) = (section.flag(), targets);
    Ok(section
        .with_runs([&raw, &pgmq, &ours])
        .with_figure(row, "send against plain INSERTs of 500 rows (no index)", ratio(&ours, &raw), to_raw)
        .with_figure(row, "send against pgmq's send_batch", ratio(&ours, &pgmq), to_pgmq))
}

pub(super) async fn send_singly(runner: &Runner<'_>) -> Result<Section> {
    let small = |load: Workload| Workload { size: 200, batch: 1, ..load };
    let pgmq = runner.best_of_pgmq(Scenario::Produce, small).await?;
    let ours = Workload { clients: 64, ..small(runner.ours(Scenario::Produce)) };
    let noop = Workload { scenario: Scenario::Noop, ..ours.clone() };
    let [pgmq, ours, noop] = runner.in_turns([pgmq, ours, noop]).await?;
    Ok(Section::new('b', "b. Send, 200 B one by one")
        .with_runs([&pgmq, &ours, &noop])
        .with_figure('b', "send against pgmq's send", ratio(&ours, &pgmq), Target::AtLeast(4.0))
        .with_figure(
            'b',
            "send against a unary call that does nothing (health check)",
            ratio(&ours, &noop),
            Target::None,
        ))
}

pub(super) async fn whole_cycle(runner: &Runner<'_>) -> Result<Section> {
    let waiting = |load: Workload| Workload { backlog: runner.enough(PGMQ_READ_RATE), ..load };
    let pgmq_send = runner.best_of_pgmq(Scenario::Produce, |load| load).await?;
    let pgmq_read = runner.best_of_pgmq(Scenario::Consume, waiting).await?;
    let consume = Workload { backlog: runner.enough(CONSUME_RATE), ..runner.ours(Scenario::Consume) };
    let both = runner.ours(Scenario::Both);
    let [pgmq_send, pgmq_read, consume, both] = runner.in_turns([pgmq_send, pgmq_read, consume, both]).await?;
    let pgmq_cpu = postgres_cpu(&pgmq_send).zip(postgres_cpu(&pgmq_read)).map(|(send, read)| send + read);
    let cpu = postgres_cpu(&both).zip(pgmq_cpu).map(|(ours, pgmq)| ours / pgmq);
    let wal = both.median_of(|report| report.cost.wal_bytes_beyond_payload);
    Ok(Section::new('c', "c, e, f. Consume and ack, and what the whole cycle costs, 1 KB in batches of 10")
        .with_runs([&pgmq_send, &pgmq_read, &consume, &both])
        .with_figure(
            'c',
            "consume + ack against pgmq's read + delete",
            ratio(&consume, &pgmq_read),
            Target::AtLeast(4.0),
        )
        .with_figure(
            'e',
            "Postgres CPU of send + consume + ack against pgmq's send_batch + read + delete",
            cpu,
            Target::AtMost(0.12),
        )
        .with_figure('f', "WAL bytes beyond the payload, whole cycle", wal, Target::AtMost(200.0)))
}

pub(super) async fn latency_under_load(runner: &Runner<'_>) -> Result<Section> {
    let [peak] = runner.in_turns([runner.ours(Scenario::Both)]).await?;
    let offered = |share: f64| Workload { rate: Some((peak.rate() * share) as u32), ..runner.ours(Scenario::Both) };
    let [half, most] = runner.in_turns([offered(0.5), offered(0.8)]).await?;
    let p99 = half.median_of(latency("end to end", |latency| latency.p99_ms));
    Ok(Section::new('d', "d. Latency of send + consume + ack, 1 KB in batches of 10")
        .with_runs([&half, &most, &peak])
        .with_figure('d', "p99 ms from before the send to the consumer, at half of the peak", p99, Target::AtMost(50.0))
        .with_note(
            "At a given rate calls are due evenly spread over time, and latency counts from when a call was due. At the peak \
             producers are as fast as their answers and at most 2,560 messages ahead, which is most of what end to end takes.",
        ))
}

pub(super) async fn ten_groups(runner: &Runner<'_>) -> Result<Section> {
    let one = Workload { clients: 64, ..runner.ours(Scenario::Produce) };
    let ten = Workload { groups: 10, ..one.clone() };
    let backlog = runner.enough(DELIVERY_RATE) / 10;
    let deliver = Workload { groups: 10, clients: 160, backlog, ..runner.ours(Scenario::Consume) };
    let copies = |load: Workload| Workload { queues: 10, backlog: runner.enough(PGMQ_READ_RATE), ..load };
    let pgmq = runner.best_of_pgmq(Scenario::Consume, copies).await?;
    let [one, ten, deliver, pgmq] = runner.in_turns([one, ten, deliver, pgmq]).await?;
    Ok(Section::new('g', "g. Ten groups")
        .with_runs([&one, &ten, &deliver, &pgmq])
        .with_figure('g', "send to a queue with ten idle groups against one", ratio(&ten, &one), Target::AtLeast(0.95))
        .with_figure(
            'g',
            "deliveries to ten groups against ten pgmq queues",
            ratio(&deliver, &pgmq),
            Target::AtLeast(5.0),
        )
        .with_note("Each of the ten groups has 16 consumers."))
}

pub(super) async fn deep_backlog(runner: &Runner<'_>) -> Result<Section> {
    // Producers keep both as deep as they were; their lead, the same for both, is large enough that no consumer waits.
    let shallow = Workload { size: 200, backlog: SHALLOW, ..runner.ours(Scenario::Both) };
    let deep = Workload { backlog: DEEP, drain: false, ..shallow.clone() };
    let [shallow] = runner.in_turns([shallow]).await?;
    let deep = runner.once(&deep).await?;
    let deep = Measured { load: deep.workload.clone(), reports: vec![deep] };
    let p50 = |measured: &Measured| measured.median_of(latency("consume", |latency| latency.p50_ms));
    let slower = p50(&deep).zip(p50(&shallow)).map(|(deep, shallow)| deep / shallow);
    Ok(Section::new('h', "h. A backlog of 10^7 messages against 10^3, 200 B in batches of 10")
        .with_runs([&shallow, &deep])
        .with_figure('h', "rate with 10^3 waiting against 10^7", ratio(&shallow, &deep), Target::AtMost(1.15))
        .with_figure('h', "p50 of consume with 10^7 waiting against 10^3", slower, Target::AtMost(1.15))
        .with_note(
            "Sending goes on while consuming, at most 2,560 messages ahead in both, so that the backlog keeps its size. The \
             deep one is measured once, and what is left of it is not read.",
        ))
}

pub(super) async fn many_queues(runner: &Runner<'_>) -> Result<Section> {
    // Each queue must have been sent to before it is measured.
    let warmup = runner.ours(Scenario::Produce).warmup.max(Duration::from_secs(10));
    let one = Workload { clients: 64, warmup, ..runner.ours(Scenario::Produce) };
    let many = Workload { queues: 10_000, ..one.clone() };
    let [one, many] = runner.in_turns([one, many]).await?;
    Ok(Section::new('i', "i. 10^4 queues against one, 1 KB in batches of 10").with_runs([&one, &many]).with_figure(
        'i',
        "sends spread evenly over 10^4 queues against one",
        ratio(&many, &one),
        Target::AtLeast(0.7),
    ))
}

pub(super) async fn lone_client(runner: &Runner<'_>) -> Result<Section> {
    let alone = |load: Workload| Workload { batch: 1, clients: 1, connections: 1, ..load };
    let raw = alone(runner.load(System::Raw, Scenario::Produce));
    let ours = alone(runner.ours(Scenario::Produce));
    let [raw, ours] = runner.in_turns([raw, ours]).await?;
    let p50 = |measured: &Measured| measured.median_of(latency("send", |latency| latency.p50_ms));
    let slower = p50(&ours).zip(p50(&raw)).map(|(ours, raw)| ours / raw);
    Ok(Section::new('l', "l. One lone client, 1 KB one by one").with_runs([&raw, &ours]).with_figure(
        'l',
        "p50 of a send against a single-row INSERT and its commit",
        slower,
        Target::AtMost(1.75),
    ))
}

pub(super) async fn rest(runner: &Runner<'_>) -> Result<Section> {
    let through = |system, scenario| Workload { clients: 64, ..runner.load(system, scenario) };
    let loads = [
        through(System::Grpc, Scenario::Produce),
        through(System::Rest, Scenario::Produce),
        through(System::Grpc, Scenario::Both),
        through(System::Rest, Scenario::Both),
    ];
    let [grpc_send, rest_send, grpc, rest] = runner.in_turns(loads).await?;
    Ok(Section::new('m', "m. REST against gRPC, 1 KB in batches of 10")
        .with_runs([&grpc_send, &rest_send, &grpc, &rest])
        .with_figure('m', "send", ratio(&rest_send, &grpc_send), Target::AtLeast(0.7))
        .with_figure('m', "send + consume + ack", ratio(&rest, &grpc), Target::AtLeast(0.7)))
}

pub(super) async fn two_replicas(runner: &Runner<'_>) -> Result<Section> {
    let on = |replicas| Workload { clients: 64, replicas, ..runner.ours(Scenario::Both) };
    let [one, two] = runner.in_turns([on(1), on(2)]).await?;
    let section = Section::new('n', "n. Two replicas on one Postgres, one hot queue, 1 KB in batches of 10")
        .with_runs([&one, &two])
        .with_figure('n', "send + consume + ack on two replicas against one", ratio(&two, &one), Target::AtLeast(0.9));
    let proven = two.reports.iter().all(|report| report.is_right() && report.order_checked);
    Ok(section.with_note(if proven {
        "Order and exclusivity are checked message by message: none came twice, and each consumer got the messages of each \
         producer in the order they were sent."
    } else {
        "Not every run could prove the order of messages."
    }))
}
