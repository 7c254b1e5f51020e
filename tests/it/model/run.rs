//! One run: rounds of concurrent operations, each checked before the next begins.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::generate::{self, Generator};
use super::linearize::linearize;
use super::operations::*;
use super::queue::{QueueModel, SECOND};
use super::site::{PATIENCE, Site};

/// Operations at the same time.
const CLIENTS: usize = 5;
/// Rounds of a queue that a failure shows.
const TRAIL: usize = 12;
/// An operation to carry out, and where.
pub(super) struct Asked {
    queue: usize,
    replica: usize,
    op: Op,
    /// How long after the others it begins.
    late: Duration,
}

impl Asked {
    pub(super) fn new(queue: usize, replica: usize, op: Op) -> Self {
        Self { queue, replica, op, late: Duration::ZERO }
    }
}

/// One queue: its possible states, its witness, and what happened to it lately.
pub(super) struct Subject {
    pub models: Vec<QueueModel>,
    /// Reads everything as soon as it is there, and so tells where it landed.
    witness: GroupNo,
    gone: Vec<GroupNo>,
    trail: VecDeque<String>,
}

/// A run.
pub(super) struct Run {
    seed: u64,
    rng: StdRng,
    pub(super) site: Site,
    pub(super) subjects: Vec<Subject>,
    /// Operations carried out, those of witnesses included.
    steps: usize,
    next_number: Number,
    next_group: GroupNo,
}

impl Run {
    /// Carries out so many operations and checks every answer; then empties everything and checks what is left.
    pub(super) async fn carry_out(seed: u64, steps: usize) -> usize {
        eprintln!("model run: DMS_MODEL_SEED={seed} DMS_MODEL_STEPS={steps}");
        let mut run = Self::start(seed).await;
        let mut rounds = 0;
        while run.steps < steps {
            match run.rng.random_range(0..8) {
                0 => {
                    let by = generate::turn(&mut run.rng);
                    run.advance(by).await;
                }
                _ => run.random_round().await,
            }
            rounds += 1;
            if rounds % 8 == 0 {
                run.check_counters().await;
            }
        }
        run.drain().await;
        run.site.shutdown().await;
        run.steps
    }

    async fn start(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let specs = generate::specs(&mut rng);
        let site = Site::start(&specs).await;
        let now = site.now();
        let subject = |spec| Subject {
            models: vec![QueueModel::new(spec, now)],
            witness: 0,
            gone: Vec::new(),
            trail: VecDeque::new(),
        };
        let subjects = specs.into_iter().map(subject).collect();
        let mut run = Self { seed, rng, site, subjects, steps: 0, next_number: 0, next_group: 0 };
        for queue in 0..run.subjects.len() {
            run.next_group += 1;
            run.subjects[queue].witness = run.next_group;
            let op = Op::CreateGroup(run.next_group);
            run.round(vec![Asked::new(queue, 0, op)]).await;
        }
        run
    }

    async fn random_round(&mut self) {
        let count = self.rng.random_range(1..=CLIENTS);
        // Clients that meet at one queue are what this is about.
        let favourite = self.rng.random_range(0..self.subjects.len());
        let mut generator = Generator {
            rng: &mut self.rng,
            given: &self.site.given,
            next_number: &mut self.next_number,
            next_group: &mut self.next_group,
            asked: HashMap::new(),
            later: Vec::new(),
        };
        let mut asked = Vec::new();
        for _ in 0..count {
            let any = generator.rng.random_range(0..self.subjects.len());
            let queue = if generator.rng.random_bool(0.8) { favourite } else { any };
            let subject = &self.subjects[queue];
            let op = generator.op(queue, &subject.models[0], subject.witness, &subject.gone);
            asked.push(Asked::new(queue, generator.rng.random_range(0..2), op));
            for op in std::mem::take(&mut generator.later) {
                let late = Duration::from_millis(generator.rng.random_range(0..40));
                asked.push(Asked { late, ..Asked::new(queue, generator.rng.random_range(0..2), op) });
            }
        }
        self.round(asked).await;
    }

    /// Carries out operations at the same time and finds them an order.
    pub(super) async fn round(&mut self, asked: Vec<Asked>) {
        self.steps += asked.len();
        let began = Instant::now();
        let running: Vec<_> = asked
            .iter()
            .map(|Asked { queue, replica, op, late }| {
                let (call, late) = (self.site.perform(*replica, *queue, op), *late);
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    (began.elapsed(), call.await, began.elapsed())
                })
            })
            .collect();
        let mut replies = Vec::new();
        for (asked, running) in asked.into_iter().zip(running) {
            replies.push((asked, running.await.unwrap()));
        }
        // Sends first: they tell the ids of what others consumed.
        replies.sort_by_key(|(asked, _)| !matches!(asked.op, Op::Send(_)));
        let mut rounds: Vec<Vec<Observed>> = self.subjects.iter().map(|_| Vec::new()).collect();
        for (Asked { queue, replica, op, .. }, (began, reply, ended)) in replies {
            let kafka = self.subjects[queue].models[0].spec.is_kafka();
            let answer = self.site.read(queue, &op, reply, kafka);
            rounds[queue].push(Observed { op, answer, replica, began, ended });
        }
        for (queue, round) in rounds.into_iter().enumerate().filter(|(_, round)| !round.is_empty()) {
            self.judge(queue, round).await;
        }
    }

    async fn judge(&mut self, queue: usize, mut round: Vec<Observed>) {
        let expected: BTreeSet<Number> = round.iter().flat_map(sent_at_once).collect();
        let (seen, witnessed) = self.witness(queue, expected).await;
        round.iter_mut().for_each(|observed| place(observed, &seen));
        let subject = &mut self.subjects[queue];
        let lines: Vec<String> = round.iter().enumerate().map(|(index, op)| format!("  {index}: {op}")).collect();
        subject.remember(format!("round at step {}\n{}", self.steps, lines.join("\n")));
        subject.models.iter_mut().for_each(QueueModel::begin_round);
        match linearize(&subject.models, &round) {
            Ok(models) => subject.models = models,
            Err(illegal) => self.fail(queue, &illegal.to_string()),
        }
        self.keep(queue, |model| witnessed.iter().try_for_each(|(op, answer)| model.apply(op, answer)));
        for Observed { op, .. } in &round {
            if let Op::DeleteGroup(group) = op {
                self.subjects[queue].gone.push(*group);
                self.await_deletion(queue, *group).await;
            }
        }
    }

    /// The witness reads and settles until it has seen what must be there. Nothing else goes on meanwhile.
    async fn witness(
        &mut self,
        queue: usize,
        mut expected: BTreeSet<Number>,
    ) -> (Vec<(Number, Place)>, Vec<(Op, Answer)>) {
        let reader = ReaderName { group: self.subjects[queue].witness, source: Source::Normal };
        let (mut seen, mut done) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        while !expected.is_empty() {
            let op = Op::Consume { reader, max: 10, lease: Duration::from_secs(300), rule: None };
            let answer = self.call(queue, &op).await;
            let Answer::Batch(batch) = &answer else { self.fail(queue, &format!("the witness was told: {answer}")) };
            if batch.is_empty() {
                if begun.elapsed() > PATIENCE {
                    self.fail(queue, &format!("these do not appear: {expected:?}"));
                }
                continue;
            }
            let entries = batch.iter().map(|at| (Handler::Given { token: at.token, to: reader }, true)).collect();
            for delivery in batch {
                expected.remove(&delivery.number);
                seen.push((delivery.number, delivery.place));
            }
            let ack = Op::Ack { reader, entries };
            let acked = self.call(queue, &ack).await;
            done.extend([(op, answer), (ack, acked)]);
            self.steps += 2;
        }
        (seen, done)
    }

    async fn call(&mut self, queue: usize, op: &Op) -> Answer {
        let reply = self.site.perform(0, queue, op).await;
        let kafka = self.subjects[queue].models[0].spec.is_kafka();
        self.site.read(queue, op, reply, kafka)
    }

    /// A replica may be told of a deletion at another one a few milliseconds later, not more.
    async fn await_deletion(&mut self, queue: usize, group: GroupNo) {
        let reader = ReaderName { group, source: Source::Normal };
        let op = Op::Ack { reader, entries: vec![(Handler::Nonsense, true)] };
        let begun = Instant::now();
        for replica in 0..2 {
            loop {
                let reply = self.site.perform(replica, queue, &op).await;
                let answer = self.site.read(queue, &op, reply, false);
                if answer == Answer::Refused(GROUP_NOT_FOUND.into()) {
                    break;
                }
                if begun.elapsed() > PATIENCE {
                    self.fail(queue, &format!("replica {replica} still knows g{group}: {answer}"));
                }
            }
        }
    }

    /// Turns the clock while nothing is in flight, and waits for what that brings about.
    pub(super) async fn advance(&mut self, by: Duration) {
        self.site.advance(by).await;
        for queue in 0..self.subjects.len() {
            let now = self.site.now();
            let expected = self.subjects[queue].models[0].due_by(now);
            let (seen, witnessed) = self.witness(queue, expected).await;
            self.subjects[queue].remember(format!("clock +{} s, appeared: {seen:?}", by.as_secs()));
            self.keep(queue, |model| {
                model.advance(by, &seen)?;
                witnessed.iter().try_for_each(|(op, answer)| model.apply(op, answer))
            });
        }
    }

    /// Keeps the states in which something is legal; there must be one.
    fn keep(&mut self, queue: usize, apply: impl Fn(&mut QueueModel) -> Result<(), String>) {
        let subject = &mut self.subjects[queue];
        let mut reason = String::new();
        subject.models.retain_mut(|model| {
            let before = model.clone();
            apply(model).map_err(|error| (reason, *model) = (error, before)).is_ok()
        });
        if subject.models.is_empty() {
            self.fail(queue, &reason);
        }
    }

    pub(super) fn fail(&self, queue: usize, why: &str) -> ! {
        let subject = &self.subjects[queue];
        let trail: Vec<&str> = subject.trail.iter().map(String::as_str).collect();
        panic!(
            "the service does not keep the rules\nDMS_MODEL_SEED={} at step {}, queue {queue}\n{}\n{why}\n{}",
            self.seed,
            self.steps,
            trail.join("\n"),
            show(&subject.models[0]),
        )
    }
}

impl Subject {
    fn remember(&mut self, event: String) {
        if self.trail.len() == TRAIL {
            self.trail.pop_front();
        }
        self.trail.push_back(event);
    }
}

fn sent_at_once(observed: &Observed) -> Vec<Number> {
    match (&observed.op, &observed.answer) {
        (Op::Send(sent), Answer::Sent(_)) => {
            sent.iter().filter(|sent| sent.delay == 0).map(|sent| sent.number).collect()
        }
        _ => Vec::new(),
    }
}

/// Tells a send where its messages landed.
fn place(observed: &mut Observed, seen: &[(Number, Place)]) {
    if let (Op::Send(sent), Answer::Sent(places)) = (&observed.op, &mut observed.answer) {
        let at = |number| seen.iter().find(|(seen, _)| *seen == number).map(|(_, place)| *place);
        *places = sent.iter().map(|sent| at(sent.number)).collect();
    }
}

/// The state of a queue before the operations that were refused.
fn show(model: &QueueModel) -> String {
    let mut text = format!("{:?}, now {}, {} in the log\n", model.spec, model.now / SECOND, model.log.len());
    for (number, group) in &model.groups {
        let rule = group.rule.as_ref().map_or_else(|| "none".into(), ToString::to_string);
        let _ = writeln!(text, "g{number}: rule {rule}, consumed {}, died {}", group.consumed, group.died);
        for (name, reader) in [("normal", &group.normal), ("dead", &group.dead)] {
            let _ = write!(text, "  {name}:");
            for item in reader.available.values() {
                let _ = write!(text, " {}@{}#{}", item.number, item.offset, item.attempts);
            }
            for (item, hold) in reader.leased.values() {
                let left = (hold.expires - model.now) / SECOND;
                let _ = write!(text, " {}@{}#{}:h{}({left}s)", item.number, item.offset, item.attempts, hold.token);
            }
            text.push('\n');
        }
    }
    text
}
