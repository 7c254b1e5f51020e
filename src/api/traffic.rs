//! How much one project may ask of this replica: calls and bytes a second, and a share of the calls in flight.
//!
//! Rates are kept as the time at which all that was asked for would have been due at the allowed rate. A project may be a second
//! ahead of it; then it is refused until it is not, so one large call is never refused for its size alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::ids::ProjectId;
use crate::domain::{Error, Result};
use crate::observe::metrics::{Metrics, Refusal};

/// How far a project may be ahead of its rate.
const AHEAD: Duration = Duration::from_secs(1);
/// Of the calls that could still be taken, a project may have this many times as many in flight: alone up to four fifths of all,
/// and there is always room for another project.
const SHARE: usize = 4;
/// Projects that are remembered before those that matter no more are looked for.
const PROJECTS_MIN: usize = 1024;

/// What each project may ask of one replica; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficLimits {
    /// Calls a second.
    pub calls_per_second: u32,
    /// Bytes a second, of requests and of messages delivered.
    pub bytes_per_second: usize,
}

/// What all projects have asked for. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Traffic(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    limits: TrafficLimits,
    in_flight_max: usize,
    projects: Mutex<Projects>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Projects {
    by_id: HashMap<ProjectId, Project>,
    in_flight: usize,
    sweep_at: usize,
}

#[derive(Debug, Clone, Copy)]
struct Project {
    in_flight: usize,
    calls_due: Instant,
    bytes_due: Instant,
}

impl Project {
    /// Nothing would change if it were forgotten.
    fn is_idle(&self, now: Instant) -> bool {
        self.in_flight == 0 && self.calls_due <= now && self.bytes_due <= now
    }
}

impl Traffic {
    /// For so many calls at a time; what is refused is counted.
    pub(super) fn new(limits: TrafficLimits, in_flight_max: usize, metrics: Metrics) -> Self {
        let projects = Projects { by_id: HashMap::new(), in_flight: 0, sweep_at: PROJECTS_MIN };
        Self(Arc::new(Counted { limits, in_flight_max, projects: Mutex::new(projects), metrics }))
    }

    /// Whether bytes have to be counted.
    pub(super) fn counts_bytes(&self) -> bool {
        self.0.limits.bytes_per_second > 0
    }

    /// Takes a call of so many bytes, until what is returned is dropped.
    ///
    /// # Errors
    /// `Overloaded` with the time to wait, when the project is too far ahead of its rates or has too many calls in flight.
    pub(super) fn admit(&self, id: &ProjectId, bytes: usize, now: Instant) -> Result<InFlight> {
        let Counted { limits, in_flight_max, .. } = *self.0;
        let mut projects = self.0.lock();
        projects.sweep(now);
        let left = in_flight_max.saturating_sub(projects.in_flight);
        let rested = Project { in_flight: 0, calls_due: now, bytes_due: now };
        let project = projects.by_id.entry(id.clone()).or_insert(rested);
        if project.in_flight >= left.saturating_mul(SHARE) {
            self.0.metrics.calls().refused(Refusal::Share);
            return Err(Error::overloaded("this project has too many calls in flight: retry later"));
        }
        for (due, what) in [(project.calls_due, "calls"), (project.bytes_due, "bytes")] {
            let too_far = due.saturating_duration_since(now).saturating_sub(AHEAD);
            if !too_far.is_zero() {
                self.0.metrics.calls().refused(Refusal::Rate);
                let message = format!("this project has had its {what} for now: retry later");
                return Err(Error::overloaded(message).retry_after(too_far));
            }
        }
        project.calls_due = due_after(project.calls_due, now, 1, limits.calls_per_second as usize);
        project.bytes_due = due_after(project.bytes_due, now, bytes, limits.bytes_per_second);
        project.in_flight += 1;
        projects.in_flight += 1;
        drop(projects);
        Ok(InFlight { counted: Arc::clone(&self.0), project: id.clone() })
    }
}

impl Counted {
    fn lock(&self) -> MutexGuard<'_, Projects> {
        self.projects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Projects {
    /// Forgets idle projects, once in a while.
    fn sweep(&mut self, now: Instant) {
        if self.by_id.len() >= self.sweep_at {
            self.by_id.retain(|_, project| !project.is_idle(now));
            self.sweep_at = PROJECTS_MIN.max(self.by_id.len() * 2);
        }
    }
}

/// When so much more would be due at this rate.
fn due_after(due: Instant, now: Instant, amount: usize, per_second: usize) -> Instant {
    if per_second == 0 {
        return due;
    }
    due.max(now) + Duration::from_secs_f64(amount as f64 / per_second as f64)
}

/// A call that was taken.
#[derive(Debug)]
pub(super) struct InFlight {
    counted: Arc<Counted>,
    project: ProjectId,
}

impl InFlight {
    /// Counts bytes of the answer, which are never refused, but later calls may be.
    pub(super) fn charge(&self, bytes: usize, now: Instant) {
        if let Some(project) = self.counted.lock().by_id.get_mut(&self.project) {
            project.bytes_due = due_after(project.bytes_due, now, bytes, self.counted.limits.bytes_per_second);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut projects = self.counted.lock();
        projects.in_flight = projects.in_flight.saturating_sub(1);
        if let Some(project) = projects.by_id.get_mut(&self.project) {
            project.in_flight = project.in_flight.saturating_sub(1);
        }
    }
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
