//! `dms-lab chaos`: replicas of the service under faults, clients that record everything, and a checker of the guarantees.
//!
//! - `testbed` is where: `postgres`, private and killed at times, `replica` processes, and a `proxy` on each of their connections;
//!   `topology` is the queues and groups.
//! - `clients` are the tasks: each `producer` and `consumer` on a `client` of its own, a `unauthorized_client` with handlers of others;
//!   `ack_behaviours` is how a consumer treats a batch; `load` is what they share.
//! - `injector` draws `faults`; `drain` brings the run to its end.
//! - `recorder` takes a `history` down, and `checker` verifies it; `report` is for people.
//! - `clocks` has replicas drift and sets the clock of Postgres.
//! - `sabotage` breaks a guarantee on purpose: the checker has to notice.
//!
//! The service is as it always is. Nothing here knows more of it than its API, but for faults, which know its tables.

mod ack_behaviours;
pub mod api;
pub mod args;
mod checker;
mod client;
mod clients;
pub mod clocks;
mod consumer;
mod drain;
mod faults;
mod history;
mod injector;
mod load;
mod postgres;
mod producer;
mod proxy;
mod recorder;
mod replica;
mod report;
mod sabotage;
mod testbed;
mod topology;
mod unauthorized_client;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::{Instant, sleep};

use crate::chaos::args::{ChaosArgs, Fault, Sabotage};
use crate::interrupt::Interrupt;
use clients::{Clients, Seeds};
use injector::Injector;
use load::Load;
use report::Report;
use testbed::Testbed;
use topology::Topology;

/// How far apart the clocks of two replicas may be: they read that of Postgres, and go on by themselves.
const CLOCK_ERROR: Duration = Duration::from_millis(500);
/// A replica that drifts reads the clock again so long after the end of a fault, at most: a reading in flight is given up after 10 s.
const UNREAD_MAX: Duration = Duration::from_secs(20);
/// See docs/architecture.md, Time.
const DRIFT_DIVISOR: u32 = 19;
/// What is not asked to be on disk is written there three times in this at least.
const TAKEN_BACK: Duration = Duration::from_secs(1);
/// The same with the settings of a sabotage.
const TAKEN_BACK_BY_SABOTAGE: Duration = Duration::from_secs(60);
/// How often a run without faults looks whether it has sent enough.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Runs everything and prints the report on stdout; an error when a guarantee does not hold.
pub async fn run(args: ChaosArgs) -> Result<()> {
    args.check()?;
    let seed = args.seed.unwrap_or_else(rand::random);
    print(&format!("seed {seed}"))?;
    // Until here a signal simply ends us, and everything with us.
    let (testbed, topology) = Testbed::open(&args).await?;
    let interrupt = Interrupt::catch()?;
    let report = tokio::select! {
        report = campaign(&args, seed, Arc::new(testbed), topology) => report,
        () = interrupt.first() => Err(anyhow!("interrupted")),
    }?;
    print(&report.to_string())?;
    judge(&args, &report)
}

/// Faults and load, the end, and the check.
async fn campaign(args: &ChaosArgs, seed: u64, testbed: Arc<Testbed>, topology: Topology) -> Result<Report> {
    let mut seeds = Seeds::new(seed);
    let load = Arc::new(Load::new(topology, testbed.doors(), Arc::clone(&testbed.recorder), seed));
    let mut injector = Injector::new(
        Arc::clone(&testbed),
        seeds.generator(),
        kinds(args, &testbed),
        args.fault_time,
        clients::probes(&load, &mut seeds),
    );
    let began = Instant::now();
    let mut clients = Clients::start(&load, args.rate, &mut seeds);
    testbed.upgrade().await?;
    rounds(args, &testbed, &mut injector).await?;
    load.sent.cancel();
    clients.join_producers().await?;
    testbed.lift(args.sabotage).await?;
    drain::run(&testbed, &load).await?;
    clients.join_others().await?;
    load.late.close();
    load.late.wait().await;
    testbed.close().await?;
    let duration = began.elapsed();
    let (history, mut findings) = testbed.recorder.finish(taken_back(args), clock_error(args, &testbed));
    checker::check(&history, &mut findings);
    Ok(Report::new(&history, findings, injector.into_tally(), testbed.recorder.errors(), duration))
}

/// As many rounds as are asked for, and until enough was sent.
async fn rounds(args: &ChaosArgs, testbed: &Testbed, injector: &mut Injector) -> Result<()> {
    let deadline = Instant::now() + args.time_limit;
    let enough = || testbed.recorder.sent_count() >= args.messages;
    while (injector.tally().rounds < args.rounds || !enough()) && Instant::now() < deadline {
        if args.rounds == 0 {
            sleep(LOOK_PAUSE).await;
        } else {
            injector.round().await?;
        }
    }
    Ok(())
}

/// The faults to draw from here.
fn kinds(args: &ChaosArgs, testbed: &Testbed) -> Vec<Fault> {
    args.kinds().into_iter().filter(|fault| testbed.clocks.is_some() || !fault.is_of_clocks()).collect()
}

/// How far apart the clocks of two replicas may be. Those that drift by 5 % are off by a nineteenth of the time in which they read
/// nothing of Postgres's: while a fault keeps it from them, or two after each other, and until they have a connection again.
fn clock_error(args: &ChaosArgs, testbed: &Testbed) -> Duration {
    match kinds(args, testbed).contains(&Fault::ClockDrift) {
        true => CLOCK_ERROR + (2 * args.fault_time + UNREAD_MAX) / DRIFT_DIVISOR,
        false => CLOCK_ERROR,
    }
}

/// What a crash of Postgres may take back.
fn taken_back(args: &ChaosArgs) -> Option<Duration> {
    match args.sabotage {
        Some(Sabotage::AnsweredEarly) => Some(TAKEN_BACK_BY_SABOTAGE),
        _ if args.synchronous_leases => None,
        _ => Some(TAKEN_BACK),
    }
}

fn judge(args: &ChaosArgs, report: &Report) -> Result<()> {
    let rules = report.findings.rules();
    if let Some(sabotage) = args.sabotage {
        let expected = sabotage::breaks(sabotage);
        let noticed = if rules.contains(&expected) { "was noticed" } else { "WAS NOT NOTICED" };
        print(&format!("{} {noticed} as {}", sabotage.name(), expected.name()))?;
    }
    let names: Vec<&str> = rules.iter().map(|rule| rule.name()).collect();
    match names[..] {
        [] => Ok(()),
        _ => bail!("the checker found {} violations of: {}", report.findings.count(), names.join(", ")),
    }
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
}
