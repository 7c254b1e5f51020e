//! What must hold when nothing is in flight: counters, and at the end of a run the fate of every message.

use std::time::Duration;

use super::group::Fate;
use super::operations::*;
use super::run::{Asked, Run};

/// Longer than every lease and every delay.
const ALL_ENDED: Duration = Duration::from_secs(601);

impl Run {
    /// Exact at rest, leases in flight or not.
    pub(super) async fn check_counters(&mut self) {
        for queue in 0..self.subjects.len() {
            let model = self.subjects[queue].models[0].clone();
            for (number, group) in &model.groups {
                let expected = model.counters(group);
                let mut shown = self.site.counters(*number).await;
                let unread = i64::try_from(group.unread.len()).unwrap();
                if (expected.available_messages..=expected.available_messages + unread)
                    .contains(&shown.available_messages)
                {
                    shown.available_messages = expected.available_messages;
                }
                if shown != expected {
                    self.fail(queue, &format!("counters of g{number}: {shown:?}, not {expected:?}"));
                }
            }
            let produced = model.groups.values().next().map_or(0, |group| model.counters(group).produced_messages);
            let totals = self.site.queue_totals(queue).await;
            if totals != (produced, model.groups.len()) {
                self.fail(queue, &format!("the queue shows {totals:?}, not {:?}", (produced, model.groups.len())));
            }
        }
    }

    /// Lets every lease and delay end, consumes everything, and looks what has become of every message.
    pub(super) async fn drain(&mut self) {
        self.advance(ALL_ENDED).await;
        while self.drain_once().await {}
        // Nothing is left, and every reader says so; those bound to labels have then passed over the rest.
        let asked = self.every_reader(|_| true);
        self.round(asked).await;
        self.check_counters().await;
        for queue in 0..self.subjects.len() {
            let model = &self.subjects[queue].models[0];
            let open = model.groups.iter().find(|(_, group)| {
                group.fates.contains(&Fate::Open) || group.fates.len() != model.log.len() || !group.unread.is_empty()
            });
            if let Some((number, group)) = open {
                self.fail(queue, &format!("open for g{number}: {:?}, unread {:?}", group.fates, group.unread));
            }
        }
    }

    /// One batch of every reader that has one, settled; whether there was any.
    async fn drain_once(&mut self) -> bool {
        let asked = self.every_reader(|owes| owes);
        let any = !asked.is_empty();
        self.round(asked).await;
        let mut acks = Vec::new();
        for (queue, subject) in self.subjects.iter().enumerate() {
            for (group, state) in &subject.models[0].groups {
                for (source, model) in [(Source::Normal, &state.normal), (Source::Dead, &state.dead)] {
                    let reader = ReaderName { group: *group, source };
                    let entry = |token: Token| (Handler::Given { token, to: reader }, true);
                    let entries: Vec<_> = model.leased.values().map(|(_, hold)| entry(hold.token)).collect();
                    if !entries.is_empty() {
                        acks.push(Asked::new(queue, 1, Op::Ack { reader, entries }));
                    }
                }
            }
        }
        self.round(acks).await;
        any
    }

    fn every_reader(&self, wanted: impl Fn(bool) -> bool) -> Vec<Asked> {
        let mut asked = Vec::new();
        for (queue, subject) in self.subjects.iter().enumerate() {
            for (group, state) in &subject.models[0].groups {
                for (source, model) in [(Source::Normal, &state.normal), (Source::Dead, &state.dead)] {
                    let reader = ReaderName { group: *group, source };
                    let rule = state.rule.clone().filter(|_| source == Source::Normal);
                    if wanted(model.owes()) {
                        let op = Op::Consume { reader, max: 10, lease: Duration::from_secs(60), rule };
                        asked.push(Asked::new(queue, usize::from(group % 2 == 0), op));
                    }
                }
            }
        }
        asked
    }
}
