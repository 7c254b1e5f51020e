//! One comparison as Markdown: what ran, and the ratios against their targets.

use std::fmt::{self, Display};

use super::runner::{Measured, rate};
use crate::bench::args::BenchArgs;
use crate::bench::report::{Latency, Report};

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
    /// It is there to be known.
    None,
}

/// A figure that has a target.
#[derive(Debug)]
pub(super) struct Figure {
    /// The row of the table of targets.
    row: char,
    what: String,
    value: Option<f64>,
    target: Target,
}

/// The result of one comparison.
#[derive(Debug, Default)]
pub(super) struct Section {
    title: String,
    /// The value of `--compare`.
    flag: char,
    /// What else the command needs to do the same again.
    flags: String,
    runs: Vec<String>,
    figures: Vec<Figure>,
    notes: Vec<String>,
    wrong: Vec<String>,
}

impl Section {
    /// An empty section.
    pub(super) fn new(flag: char, title: &str) -> Self {
        Self { title: title.to_owned(), flag, ..Self::default() }
    }

    /// Tells how long its loads ran.
    pub(super) fn with_durations(mut self, args: &BenchArgs) -> Self {
        let (duration, warmup) = (args.duration().as_secs(), args.warmup().as_secs());
        self.flags = format!(" --duration {duration} --warmup {warmup} --rounds {}", args.rounds);
        self
    }

    /// Adds what ran.
    pub(super) fn with_runs<'a>(mut self, measured: impl IntoIterator<Item = &'a Measured>) -> Self {
        for measured in measured {
            let range = measured.range();
            self.add_report(measured.median(), Some(range));
            measured.reports.iter().for_each(|report| self.judge(report));
        }
        self
    }

    /// Adds one run.
    pub(super) fn with_report(mut self, report: &Report) -> Self {
        self.add_report(report, None);
        self.judge(report);
        self
    }

    /// Adds a figure.
    pub(super) fn with_figure(mut self, row: char, what: &str, value: Option<f64>, target: Target) -> Self {
        self.figures.push(Figure { row, what: what.to_owned(), value, target });
        self
    }

    /// Adds a remark.
    pub(super) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds what is wrong with the results.
    pub(super) fn with_fault(mut self, fault: String) -> Self {
        self.wrong.push(fault);
        self
    }

    /// The value of `--compare`.
    pub(super) fn flag(&self) -> char {
        self.flag
    }

    /// Whether every run gave right results.
    pub(super) fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Keeps what is wrong with a run, and what its figures lack.
    fn judge(&mut self, report: &Report) {
        if !report.is_right() {
            self.wrong.push(report.to_string());
        }
        if report.is_cut_short() {
            let (load, seconds) = (report.workload.describe(), report.seconds);
            self.notes.push(format!("{load}: one run measured {seconds:.1} of {} s.", report.asked_seconds));
        }
    }

    fn add_report(&mut self, report: &Report, range: Option<(f64, f64)>) {
        let latency = telling_latency(report);
        let range = range.map_or(String::new(), |(low, high)| format!(" ({low:.0}-{high:.0})"));
        let cost = &report.cost;
        self.runs.push(format!(
            "| {} | {:.0}{range} | {} | {} | {} | {} | {} | {} |",
            report.workload.describe(),
            rate(report),
            shown(latency.map(|latency| latency.p50_ms), 2),
            shown(latency.map(|latency| latency.p99_ms), 2),
            shown(cost.postgres_cpu_us, 1),
            shown(cost.service_cpu_us.filter(|_| report.workload.is_ours()), 1),
            shown(cost.client_cpu_us, 1),
            shown(cost.wal_bytes_beyond_payload, 0),
        ));
    }
}

/// The latency that the clients of this load feel.
fn telling_latency(report: &Report) -> Option<&Latency> {
    let calls = ["end to end", "consume", "send"];
    calls.into_iter().find_map(|call| report.latencies.iter().find(|latency| latency.call == call))
}

fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.map_or_else(|| "not measured".to_owned(), significant);
        let verdict = |met: bool| if met { "yes" } else { "**no**" };
        let (target, met) = match (self.target, self.value) {
            (Target::None, _) => (String::new(), ""),
            (Target::AtLeast(least), value) => {
                (format!("at least {least}"), verdict(value.is_some_and(|value| value >= least)))
            }
            (Target::AtMost(most), value) => {
                (format!("at most {most}"), verdict(value.is_some_and(|value| value <= most)))
            }
        };
        writeln!(f, "| {} | {} | {value} | {target} | {met} |", self.row, self.what)
    }
}

/// Three digits that count.
fn significant(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "## {}\n\n`dms-lab bench --compare {}{} --pgmq-sql pgmq.sql`\n",
            self.title, self.flag, self.flags
        )?;
        if !self.runs.is_empty() {
            writeln!(
                f,
                "| load | messages/s | p50 ms | p99 ms | Postgres us | service us | client us | WAL B |\n\
                 |---|---|---|---|---|---|---|---|"
            )?;
            self.runs.iter().try_for_each(|run| writeln!(f, "{run}"))?;
            writeln!(f)?;
        }
        writeln!(f, "| row | what | measured | target | reached |\n|---|---|---|---|---|")?;
        self.figures.iter().try_for_each(|figure| write!(f, "{figure}"))?;
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        for wrong in &self.wrong {
            writeln!(f, "\n**WRONG RESULTS**\n\n```text\n{wrong}```")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_judged_by_their_target() {
        let section = Section::new('z', "Title")
            .with_figure('z', "enough", Some(2.0), Target::AtLeast(2.0))
            .with_figure('z', "too much", Some(1.2345), Target::AtMost(1.2))
            .with_figure('z', "unknown", None, Target::AtMost(1.0))
            .with_note("A note.");
        let text = section.to_string();
        for line in [
            "| z | enough | 2.00 | at least 2 | yes |",
            "| z | too much | 1.23 | at most 1.2 | **no** |",
            "| z | unknown | not measured | at most 1 | **no** |",
            "A note.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(section.is_right());
    }
}
