//! One reader of one stream: what it may deliver, and what is under a lease.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::operations::{Death, Delivery, Handler, MOMENT, Micros, Number, ReaderName, Token};

/// A message on its way through a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub number: Number,
    /// Its offset in the queue's stream, for dead letters too.
    pub offset: i64,
    pub appended_at: Micros,
    /// Counted deliveries so far.
    pub attempts: i32,
    /// For a dead letter: why it is one, and the request that made it one.
    pub death: Option<(Death, Option<Token>)>,
    /// The round in which it arrived, or failed last.
    pub since: u64,
}

impl Item {
    /// It has been delivered before.
    fn has_failed(&self) -> bool {
        self.attempts > 0
    }
}

/// Who holds a message, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    pub token: Token,
    pub expires: Micros,
}

/// Places of a reader: normal messages stand at `(0, offset)`, dead letters of a FIFO queue at `(round, offset)`.
pub(super) type At = (u64, i64);

/// One reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ReaderModel {
    /// FIFO.
    pub exclusive: bool,
    pub available: BTreeMap<At, Item>,
    pub leased: BTreeMap<At, (Item, Hold)>,
    /// Not FIFO: the last delivery was a failed message alone, while new ones waited.
    pub passed_new: bool,
}

impl ReaderModel {
    /// Whether there is something that a consumer must be given.
    pub(super) fn owes(&self) -> bool {
        !self.available.is_empty() && !self.is_blocked()
    }

    /// FIFO: nothing while a batch is in flight.
    pub(super) fn is_blocked(&self) -> bool {
        self.exclusive && !self.leased.is_empty()
    }

    /// Leases a batch, if it is one that may be given out.
    pub(super) fn deliver(
        &mut self,
        batch: &[Delivery],
        max: usize,
        expires: Micros,
        round: u64,
    ) -> Result<(), String> {
        if batch.is_empty() {
            let count = self.available.len();
            return if self.owes() { Err(format!("nothing, though {count} are available")) } else { Ok(()) };
        }
        if self.is_blocked() {
            return Err("a batch is in flight".into());
        }
        if batch.len() > max {
            return Err(format!("{} messages, {max} asked for", batch.len()));
        }
        // New ones come before failed ones where they share a batch.
        let is_behind = |delivery: &Delivery| !self.exclusive && delivery.attempt > 1;
        let in_order = batch.iter().filter(|delivery| !is_behind(delivery)).map(|delivery| delivery.place.offset);
        if !in_order.is_sorted_by(|left, right| left < right) || !batch.is_sorted_by_key(is_behind) {
            return Err("not in stream order".into());
        }
        let places = batch.iter().map(|delivery| self.place_of(delivery)).collect::<Result<Vec<At>, String>>()?;
        if self.exclusive {
            self.check_order(&places)?;
        } else {
            self.check_shares(&places, round)?;
        }
        for (delivery, at) in batch.iter().zip(places) {
            let Some(item) = self.available.remove(&at) else { return Err(format!("{} twice", delivery.number)) };
            check(&item, delivery, expires)?;
            let item = Item { attempts: delivery.attempt, ..item };
            self.leased.insert(at, (item, Hold { token: delivery.token, expires }));
        }
        Ok(())
    }

    /// Not FIFO: while failed and new messages both wait, at least every second delivery is a new one, and failed ones come in
    /// the order of their failures. What arrived or failed in the same round has no order here, and another replica hears of new
    /// messages a moment later: those of the last rounds do not count.
    fn check_shares(&mut self, places: &[At], round: u64) -> Result<(), String> {
        let of_batch: Vec<&Item> = places.iter().filter_map(|at| self.available.get(at)).collect();
        let failed: Vec<&&Item> = of_batch.iter().filter(|item| item.has_failed()).collect();
        let new = of_batch.len() - failed.len();
        let known = self.available.values().filter(|item| !item.has_failed() && item.since + 2 <= round).count();
        let waits = |item: &&Item| item.has_failed() && !of_batch.iter().any(|taken| taken.number == item.number);
        let oldest = self.available.values().filter(waits).map(|item| item.since).min();
        if let Some(item) = failed.iter().find(|item| oldest.is_some_and(|oldest| oldest < item.since)) {
            return Err(format!("{} has passed one that failed before it", item.number));
        }
        let alone = new == 0 && failed.len() == 1;
        let passes_new = new == 0 && !failed.is_empty() && known > 0;
        if new < known.min(of_batch.len() / 2) || (passes_new && (self.passed_new || !alone)) {
            return Err(format!("{} failed messages and {new} new ones, though {known} wait", failed.len()));
        }
        self.passed_new = passes_new;
        Ok(())
    }

    fn place_of(&self, delivery: &Delivery) -> Result<At, String> {
        let Delivery { number, .. } = delivery;
        if let Some((_, (_, hold))) = self.leased.iter().find(|(_, (item, _))| item.number == *number) {
            return Err(format!("{number} is under lease h{}", hold.token));
        }
        let found = self.available.iter().find(|(_, item)| item.number == *number);
        found.map(|(at, _)| *at).ok_or_else(|| format!("{number} is not available: settled, expired or never there"))
    }

    /// FIFO: nothing was passed over. Dead letters that several requests moved in one round have any order among
    /// themselves (nobody can say who was first, and one transaction may have moved them all in stream order); those of one
    /// request keep the order of the queue.
    fn check_order(&self, places: &[At]) -> Result<(), String> {
        let mover = |at: At| self.available.get(&at).and_then(|item| item.death.as_ref()).map(|(_, by)| *by);
        let before = |left: At, right: At| match left.0.cmp(&right.0) {
            Ordering::Equal => left.1 < right.1 && mover(left) == mover(right),
            order => order.is_lt(),
        };
        for (index, place) in places.iter().enumerate() {
            let passed = |at: &&At| before(**at, *place) && !places[..index].contains(at);
            if let Some(at) = self.available.keys().find(passed) {
                return Err(format!("{} comes first", self.available[at].number));
            }
        }
        Ok(())
    }

    /// Where each entry's message stands, if its handler holds it now and no entry before named it.
    pub(super) fn live(&self, name: ReaderName, entries: &[(Handler, bool)], now: Micros) -> Vec<Option<At>> {
        let mut seen = Vec::new();
        let live = |(handler, _): &(Handler, bool)| {
            let Handler::Given { token, to } = *handler else { return None };
            let held = |hold: &Hold| to == name && hold.token == token && hold.expires > now;
            let (at, _) = self.leased.iter().find(|(_, (_, hold))| held(hold))?;
            let first = !seen.contains(at);
            seen.push(*at);
            first.then_some(*at)
        };
        entries.iter().map(live).collect()
    }

    /// Takes what is under leases that have ended.
    pub(super) fn take_ended(&mut self, now: Micros) -> Vec<(At, Item)> {
        let ended: Vec<At> =
            self.leased.iter().filter(|(_, (_, hold))| hold.expires <= now).map(|(at, _)| *at).collect();
        ended.into_iter().filter_map(|at| self.leased.remove(&at).map(|(item, _)| (at, item))).collect()
    }

    /// Messages that have not expired, leased ones included.
    pub(super) fn live_count(&self, horizon: Micros) -> i64 {
        let items = self.available.values().chain(self.leased.values().map(|(item, _)| item));
        i64::try_from(items.filter(|item| item.appended_at > horizon).count()).unwrap()
    }
}

fn check(item: &Item, delivery: &Delivery, expires: Micros) -> Result<(), String> {
    let number = item.number;
    if delivery.attempt != item.attempts + 1 {
        return Err(format!("{number} comes as attempt {}, not {}", delivery.attempt, item.attempts + 1));
    }
    // Dead letters of one instant are told apart by microseconds, as all appends of a stream are.
    let later = if item.death.is_some() { MOMENT } else { 1 };
    if !(item.appended_at..item.appended_at + later).contains(&delivery.place.appended_at) {
        return Err(format!("{number} has append time {}, not {}", delivery.place.appended_at, item.appended_at));
    }
    if delivery.expires != expires {
        return Err(format!("{number} has a lease until {}, not {expires}", delivery.expires));
    }
    let death = item.death.as_ref().map(|(death, _)| *death);
    if delivery.death != death {
        return Err(format!("{number} has origin {:?}, not {death:?}", delivery.death));
    }
    if death.is_none() && delivery.place.offset != item.offset {
        return Err(format!("{number} has offset {}, not {}", delivery.place.offset, item.offset));
    }
    Ok(())
}
