//! What the client tasks report while they run: rates for the progress line, latencies and counts of the measured window.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;
use tonic::{Code, Status};

/// The kinds of latency that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// SendMessages.
    Send,
    /// ConsumeMessages that brought something.
    Consume,
    /// AckMessages.
    Ack,
    /// From before the send, or from when it was due, to the answer of the consume.
    EndToEnd,
}

impl Call {
    /// All of them, in the order of the report.
    pub(super) const ALL: [Call; 4] = [Call::Send, Call::Consume, Call::Ack, Call::EndToEnd];

    /// Its name in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Call::Send => "send",
            Call::Consume => "consume",
            Call::Ack => "ack",
            Call::EndToEnd => "end to end",
        }
    }
}

/// The span of time that the figures are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// After the warm-up.
    pub begin: Instant,
    /// When producers stop.
    pub end: Instant,
}

impl Window {
    /// A window of `duration` that begins after `warmup` from now.
    pub(super) fn after(warmup: Duration, duration: Duration) -> Self {
        let begin = Instant::now() + warmup;
        Self { begin, end: begin + duration }
    }

    fn contains(&self, instant: Instant) -> bool {
        self.begin <= instant && instant < self.end
    }
}

/// Running totals, warm-up included.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Messages whose send was answered.
    pub sent: AtomicU64,
    /// Messages whose ack was answered with success.
    pub acked: AtomicU64,
    /// Calls that failed.
    pub errors: AtomicU64,
}

/// Counts of one kind inside the window; latencies in microseconds.
#[derive(Debug)]
pub(super) struct Series {
    /// Messages that went through these calls.
    pub messages: u64,
    /// One value a call; for [`Call::EndToEnd`] one a message.
    pub latency: Histogram<u64>,
}

/// Collects the figures of one load.
#[derive(Debug)]
pub(super) struct Meter {
    window: Window,
    totals: Totals,
    series: [Mutex<Series>; 4],
    errors: Mutex<BTreeMap<String, u64>>,
    unexpected: AtomicU64,
    cut_off: AtomicU64,
}

impl Meter {
    /// For figures of this window.
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            totals: Totals::default(),
            series: Call::ALL.map(|_| Mutex::new(Series { messages: 0, latency: empty_histogram() })),
            errors: Mutex::default(),
            unexpected: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
        }
    }

    /// The measured span.
    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// The running totals.
    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// A call for `messages` messages was answered just now.
    pub(super) fn answered(&self, call: Call, began: Instant, messages: u64) {
        match call {
            Call::Send => _ = self.totals.sent.fetch_add(messages, Relaxed),
            Call::Ack => _ = self.totals.acked.fetch_add(messages, Relaxed),
            Call::Consume | Call::EndToEnd => {}
        }
        let now = Instant::now();
        if self.window.contains(now) {
            self.record(call, messages, [now - began]);
        }
    }

    /// Messages arrived just now, each this long after its send began or was due.
    pub(super) fn arrived(&self, latencies: &[Duration]) {
        if self.window.contains(Instant::now()) {
            self.record(Call::EndToEnd, latencies.len() as u64, latencies.iter().copied());
        }
    }

    fn record(&self, call: Call, messages: u64, latencies: impl IntoIterator<Item = Duration>) {
        let mut series = self.series[call as usize].lock().unwrap_or_else(PoisonError::into_inner);
        series.messages += messages;
        for latency in latencies {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            series.latency.saturating_record(micros);
        }
    }

    /// A call failed. Errors count from the first to the last call, warm-up included.
    pub(super) fn failed(&self, call: Call, status: &Status) {
        let error = dms_client::Error::from(status.clone());
        let reason = error.reason().unwrap_or_default();
        self.totals.errors.fetch_add(1, Relaxed);
        if !is_passing(status.code()) {
            self.unexpected.fetch_add(1, Relaxed);
            tracing::warn!(call = call.name(), %status, "unexpected error");
        }
        if is_cut_off(call, status.code()) {
            self.cut_off.fetch_add(1, Relaxed);
        }
        let label = format!("{} {:?} {reason}", call.name(), status.code());
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(label.trim_end().to_owned()).or_default() += 1;
    }

    /// Adds the errors of an earlier phase of the same load.
    pub(super) fn take_errors(&self, earlier: &Meter) {
        self.totals.errors.fetch_add(earlier.totals.errors.load(Relaxed), Relaxed);
        self.unexpected.fetch_add(earlier.unexpected.load(Relaxed), Relaxed);
        self.cut_off.fetch_add(earlier.cut_off.load(Relaxed), Relaxed);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        for (label, count) in earlier.errors() {
            *errors.entry(label).or_default() += count;
        }
    }

    /// Failed calls by kind, code and reason.
    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Failed calls that neither overload nor an outage explains.
    pub(super) fn unexpected(&self) -> u64 {
        self.unexpected.load(Relaxed)
    }

    /// Failed calls after which messages may come out of order.
    pub(super) fn cut_off(&self) -> u64 {
        self.cut_off.load(Relaxed)
    }

    /// Reads one series.
    pub(super) fn read<T>(&self, call: Call, read: impl FnOnce(&Series) -> T) -> T {
        read(&self.series[call as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Microseconds: three significant digits from 1 us to 10 minutes.
pub(super) fn empty_histogram() -> Histogram<u64> {
    // Cannot fail: the bounds are constants, and hdrhistogram takes any with 1 <= low, 2 * low <= high and 0-5 digits.
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds")
}

/// Errors that say "later", not "wrong".
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::ResourceExhausted
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::FailedPrecondition
    )
}

/// Whether messages may come behind later ones: those of a failed ack when their lease ends, as those of a consume whose answer
/// got lost, and those of a send that is still on its way. A call that was refused did nothing.
fn is_cut_off(call: Call, code: Code) -> bool {
    call == Call::Ack || !matches!(code, Code::ResourceExhausted | Code::FailedPrecondition)
}

/// How long to wait before the next call after this error: what the service asks for, within bounds.
pub(super) fn back_off(status: &Status) -> Duration {
    const DEFAULT: Duration = Duration::from_millis(100);
    const BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(5));
    let hint = dms_client::Error::from(status.clone()).retry_after();
    hint.unwrap_or(DEFAULT).clamp(BOUNDS.0, BOUNDS.1)
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn only_calls_of_the_window_are_measured_and_all_are_counted() {
        let soon = Meter::new(Window::after(Duration::from_secs(60), Duration::from_secs(1)));
        soon.answered(Call::Send, Instant::now(), 10);
        assert_eq!(soon.totals().sent.load(Relaxed), 10);
        assert_eq!(soon.read(Call::Send, |series| (series.messages, series.latency.len())), (0, 0));

        let now = Meter::new(Window::after(Duration::ZERO, Duration::from_secs(60)));
        now.answered(Call::Ack, Instant::now(), 10);
        now.arrived(&[Duration::from_millis(5); 3]);
        assert_eq!(now.read(Call::Ack, |series| (series.messages, series.latency.len())), (10, 1));
        assert_eq!(now.read(Call::EndToEnd, |series| (series.messages, series.latency.len())), (3, 3));
    }

    #[test]
    fn errors_are_told_apart() {
        let meter = Meter::new(Window::after(Duration::ZERO, Duration::ZERO));
        let details = ErrorDetails::with_error_info("OVERLOADED", "dms", []);
        let overloaded = Status::with_error_details(Code::ResourceExhausted, "full", details);
        meter.failed(Call::Send, &overloaded);
        meter.failed(Call::Send, &overloaded);
        meter.failed(Call::Ack, &Status::internal("broken"));
        let errors: Vec<_> = meter.errors().into_iter().collect();
        assert_eq!(errors, [("ack Internal".into(), 1), ("send ResourceExhausted OVERLOADED".into(), 2)]);
        assert_eq!((meter.unexpected(), meter.cut_off()), (1, 1));

        let later = Meter::new(Window::after(Duration::ZERO, Duration::ZERO));
        later.take_errors(&meter);
        assert_eq!((later.errors(), later.unexpected(), later.cut_off()), (meter.errors(), 1, 1));
    }

    #[test]
    fn refused_calls_leave_the_order_as_it_is() {
        let cut_off = |call, status: Status| {
            let meter = Meter::new(Window::after(Duration::ZERO, Duration::ZERO));
            meter.failed(call, &status);
            meter.cut_off() == 1
        };
        assert!(cut_off(Call::Ack, Status::unavailable("gone")));
        assert!(cut_off(Call::Consume, Status::deadline_exceeded("late")));
        assert!(!cut_off(Call::Consume, Status::resource_exhausted("full")));
        assert!(cut_off(Call::Send, Status::unavailable("gone")));
        assert!(!cut_off(Call::Send, Status::resource_exhausted("full")));
    }

    #[test]
    fn the_service_says_how_long_to_back_off() {
        let hint = |delay| {
            let details = ErrorDetails::with_retry_info(Some(delay));
            back_off(&Status::with_error_details(Code::ResourceExhausted, "full", details))
        };
        assert_eq!(hint(Duration::from_millis(200)), Duration::from_millis(200));
        assert_eq!(hint(Duration::from_secs(3_600)), Duration::from_secs(5));
        assert_eq!(back_off(&Status::unavailable("gone")), Duration::from_millis(100));
    }
}
