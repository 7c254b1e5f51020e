//! What an answer holds, from when it is made until its last byte has left.

use std::sync::{Arc, OnceLock};

use super::{ByteBudget, Memory, Owner, Reservation, Use};
use crate::domain::Result;

/// A caller that waits for an answer must have room for so much, or is refused before anything is done for it.
const LEAST_BYTES: usize = 16 * 1024;

/// The memory of one answer. Clones share it: an extension of the response, which its body holds on to.
#[derive(Debug, Clone)]
pub struct Answer(Arc<Reservation>);

impl Answer {
    /// Nothing is there yet.
    pub fn new(answers: &ByteBudget, owner: Option<Owner>) -> Self {
        Self(Arc::new(answers.reservation(owner)))
    }

    /// Reserves memory for more of it.
    ///
    /// # Errors
    /// `Overloaded` when there is not enough, or not enough for its owner.
    pub(crate) fn grow(&self, bytes: usize) -> Result<()> {
        self.0.grow(bytes)
    }

    /// Whether it is worth while to begin: an owner whose answers are not read is refused before messages are leased for it.
    ///
    /// # Errors
    /// `Overloaded` when there is no room for a small answer.
    pub(crate) fn can_begin(&self) -> Result<()> {
        self.0.could_grow(LEAST_BYTES)
    }
}

/// An extension of a request that a gateway relays for somebody else. When the service is in the same process, it need not count again
/// what has arrived, and says here what its answer holds, for the gateway to hold on to.
#[derive(Debug, Clone)]
pub struct Relayed {
    caller: Option<Owner>,
    answer: Arc<OnceLock<Answer>>,
}

impl Relayed {
    /// For this caller.
    pub fn by(caller: Option<Owner>) -> Self {
        Self { caller, answer: Arc::default() }
    }

    /// For whom.
    pub fn caller(&self) -> Option<Owner> {
        self.caller
    }

    /// The service has answered with this.
    pub fn answered(&self, answer: Answer) {
        // A call is answered once.
        let _first = self.answer.set(answer);
    }

    /// What the answer of a service in another process holds here.
    pub(crate) fn answer_from_afar(&self, memory: &Memory) -> Answer {
        self.answer.get_or_init(|| Answer::new(memory.part(Use::Answers), self.caller)).clone()
    }

    /// What the answer holds, if it holds anything.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.get()
    }
}
