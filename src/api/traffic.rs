//! How much one project may ask of this replica: calls and bytes a second, and a share of the calls in flight.
//!
//! Rates are kept as the time at which all that was asked for would have been due at the allowed rate. A project may be a second
//! ahead of it; then it is refused until it is not, so one large call is never refused for its size alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::ids::ProjectId;
use crate::domain::{Error, Result};

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
pub struct Traffic(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    limits: TrafficLimits,
    in_flight_max: usize,
    projects: Mutex<Projects>,
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
    fn is_at_rest(&self, now: Instant) -> bool {
        self.in_flight == 0 && self.calls_due <= now && self.bytes_due <= now
    }
}

impl Traffic {
    /// For so many calls at a time.
    pub fn new(limits: TrafficLimits, in_flight_max: usize) -> Self {
        let projects = Projects { by_id: HashMap::new(), in_flight: 0, sweep_at: PROJECTS_MIN };
        Self(Arc::new(Counted { limits, in_flight_max, projects: Mutex::new(projects) }))
    }

    /// Whether bytes have to be counted.
    pub fn counts_bytes(&self) -> bool {
        self.0.limits.bytes_per_second > 0
    }

    /// Takes a call of so many bytes, until what is returned is dropped.
    ///
    /// # Errors
    /// `Overloaded` with the time to wait, when the project is too far ahead of its rates or has too many calls in flight.
    pub fn admit(&self, id: &ProjectId, bytes: usize, now: Instant) -> Result<InFlight> {
        let Counted { limits, in_flight_max, .. } = *self.0;
        let mut projects = self.0.lock();
        projects.sweep(now);
        let left = in_flight_max.saturating_sub(projects.in_flight);
        let rested = Project { in_flight: 0, calls_due: now, bytes_due: now };
        let project = projects.by_id.entry(id.clone()).or_insert(rested);
        if project.in_flight >= left.saturating_mul(SHARE) {
            return Err(Error::overloaded("this project has too many calls in flight: retry later"));
        }
        for (due, what) in [(project.calls_due, "calls"), (project.bytes_due, "bytes")] {
            let too_far = due.saturating_duration_since(now).saturating_sub(AHEAD);
            if !too_far.is_zero() {
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
    /// Forgets projects at rest, once in a while.
    fn sweep(&mut self, now: Instant) {
        if self.by_id.len() >= self.sweep_at {
            self.by_id.retain(|_, project| !project.is_at_rest(now));
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
pub struct InFlight {
    counted: Arc<Counted>,
    project: ProjectId,
}

impl InFlight {
    /// Counts bytes of the answer, which are never refused, but later calls may be.
    pub fn charge(&self, bytes: usize, now: Instant) {
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
mod tests {
    use super::*;
    use crate::domain::ErrorKind;

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).unwrap()
    }

    fn traffic(calls_per_second: u32, bytes_per_second: usize, in_flight_max: usize) -> Traffic {
        Traffic::new(TrafficLimits { calls_per_second, bytes_per_second }, in_flight_max)
    }

    /// How many calls of so many bytes are taken at one instant, each ended at once, and what the next is told.
    fn taken(traffic: &Traffic, name: &str, bytes: usize, now: Instant) -> (usize, Option<Duration>) {
        let mut count = 0;
        loop {
            match traffic.admit(&project(name), bytes, now) {
                Ok(_ended) => count += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Overloaded);
                    return (count, error.retry_hint());
                }
            }
            if count > 1000 {
                return (count, None);
            }
        }
    }

    #[test]
    fn calls_keep_to_their_rate_after_a_burst() {
        let traffic = traffic(10, 0, 100);
        let start = Instant::now();
        let (first, hint) = taken(&traffic, "a", 1, start);
        assert_eq!(first, 11);
        assert!(hint.unwrap() <= Duration::from_millis(101), "{hint:?}");
        assert_eq!(taken(&traffic, "b", 1, start).0, 11);
        assert_eq!(taken(&traffic, "a", 1, start + Duration::from_millis(550)).0, 5);
        assert_eq!(taken(&traffic, "a", 1, start + Duration::from_secs(60)).0, 11);
    }

    #[test]
    fn bytes_are_counted_both_ways_and_a_large_call_is_let_through() {
        let traffic = traffic(0, 1000, 100);
        let start = Instant::now();
        let call = traffic.admit(&project("a"), 5000, start).unwrap();
        let hint = traffic.admit(&project("a"), 1, start).unwrap_err().retry_hint().unwrap();
        assert!(hint.abs_diff(Duration::from_secs(4)) < Duration::from_millis(10), "{hint:?}");
        call.charge(2000, start);
        assert!(traffic.admit(&project("a"), 1, start + Duration::from_millis(5900)).is_err());
        assert!(traffic.admit(&project("a"), 1, start + Duration::from_millis(6100)).is_ok());
    }

    #[test]
    fn without_limits_only_the_share_of_calls_in_flight_counts() {
        let traffic = traffic(0, 0, 10);
        let now = Instant::now();
        assert_eq!(taken(&traffic, "a", 1 << 30, now).1, None);
        let mut held = Vec::new();
        let mut fill = |name: &str| {
            let before = held.len();
            while let Ok(call) = traffic.admit(&project(name), 1, now) {
                held.push(call);
            }
            held.len() - before
        };
        assert_eq!((fill("a"), fill("b"), fill("c")), (8, 2, 0));
        held.clear();
        assert_eq!(taken(&traffic, "c", 1, now).1, None);
    }

    #[test]
    fn projects_at_rest_are_forgotten() {
        let traffic = traffic(10, 0, 100);
        let start = Instant::now();
        let call = traffic.admit(&project("busy"), 1, start).unwrap();
        for number in 0..10 * PROJECTS_MIN {
            let now = start + Duration::from_secs(number as u64);
            drop(traffic.admit(&project(&number.to_string()), 1, now).unwrap());
        }
        let projects = traffic.0.lock();
        assert!(projects.by_id.len() <= PROJECTS_MIN, "{}", projects.by_id.len());
        assert!(projects.by_id.contains_key(&project("busy")));
        drop(projects);
        drop(call);
    }
}
