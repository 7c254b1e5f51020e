//! From when to when each delivery held its message.
//!
//! A hold begins within the window of its consume. It ends with its lease, with an acknowledgement, or with a crash of
//! Postgres that takes the lease back; of each only the earliest instant at which it may have been is of interest.

use std::time::Duration;

use crate::chaos::api::{AckOutcome, AckStatus};
use crate::chaos::history::{
    AckAnswer, AckCall, AckEntry, Batch, DeliveryRef, History, MessageId, Moment, ReaderLog, Window,
};

/// A replica has read Postgres's clock again by then, also when its connection was black-holed meanwhile.
const STEP_NOTICED_IN: Duration = Duration::from_secs(20);

/// One delivery of one message.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    /// Which delivery.
    pub at: DeliveryRef,
    /// Of which message.
    pub message: MessageId,
    /// Counted deliveries, as far as the answer told.
    pub attempts: Option<u8>,
    /// Of the consume: it was claimed within.
    pub claimed: Window,
    /// The lease has not ended before this.
    pub expires_from: Moment,
    /// The lease has ended after this.
    pub expires_until: Moment,
    /// A crash that may have taken it back was not before this.
    pub taken_back_from: Option<Moment>,
    /// The acknowledgement that was answered with success.
    pub acked: Option<Window>,
    /// The acknowledgement that was answered with failure.
    pub failed: Option<Window>,
    /// An acknowledgement that may have failed it was not before this.
    perhaps_failed_from: Option<Moment>,
    /// An acknowledgement that may have succeeded was not before this.
    pub perhaps_acked_from: Option<Moment>,
}

impl Hold {
    fn new(at: DeliveryRef, batch: &Batch, history: &History) -> Self {
        let Window { began, ended } = batch.window;
        let delivery = batch.deliveries[usize::from(at.index)];
        let error = history.allowance.clock_error;
        let (expires_from, expires_until) = (began.plus(batch.lease).minus(error), ended.plus(batch.lease).plus(error));
        let stepped = stepped_from(batch.window, expires_until, history);
        Self {
            at,
            message: delivery.message,
            attempts: delivery.attempts,
            claimed: batch.window,
            expires_from: stepped.map_or(expires_from, |step| step.min(expires_from)),
            expires_until: if stepped.is_some() { expires_until.plus(STEP_NOTICED_IN) } else { expires_until },
            taken_back_from: taken_back_from(batch.window, history),
            acked: None,
            failed: None,
            perhaps_failed_from: None,
            perhaps_acked_from: None,
        }
    }

    /// The group may not have had the message back before this.
    pub(super) fn free_from(&self) -> Moment {
        let ends = [self.taken_back_from, self.failed.map(|failed| failed.began), self.perhaps_failed_from];
        ends.into_iter().flatten().fold(self.expires_from, Moment::min)
    }

    /// It was in flight until this at least.
    pub(super) fn in_flight_until(&self) -> Moment {
        let ends = [self.acked.map(|acked| acked.began), self.perhaps_acked_from];
        ends.into_iter().flatten().fold(self.free_from(), Moment::min)
    }

    /// Whether another delivery of the same message may have come after this one.
    pub(super) fn may_precede(&self, other: &Hold) -> bool {
        self.acked.is_none() && self.free_from() <= other.claimed.ended
    }

    /// Whether this delivery was before the other one, if leases are exclusive.
    pub(super) fn surely_precedes(&self, other: &Hold) -> bool {
        !other.may_precede(self)
    }

    /// Whether a crash may have taken it back, and the count of deliveries with it.
    pub(super) fn is_counted(&self) -> bool {
        self.taken_back_from.is_none()
    }

    /// Whether it may have ended with success.
    pub(super) fn may_be_acked(&self) -> bool {
        self.acked.is_some() || self.perhaps_acked_from.is_some()
    }

    fn apply(&mut self, window: Window, outcome: AckOutcome) {
        match outcome {
            AckOutcome::Acked => _ = self.acked.get_or_insert(window),
            AckOutcome::Failed => _ = self.failed.get_or_insert(window),
            AckOutcome::AfterFailure => self.perhaps_failed(window.began),
            AckOutcome::InvalidHandler | AckOutcome::Unspecified => {}
        }
    }

    /// An acknowledgement without an answer. The first entry fails only when it says so; what is behind another may fail with it.
    fn apply_unknown(&mut self, began: Moment, index: usize, status: AckStatus) {
        if status == AckStatus::Success {
            let from = self.perhaps_acked_from.get_or_insert(began);
            *from = began.min(*from);
        }
        if status == AckStatus::Fail || index > 0 {
            self.perhaps_failed(began);
        }
    }

    fn perhaps_failed(&mut self, began: Moment) {
        let from = self.perhaps_failed_from.get_or_insert(began);
        *from = began.min(*from);
    }
}

/// The earliest step of Postgres's clock while this lease ran, if there was one: then it ends by the clock as it was set, which
/// each replica knows a little later.
fn stepped_from(claimed: Window, expires_until: Moment, history: &History) -> Option<Moment> {
    let concerns = |step: &&Window| step.began < expires_until && claimed.began < step.ended.plus(STEP_NOTICED_IN);
    history.clock_steps.iter().filter(concerns).map(|step| step.began.max(claimed.began)).min()
}

/// The earliest crash that may have taken back a lease given out in this window.
fn taken_back_from(window: Window, history: &History) -> Option<Moment> {
    let before = history.allowance.taken_back?;
    let may_be = |crash: &&Window| window.began < crash.ended && window.ended.plus(before) > crash.began;
    history.crashes.iter().filter(may_be).map(|crash| crash.began.max(window.began)).min()
}

/// All deliveries of one reader.
#[derive(Debug)]
pub(super) struct Holds {
    holds: Vec<Hold>,
    /// Index of the first hold of each batch.
    firsts: Vec<usize>,
}

impl Holds {
    /// Of what the log tells.
    pub(super) fn new(log: &ReaderLog, history: &History) -> Self {
        let mut holds = Vec::with_capacity(log.batches.iter().map(|batch| batch.deliveries.len()).sum());
        let mut firsts = Vec::with_capacity(log.batches.len());
        for (number, batch) in (0..).zip(&log.batches) {
            firsts.push(holds.len());
            let refs = (0..).map(|index| DeliveryRef { batch: number, index }).take(batch.deliveries.len());
            holds.extend(refs.map(|at| Hold::new(at, batch, history)));
        }
        let mut holds = Self { holds, firsts };
        log.acks.iter().for_each(|ack| holds.apply(ack));
        holds
    }

    fn apply(&mut self, ack: &AckCall) {
        for (index, AckEntry { delivery, status }) in ack.entries.iter().enumerate() {
            let at = self.firsts[delivery.batch as usize] + usize::from(delivery.index);
            match &ack.answer {
                AckAnswer::Refused => {}
                AckAnswer::Unknown => self.holds[at].apply_unknown(ack.window.began, index, *status),
                AckAnswer::Outcomes(outcomes) => {
                    let outcome = outcomes.get(index).copied().unwrap_or(AckOutcome::AfterFailure);
                    self.holds[at].apply(ack.window, outcome);
                }
            }
        }
    }

    /// One delivery.
    pub(super) fn get(&self, at: DeliveryRef) -> &Hold {
        &self.holds[self.firsts[at.batch as usize] + usize::from(at.index)]
    }

    /// The deliveries of each batch.
    pub(super) fn batches(&self) -> impl Iterator<Item = &[Hold]> {
        self.holds.chunk_by(|one, next| one.at.batch == next.at.batch)
    }

    /// All deliveries, those of a message together and in the order of their answers.
    pub(super) fn by_message(&self) -> Vec<&Hold> {
        let mut holds: Vec<&Hold> = self.holds.iter().collect();
        holds.sort_unstable_by_key(|hold| (hold.message, hold.claimed.ended, hold.at));
        holds
    }
}

/// The deliveries of one message in [`Holds::by_message`].
pub(super) fn of_message<'a, 'b>(holds: &'b [&'a Hold], message: MessageId) -> &'b [&'a Hold] {
    let begin = holds.partition_point(|hold| hold.message < message);
    let len = holds[begin..].partition_point(|hold| hold.message == message);
    &holds[begin..begin + len]
}
