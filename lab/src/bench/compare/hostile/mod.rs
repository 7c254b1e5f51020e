//! A quiet project with thousands of parked consumers, beside projects that harm themselves and would harm others.

mod acts;
mod neighbour;
mod quiet;

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::runner::Runner;
use super::section::{Section, Target};
use neighbour::{Act, Neighbour};
use quiet::{CONSUMERS, Felt, Quiet, RATE};

/// The longest that one measurement takes: a lock of 10 s and its release are in it.
const MEASURED_MAX: Duration = Duration::from_secs(15);
/// Between two measurements: what a neighbour left behind is over.
const CALM: Duration = Duration::from_secs(3);
const P99_RATIO_MAX: f64 = 3.0;

/// A measurement beside one neighbour, or all.
struct Scene {
    title: &'static str,
    felt: Felt,
    /// What the neighbours did meanwhile.
    deeds: String,
}

/// The quiet project alone and beside each neighbour in turns, and beside all at once.
pub(super) async fn compare(runner: &Runner<'_>) -> Result<Section> {
    let duration = runner.duration().min(MEASURED_MAX);
    let mut neighbours = Vec::new();
    for act in Act::ALL {
        neighbours.push(Neighbour::prepare(act, runner.testbed).await?);
    }
    let mut quiet = Quiet::park(runner.testbed).await?;
    let mut alone = Vec::new();
    let mut scenes = Vec::new();
    let mut casts: Vec<(&str, &[Neighbour])> = neighbours.chunks(1).map(|one| (one[0].act.title(), one)).collect();
    casts.push(("all of them together", &neighbours));
    for (title, cast) in casts {
        sleep(CALM).await;
        alone.push(quiet.feel(duration).await);
        let (felt, deeds) = beside(&mut quiet, cast, duration).await?;
        scenes.push(Scene { title, felt, deeds });
    }
    quiet.leave(runner.testbed).await?;
    for neighbour in neighbours {
        neighbour.leave().await?;
    }
    section(&alone, &scenes, duration)
}

/// What the quiet project feels while the neighbours act, and what they do.
async fn beside(quiet: &mut Quiet, cast: &[Neighbour], duration: Duration) -> Result<(Felt, String)> {
    let mut acts = Vec::new();
    for neighbour in cast {
        acts.push(neighbour.start().await?);
    }
    let felt = quiet.feel(duration).await;
    let deeds: Vec<String> = acts.iter().map(|(acting, _)| acting.deeds.to_string()).collect();
    acts.iter().for_each(|(acting, _)| acting.stop.cancel());
    for (_, tasks) in acts {
        tasks.join_all().await;
    }
    Ok((felt, deeds.join("; ")))
}

fn section(alone: &[Felt], scenes: &[Scene], duration: Duration) -> Result<Section> {
    let mut together = Felt::nothing();
    alone.iter().try_for_each(|felt| together.add(felt))?;
    let mut section = Section::new('r', &format!("r. Hostile neighbours of {CONSUMERS} parked consumers"));
    for Scene { title, felt, .. } in scenes {
        let ratio = felt.millis(0.99) / together.millis(0.99);
        section = section
            .with_figure(
                'r',
                &format!("p99 from send to consume beside {title} against alone"),
                Some(ratio),
                Target::AtMost(P99_RATIO_MAX),
            )
            .with_figure(
                'r',
                "calls of the quiet project that failed meanwhile",
                Some(felt.failed() as f64),
                Target::AtMost(0.0),
            );
    }
    let mut table = String::from(
        "| beside | messages | p50 ms | p99 ms | longest ms | what the neighbour did |\n|---|---|---|---|---|---|",
    );
    table.push_str(&row("nobody", &together, "-"));
    scenes.iter().for_each(|scene| table.push_str(&row(scene.title, &scene.felt, &scene.deeds)));
    let p99s: Vec<String> = alone.iter().map(|felt| format!("{:.2}", felt.millis(0.99))).collect();
    let everything = scenes.iter().map(|scene| &scene.felt).chain([&together]);
    for (reason, count) in everything.flat_map(|felt| &felt.failures) {
        section = section.with_fault(format!("{count} x {reason}\n"));
    }
    Ok(section.with_note(table).with_note(format!(
        "{RATE} messages a second to queues at random, each counted from when its send was due; {} s alone before {} s beside each. \
         p99 alone, one after the other: {} ms.",
        duration.as_secs(),
        duration.as_secs(),
        p99s.join(", ")
    )))
}

fn row(title: &str, felt: &Felt, deeds: &str) -> String {
    let (p50, p99, longest) = (felt.millis(0.5), felt.millis(0.99), felt.millis(1.0));
    format!("\n| {title} | {} | {p50:.2} | {p99:.2} | {longest:.2} | {deeds} |", felt.latencies.len())
}
