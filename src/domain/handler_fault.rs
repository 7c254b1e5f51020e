//! Why a handler was not taken: one sentence for each cause, and what to do about it.

use std::fmt;

use super::clock::Timestamp;
use super::error::{Error, ErrorKind};
use super::handler::Handler;
use super::ids::SubscriptionKey;

/// What helps when acknowledgements come too late.
const TOO_LATE: &str = "if acknowledgements come too late, ask for a longer lease (ack_wait in REST, at most 300 s), take fewer \
                        messages at a time, or acknowledge each message as soon as it is done";

/// Why a handler in an acknowledgement was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandlerFault {
    /// It is not a handler.
    Unparsable,
    /// It was delivered to somebody else.
    Foreign(Foreign),
    /// An earlier entry of the same request names it.
    NamedBefore {
        /// Index of that entry.
        entry: usize,
    },
    /// Its lease has ended without an answer.
    LeaseEnded {
        /// When.
        at: Timestamp,
    },
    /// Its lease would still last, and the message is no longer in it.
    Settled,
    /// Its lease is gone. Whether it was settled or has ended, only its id and the message may tell.
    Gone,
    /// Its lease is over and gone, and nothing tells whether the message was settled before.
    EndedOrSettled {
        /// When the lease was to end, if that is known.
        at: Option<Timestamp>,
    },
}

/// Whose a handler is that is not of the subscription named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// The same group's: of its dead letters instead of its messages, or the other way round.
    Source,
    /// Another group's of the same queue.
    Group,
    /// Another queue's.
    Queue,
}

impl Foreign {
    /// Compares the subscription that a handler names with the one that the caller named.
    pub(crate) fn of(handler: Handler, named: SubscriptionKey) -> Self {
        match handler.key {
            SubscriptionKey { subscription, .. } if subscription == named.subscription => Self::Source,
            SubscriptionKey { stream, .. } if stream == named.stream => Self::Group,
            _ => Self::Queue,
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => {
                "messages and dead letters of a group are acknowledged apart, and this handler is of the other kind"
            }
            Self::Group => "of another group of this queue: name the group that it was delivered to",
            Self::Queue => "of another queue: name the queue and the group that it was delivered to",
        })
    }
}

impl HandlerFault {
    /// What becomes of [`HandlerFault::Gone`], as far as the id of the lease tells.
    #[must_use]
    pub(crate) fn by_lease_id(self, handler: Handler, now: Timestamp) -> Self {
        match (self, handler.lease.ends_at()) {
            (Self::Gone, Some(at)) if now < at => Self::Settled,
            (Self::Gone, at) => Self::EndedOrSettled { at },
            (known, _) => known,
        }
    }

    /// The error for the entry at an index of the request.
    pub(crate) fn error(self, entry: usize) -> Error {
        let kind = match self {
            Self::Foreign(_) => ErrorKind::HandlerMismatch,
            _ => ErrorKind::HandlerInvalid,
        };
        let field = format!("entries[{entry}].handler");
        Error::new(kind, format!("{field}: {self}")).about(&field)
    }
}

impl fmt::Display for HandlerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unparsable => f.write_str("unparsable; give a handler exactly as it came with its message"),
            Self::Foreign(foreign) => foreign.fmt(f),
            Self::NamedBefore { entry } => write!(f, "the entry with index {entry} names it too; name each handler once"),
            Self::LeaseEnded { at } => write!(
                f,
                "its lease ended at {at}, before it was acknowledged: this delivery has failed; {TOO_LATE}"
            ),
            Self::Settled => f.write_str(
                "settled before: each delivery is acknowledged once, with success or fail; nothing is left to do for this one",
            ),
            Self::Gone | Self::EndedOrSettled { at: None } => {
                write!(f, "settled before, or its lease has ended; {TOO_LATE}")
            }
            Self::EndedOrSettled { at: Some(at) } => write!(
                f,
                "settled before its lease ended at {at}, or since then by a later delivery; {TOO_LATE}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::{LeaseId, StreamId, SubscriptionId};

    const END: Timestamp = Timestamp(1_764_273_407_000_000);

    fn handler(stream: i64, subscription: i64, lease: LeaseId) -> Handler {
        let key = SubscriptionKey { stream: StreamId(stream), subscription: SubscriptionId(subscription) };
        Handler { key, lease, offset: 0, batch_len: 1 }
    }

    #[test]
    fn a_lease_that_is_gone_was_settled_if_it_would_still_last() {
        let gone = |lease, now| HandlerFault::Gone.by_lease_id(handler(1, 1, lease), now);
        let lease = LeaseId::ending(END);
        let second = Duration::from_secs(1);
        assert_eq!(gone(lease, END.minus(second)), HandlerFault::Settled);
        assert_eq!(gone(lease, END.plus(second)), HandlerFault::EndedOrSettled { at: Some(END) });
        assert_eq!(gone(LeaseId(Uuid::new_v4()), END), HandlerFault::EndedOrSettled { at: None });
        let ended = HandlerFault::LeaseEnded { at: END };
        assert_eq!(ended.by_lease_id(handler(1, 1, lease), END.minus(second)), ended, "the row knows better");
    }

    #[test]
    fn a_handler_of_somebody_else_is_told_whose() {
        let named = handler(1, 1, LeaseId(Uuid::nil())).key;
        let of = |stream, subscription| Foreign::of(handler(stream, subscription, LeaseId(Uuid::nil())), named);
        assert_eq!([of(2, 1), of(1, 2), of(2, 2)], [Foreign::Source, Foreign::Group, Foreign::Queue]);
    }

    #[test]
    fn each_cause_names_its_entry_and_what_to_do() {
        for (fault, words) in [
            (HandlerFault::Unparsable, "unparsable; give a handler exactly as it came"),
            (HandlerFault::NamedBefore { entry: 1 }, "the entry with index 1 names it too"),
            (HandlerFault::LeaseEnded { at: END }, "its lease ended at 2025-11-27T19:56:47Z"),
            (HandlerFault::LeaseEnded { at: END }, "ask for a longer lease (ack_wait in REST, at most 300 s)"),
            (HandlerFault::Settled, "settled before"),
            (HandlerFault::EndedOrSettled { at: Some(END) }, "its lease ended at 2025-11-27T19:56:47Z"),
        ] {
            let error = fault.error(2);
            assert_eq!((error.kind(), error.field_name()), (ErrorKind::HandlerInvalid, Some("entries[2].handler")));
            assert!(error.message().starts_with("entries[2].handler: ") && error.message().contains(words), "{error}");
        }
        assert_eq!(HandlerFault::Foreign(Foreign::Group).error(0).kind(), ErrorKind::HandlerMismatch);
    }
}
