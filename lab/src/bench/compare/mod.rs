//! `dms-lab bench --compare`: the rows of `docs/benchmarks.md`. Most run their loads in turns on one Postgres, several rounds,
//! and tell ratios of their medians.

mod hostile;
mod idle;
mod neighbour;
mod pinned;
mod rows;
mod runner;
mod section;

use std::io::Write;

use anyhow::Result;

use super::testbed::Testbed;
use crate::bench::args::{BenchArgs, Comparison};
use crate::sql::instance::Instance;
use runner::Runner;
use section::Section;

/// Runs the comparisons and prints each as Markdown when it is done. Whether all results were right.
pub(super) async fn run(testbed: &mut Testbed, args: &BenchArgs) -> Result<bool> {
    let mut all_right = true;
    print(&settings(testbed, args).await?)?;
    for comparison in &args.compare {
        if *comparison == Comparison::N {
            testbed.start_service(args).await?;
        }
        let runner = Runner::new(testbed, args);
        let section = compare(&runner, *comparison).await?.with_durations(args);
        if *comparison == Comparison::N {
            testbed.stop_service();
        }
        print(&section.to_string())?;
        all_right &= section.is_right();
    }
    Ok(all_right)
}

async fn compare(runner: &Runner<'_>, comparison: Comparison) -> Result<Section> {
    match comparison {
        Comparison::A => rows::send_1_kb(runner).await,
        Comparison::B => rows::send_singly(runner).await,
        Comparison::C => rows::whole_cycle(runner).await,
        Comparison::D => rows::latency_under_load(runner).await,
        Comparison::G => rows::ten_groups(runner).await,
        Comparison::H => rows::deep_backlog(runner).await,
        Comparison::I => rows::many_queues(runner).await,
        Comparison::J => idle::compare(runner).await,
        Comparison::K => pinned::compare(runner).await,
        Comparison::L => rows::lone_client(runner).await,
        Comparison::M => rows::rest(runner).await,
        Comparison::N => rows::two_replicas(runner).await,
        Comparison::O => rows::send_16_kb(runner).await,
        Comparison::P => neighbour::compare(runner).await,
        Comparison::Q => neighbour::overload(runner).await,
        Comparison::R => hostile::compare(runner).await,
    }
}

/// What the figures were taken on.
async fn settings(testbed: &Testbed, args: &BenchArgs) -> Result<String> {
    let Some(url) = &testbed.database_url else { return Ok(String::new()) };
    let settings = Instance::connect(url).await?.settings().await?;
    let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (duration, warmup) = (args.duration().as_secs(), args.warmup().as_secs());
    let runs = format!("Each load runs {} times for {duration} s, after {warmup} s of warm-up.", args.rounds);
    Ok(format!("{cores} cores for everything. {runs} Postgres: {}.\n", settings.join(", ")))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}
