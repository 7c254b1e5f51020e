//! The live line on stderr: in place on a terminal, a line a second elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::meter::Meter;

/// Shows rates once a second.
pub(super) struct Progress<'a> {
    title: &'a str,
    meter: &'a Meter,
    in_place: bool,
}

impl<'a> Progress<'a> {
    /// For the load that this meter watches.
    pub(super) fn new(title: &'a str, meter: &'a Meter) -> Self {
        Self { title, meter, in_place: std::io::stderr().is_terminal() }
    }

    /// Shows the line while the work runs.
    pub(super) async fn show_during<T>(self, work: impl Future<Output = T>) -> T {
        let result = tokio::select! {
            result = work => result,
            never = self.show() => match never {},
        };
        if self.in_place {
            // Clears the line for what comes next.
            write_line("\r\x1b[K");
        }
        result
    }

    async fn show(&self) -> std::convert::Infallible {
        const PERIOD: Duration = Duration::from_secs(1);
        let began = Instant::now();
        let mut ticks = interval_at(began + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shown = (began, 0, 0);
        loop {
            let now = ticks.tick().await;
            let totals = self.meter.totals();
            let (sent, acked) = (totals.sent.load(Relaxed), totals.acked.load(Relaxed));
            let seconds = (now - shown.0).as_secs_f64();
            let rate = |count: u64, before: u64| (count - before) as f64 / seconds;
            let line = format!(
                "{:>8} {:>4.0} s  sent {:>9.0}/s  acked {:>9.0}/s  errors {}",
                self.title,
                (now - began).as_secs_f64(),
                rate(sent, shown.1),
                rate(acked, shown.2),
                totals.errors.load(Relaxed),
            );
            write_line(&if self.in_place { format!("\r\x1b[K{line}") } else { format!("{line}\n") });
            shown = (now, sent, acked);
        }
    }
}

/// A progress line that cannot be written is no reason to stop.
fn write_line(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
