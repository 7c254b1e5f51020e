//! How long ago a source was last read well, and what is said when it is not.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Malformed;

/// Between two lines of the log that say the same.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What is known of a source beside its content.
#[derive(Debug)]
pub struct Freshness {
    what: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    read_at: Instant,
    failures: u64,
    complaint: Option<(Malformed, Instant)>,
}

impl Freshness {
    /// Of what was read just now.
    pub(super) fn new(what: &'static str) -> Self {
        let state = State { read_at: Instant::now(), failures: 0, complaint: None };
        Self { what, state: Mutex::new(state) }
    }

    /// What it is of, in a word.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The time since it was last read and found good, changed or not; and how many times it was not since the start.
    pub fn sample(&self) -> (Duration, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.read_at.elapsed(), state.failures)
    }

    /// Notes how a look has ended: whether what it found was new, or why it was not taken.
    pub(super) fn looked(&self, taken: Result<bool, Malformed>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let what = self.what;
        match taken {
            Ok(changed) => {
                let recovered = state.complaint.take().is_some();
                state.read_at = Instant::now();
                match (changed, recovered) {
                    (true, _) => tracing::info!(what, "changed credentials are in force"),
                    (false, true) => tracing::info!(what, "credentials can be read again and have not changed"),
                    (false, false) => {}
                }
            }
            Err(why) => {
                state.failures += 1;
                if state.is_due(&why) {
                    let (seconds, failures) = (state.read_at.elapsed().as_secs(), state.failures);
                    tracing::error!(what, %why, last_read_seconds_ago = seconds, failures,
                        "credentials are not renewed; what was before stays in force");
                    state.complaint = Some((why, Instant::now()));
                }
            }
        }
    }
}

impl State {
    /// A new reason is told at once, and the same one again from time to time: rotation and revocation are off meanwhile.
    fn is_due(&self, why: &Malformed) -> bool {
        self.complaint.as_ref().is_none_or(|(told, when)| told != why || when.elapsed() >= COMPLAINT_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn age_and_failures_are_counted_and_complaints_come_again() {
        let freshness = Freshness::new("tokens");
        let bad = || Malformed("bad".into());
        let told_at = |freshness: &Freshness| freshness.state.lock().unwrap().complaint.as_ref().map(|told| told.1);
        let mut complaints = Vec::new();
        for _second in 0..120 {
            freshness.looked(Err(bad()));
            complaints.extend(told_at(&freshness));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        complaints.dedup();
        assert_eq!(complaints.len(), 2, "one a minute");
        assert_eq!(freshness.sample(), (Duration::from_secs(120), 120));
        freshness.looked(Err(Malformed("worse".into())));
        assert_eq!(told_at(&freshness), Some(Instant::now()), "another reason is told at once");
        freshness.looked(Ok(false));
        assert_eq!((freshness.sample(), told_at(&freshness)), ((Duration::ZERO, 121), None));
    }
}
