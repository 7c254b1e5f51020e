use super::*;
use crate::domain::ErrorKind;

fn project(name: &str) -> ProjectId {
    ProjectId::parse(name).unwrap()
}

fn traffic(calls_per_second: u32, bytes_per_second: usize, in_flight_max: usize) -> Traffic {
    Traffic::new(TrafficLimits { calls_per_second, bytes_per_second }, in_flight_max, Metrics::default())
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
fn idle_projects_are_forgotten() {
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
