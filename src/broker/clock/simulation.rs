//! Hours of virtual time: replicas whose monotonic clocks drift, readings held up on either way, and steps of Postgres's clock.
//! What is shown stays within the error that the clock says itself, and no lease is ended early by more than that.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::hands::{ERROR_MAX, Followed, Hands, INTERVAL, Reading, Step, pause_after};
use crate::domain::clock::Timestamp;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
/// How often everything is looked at.
const TICK: i64 = 100_000;
/// Postgres's clock at the start: a time like any other.
const EPOCH: i64 = 20_000 * DAY;
const LEASE: i64 = 15 * SECOND;

fn duration(micros: i64) -> Duration {
    Duration::from_micros(micros.unsigned_abs())
}

/// What happens in a run.
struct Scenario {
    /// Of the monotonic clock of each replica, parts in a million.
    drifts: [i64; 3],
    /// How many readings in a hundred are held up, each way for itself, by up to 3 s.
    held_up_percent: u32,
    /// Steps of Postgres's clock, one after the other.
    steps: &'static [i64],
    hours: i64,
}

/// A reading on its way.
#[derive(Clone, Copy)]
struct Flight {
    asked: i64,
    answered: i64,
    shown: Timestamp,
}

struct Replica {
    rate_ppm: i64,
    hands: Option<Hands>,
    flight: Option<Flight>,
    next_reading: i64,
    /// The last reading it goes by was asked for then.
    followed: i64,
    shown: Timestamp,
}

impl Replica {
    fn elapsed(&self, time: i64) -> Duration {
        duration(time + time * self.rate_ppm / 1_000_000)
    }

    /// The time when its clock has gone on by so much.
    fn after(&self, time: i64, pause: Duration) -> i64 {
        let micros = i64::try_from(pause.as_micros()).unwrap();
        time + micros * 1_000_000 / (1_000_000 + self.rate_ppm)
    }
}

struct Lease {
    ends: i64,
    expires_at: Timestamp,
    seen: [bool; 3],
}

/// The worst of a run.
#[derive(Debug, Default)]
struct Worst {
    error: i64,
    known: Duration,
    early: i64,
    put_back: usize,
}

struct World {
    scenario: Scenario,
    rng: StdRng,
    time: i64,
    steps: Vec<(i64, i64)>,
    replicas: Vec<Replica>,
    leases: Vec<Lease>,
    worst: Worst,
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let replica = |rate_ppm: i64| Replica {
            rate_ppm,
            hands: None,
            flight: None,
            next_reading: 0,
            followed: 0,
            shown: Timestamp(0),
        };
        let spacing = scenario.hours * HOUR / (i64::try_from(scenario.steps.len()).unwrap() + 1);
        let steps = (1..).zip(scenario.steps).map(|(index, step)| (index * spacing, *step)).collect();
        let replicas = scenario.drifts.map(replica).into();
        let rng = StdRng::seed_from_u64(13);
        Self { scenario, rng, time: 0, steps, replicas, leases: Vec::new(), worst: Worst::default() }
    }

    /// Postgres's clock.
    fn truth(&self, time: i64) -> Timestamp {
        Timestamp(EPOCH + time + self.steps.iter().filter(|(at, _)| *at <= time).map(|(_, step)| step).sum::<i64>())
    }

    fn way(&mut self) -> i64 {
        let held_up = self.rng.random_ratio(self.scenario.held_up_percent, 100);
        self.rng.random_range(100..5_000) + if held_up { self.rng.random_range(0..3 * SECOND) } else { 0 }
    }

    fn ask(&mut self, index: usize) {
        let (there, back) = (self.way(), self.way());
        let (asked, shown) = (self.time, self.truth(self.time + there));
        self.replicas[index].flight = Some(Flight { asked, answered: asked + there + back, shown });
    }

    fn answer(&mut self, index: usize, Flight { asked, answered, shown }: Flight) {
        let replica = &mut self.replicas[index];
        let reading = Reading::between(replica.elapsed(asked), replica.elapsed(answered), shown);
        let now = replica.elapsed(answered);
        let followed = match &mut replica.hands {
            Some(hands) => hands.follow(reading, now),
            unset => {
                *unset = Some(Hands::new(reading));
                Followed { offset: Some(0), error: reading.error(), step: None }
            }
        };
        if followed.offset.is_some() {
            replica.followed = asked;
        }
        if let Some(Step::PutBack(_)) = followed.step {
            self.worst.put_back += 1;
            replica.shown = Timestamp(0);
        }
        replica.flight = None;
        replica.next_reading = replica.after(answered, pause_after(Some(followed)));
    }

    /// Whether a replica has a reading of Postgres's clock as it is now, or there has been no step since.
    fn has_noticed(&self, index: usize) -> bool {
        self.steps.iter().all(|(at, _)| *at > self.time || *at < self.replicas[index].followed)
    }

    fn look(&mut self, index: usize) {
        let (truth, noticed) = (self.truth(self.time), self.has_noticed(index));
        let replica = &mut self.replicas[index];
        let now = replica.elapsed(self.time);
        let Some(hands) = replica.hands.as_mut() else { return };
        let (shown, known) = (hands.show(now), hands.error(now));
        assert!(shown >= replica.shown, "goes back from {:?} to {shown:?}", replica.shown);
        replica.shown = shown;
        if !noticed {
            return;
        }
        let error = (shown.0 - truth.0).abs();
        assert!(duration(error) <= known, "off by {error} us, known {known:?} at {} s", self.time / SECOND);
        assert!(hands.latest(now) >= truth, "the latest it may be");
        self.worst.error = self.worst.error.max(error);
        self.worst.known = self.worst.known.max(known);
        for lease in self.leases.iter_mut().filter(|lease| !lease.seen[index] && lease.expires_at <= shown) {
            lease.seen[index] = true;
            let early = lease.ends - truth.0;
            assert!(early <= 0 || duration(early) <= known, "a lease ended {early} us early, known {known:?}");
            self.worst.early = self.worst.early.max(early);
        }
    }

    /// Any replica grants a lease. Those that run while not everybody has noticed a step are left out: by Postgres's clock
    /// they end when that says, and not everybody knows it.
    fn lease(&mut self) {
        if (0..self.replicas.len()).any(|index| !self.has_noticed(index)) {
            return self.leases.clear();
        }
        let ends = self.truth(self.time).0 + LEASE;
        let index = self.rng.random_range(0..self.replicas.len());
        let replica = &mut self.replicas[index];
        let now = replica.elapsed(self.time);
        let Some(hands) = replica.hands.as_mut() else { return };
        let expires_at = hands.latest(now).plus(duration(LEASE));
        self.leases.push(Lease { ends, expires_at, seen: [false; 3] });
        self.leases.retain(|lease| lease.seen.contains(&false));
    }

    fn run(mut self) -> Worst {
        while self.time < self.scenario.hours * HOUR {
            for index in 0..self.replicas.len() {
                match self.replicas[index].flight {
                    Some(flight) if flight.answered <= self.time => self.answer(index, flight),
                    None if self.replicas[index].next_reading <= self.time => self.ask(index),
                    _ => {}
                }
                self.look(index);
            }
            if self.time % (SECOND / 2) == 0 {
                self.lease();
            }
            self.time += TICK;
        }
        self.worst
    }
}

const DRIFTS: [[i64; 3]; 4] = [[20, -20, 0], [100, -100, 20], [50_000, -50_000, 0], [50_000, 100, -20]];
const STEPS: &[i64] =
    &[SECOND, -SECOND, HOUR, -HOUR, 3 * DAY, -3 * DAY, -SECOND, SECOND, -HOUR, HOUR, -3 * DAY, 3 * DAY];

fn run(name: &str, held_up_percent: u32, steps: &'static [i64]) -> Vec<Worst> {
    let run = |drifts: [i64; 3]| {
        let worst = World::new(Scenario { drifts, held_up_percent, steps, hours: 2 }).run();
        println!("{name}, drifts {drifts:?} ppm, {held_up_percent} % held up: worst {worst:?} (us)");
        worst
    };
    DRIFTS.map(run).into()
}

#[test]
fn with_prompt_readings_the_error_stays_within_the_stated_bound() {
    for worst in run("no steps", 0, &[]) {
        assert!(worst.known <= ERROR_MAX && duration(worst.early) <= ERROR_MAX, "{worst:?}");
        assert_eq!(worst.put_back, 0);
    }
    let calm = World::new(Scenario { drifts: [20, -20, 0], held_up_percent: 0, steps: &[], hours: 24 }).run();
    assert!(calm.error < 10_000, "a machine like any other is off by milliseconds: {calm:?}");
}

#[test]
fn readings_held_up_either_way_widen_the_known_error_and_are_never_wrong() {
    // Half of a trip of six seconds, and what drifts until the next one has come.
    let most = duration(3 * SECOND) + (2 * duration(6 * SECOND) + INTERVAL) / 19;
    for percent in [10, 50, 100] {
        for worst in run("no steps", percent, &[]) {
            assert!(duration(worst.error) <= most && duration(worst.early) <= most, "{worst:?}");
            // Standing still, it may be as far ahead again.
            assert!(worst.known <= 2 * most, "{worst:?}");
        }
    }
}

#[test]
fn steps_are_followed_within_the_known_error() {
    for percent in [0, 10, 50] {
        for worst in run("steps", percent, STEPS) {
            // Of each long step back every replica knows; the others are stood out.
            assert_eq!(worst.put_back, 3 * 4, "{worst:?}");
        }
    }
}
