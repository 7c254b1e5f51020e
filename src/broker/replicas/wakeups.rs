//! What replicas tell each other, so that a consumer parked on one hears of what happened on another.
//!
//! Sent on a connection of its own, many wake-ups in one NOTIFY, never inside the transaction they tell of: NOTIFY makes
//! commits wait for each other. A wake-up that is lost costs a consumer at most the next refresh.
//!
//! Each wake-up names what it is about, and has only that looked after. A deletion is told twice: as a change of the streams whose
//! subscriptions are gone, and as one of the queue for the catalog. Versions that took the latter for a change of everything still
//! hear all they need, and what they tell of themselves is understood (`Core::apply`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::broker::core::Core;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{QueueId, StreamId};
use crate::store::session::connection::{Durability, LaneConnection, flush};
use crate::store::session::notifications::{self, Listener};

/// Time between two NOTIFYs: many appends share one.
const INTERVAL: Duration = Duration::from_millis(5);
/// Postgres allows 8000 bytes.
const PAYLOAD_BYTES_MAX: usize = 7000;
const RETRY: Duration = Duration::from_secs(1);

/// One thing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wakeup {
    /// A stream has grown to this offset.
    Appended(StreamId, i64),
    /// A subscription of the stream has messages to be redelivered, its batch in flight has ended, or it is gone.
    Changed(StreamId),
    /// What is known of a queue does not hold: it or one of its groups is gone.
    Deleted(QueueId),
    /// A message was stored whose delay ends then.
    Delayed(Timestamp),
}

#[derive(Debug, Default)]
struct Pending {
    appended: BTreeMap<StreamId, i64>,
    changed: BTreeSet<StreamId>,
    deleted: BTreeSet<QueueId>,
    delayed: Option<Timestamp>,
}

/// Wake-ups on their way out, at most one per stream.
#[derive(Debug, Default)]
pub(crate) struct NotifyBuffer {
    pending: Mutex<Pending>,
    arrived: Notify,
}

impl NotifyBuffer {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a wake-up for the other replicas.
    pub(crate) fn push(&self, wakeup: Wakeup) {
        let mut pending = self.lock();
        match wakeup {
            Wakeup::Appended(stream, tail) => {
                let known = pending.appended.entry(stream).or_default();
                *known = tail.max(*known);
            }
            Wakeup::Changed(stream) => drop(pending.changed.insert(stream)),
            Wakeup::Deleted(queue) => drop(pending.deleted.insert(queue)),
            Wakeup::Delayed(due) => pending.delayed = Some(pending.delayed.map_or(due, |known| known.min(due))),
        }
        drop(pending);
        self.arrived.notify_one();
    }

    fn take(&self) -> Vec<Wakeup> {
        let pending = std::mem::take(&mut *self.lock());
        let appended = pending.appended.into_iter().map(|(stream, tail)| Wakeup::Appended(stream, tail));
        let changed = pending.changed.into_iter().map(Wakeup::Changed);
        let delayed = pending.delayed.into_iter().map(Wakeup::Delayed);
        appended.chain(changed).chain(pending.deleted.into_iter().map(Wakeup::Deleted)).chain(delayed).collect()
    }
}

fn format(wakeup: &Wakeup) -> String {
    match wakeup {
        Wakeup::Appended(stream, tail) => format!(" a{}:{tail}", stream.0),
        Wakeup::Changed(stream) => format!(" c{}", stream.0),
        Wakeup::Deleted(queue) => format!(" d{queue}"),
        Wakeup::Delayed(due) => format!(" t{}", due.0),
    }
}

/// Texts of at most [`PAYLOAD_BYTES_MAX`] that begin with the sender.
fn payloads(sender: Uuid, wakeups: &[Wakeup]) -> Vec<String> {
    let mut payloads: Vec<String> = Vec::new();
    for word in wakeups.iter().map(format) {
        match payloads.last_mut() {
            Some(last) if last.len() + word.len() <= PAYLOAD_BYTES_MAX => last.push_str(&word),
            _ => payloads.push(format!("{sender}{word}")),
        }
    }
    payloads
}

/// Reads a payload; words of a newer version are passed over.
fn parse(payload: &str) -> (Option<Uuid>, Vec<Wakeup>) {
    let mut words = payload.split(' ');
    let sender = words.next().and_then(|word| Uuid::try_parse(word).ok());
    (sender, words.filter_map(parse_word).collect())
}

fn parse_word(word: &str) -> Option<Wakeup> {
    let rest = word.get(1..)?;
    match word.as_bytes().first()? {
        b'a' => {
            let (stream, tail) = rest.split_once(':')?;
            Some(Wakeup::Appended(StreamId(stream.parse().ok()?), tail.parse().ok()?))
        }
        b'c' => Some(Wakeup::Changed(StreamId(rest.parse().ok()?))),
        b'd' => Some(Wakeup::Deleted(QueueId(Uuid::try_parse(rest).ok()?))),
        b't' => Some(Wakeup::Delayed(Timestamp(rest.parse().ok()?))),
        _ => None,
    }
}

/// Sends what is in the notify_buffer until the service stops.
pub(crate) async fn send_loop(core: Arc<Core>) {
    let mut connection = LaneConnection::new(&core.store, "dms-notify", Durability::Asynchronous);
    while core.until_stopped(core.notify_buffer.arrived.notified()).await.is_some() {
        for payload in payloads(core.replica, &core.notify_buffer.take()) {
            while let Err(error) = flush!(connection, conn => notifications::notify(conn, &payload)) {
                tracing::debug!(%error, "wake-up not sent");
                if core.until_stopped(tokio::time::sleep(RETRY)).await.is_none() {
                    return;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
    // What was answered last is told too.
    for payload in payloads(core.replica, &core.notify_buffer.take()) {
        if let Err(error) = flush!(connection, conn => notifications::notify(conn, &payload)) {
            tracing::debug!(%error, "wake-up not sent");
            break;
        }
    }
    connection.close().await;
}

/// Receives the wake-ups of other replicas until the service stops. While the connection is down, and when it is back, what is
/// known of queues is forgotten and every parked consumer is looked after again.
pub(crate) async fn receive_loop(core: Arc<Core>, mut listener: Listener) {
    while core.until_stopped(receive(&core, listener)).await.is_some() {
        core.missed_wakeups();
        let Some(connected) = core.until_stopped(connect_again(&core)).await else { return };
        listener = connected;
        core.missed_wakeups();
    }
}

async fn connect_again(core: &Core) -> Listener {
    loop {
        tokio::time::sleep(RETRY).await;
        match Listener::connect(&core.store).await {
            Ok(listener) => return listener,
            Err(error) => tracing::warn!(%error, "cannot listen for wake-ups of other replicas"),
        }
        core.missed_wakeups();
    }
}

async fn receive(core: &Core, mut listener: Listener) {
    loop {
        match listener.next().await {
            Ok(Some(payload)) => {
                let (sender, wakeups) = parse(&payload);
                if sender != Some(core.replica) {
                    wakeups.into_iter().for_each(|wakeup| core.apply(wakeup));
                }
            }
            Ok(None) => core.missed_wakeups(),
            Err(error) => {
                tracing::warn!(%error, "stopped hearing wake-ups of other replicas");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back_as_they_were() {
        let queue = QueueId(Uuid::from_u128(9));
        let sent = [
            Wakeup::Appended(StreamId(1), 20),
            Wakeup::Changed(StreamId(-3)),
            Wakeup::Deleted(queue),
            Wakeup::Delayed(Timestamp(77)),
        ];
        let sender = Uuid::from_u128(1);
        let [payload] = &payloads(sender, &sent)[..] else { panic!("one payload") };
        assert_eq!(parse(payload), (Some(sender), sent.to_vec()));
    }

    #[test]
    fn many_wakeups_are_split() {
        let sent: Vec<Wakeup> = (0..2000).map(|id| Wakeup::Changed(StreamId(id))).collect();
        let payloads = payloads(Uuid::nil(), &sent);
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES_MAX));
        let back: Vec<Wakeup> = payloads.iter().flat_map(|payload| parse(payload).1).collect();
        assert_eq!(back, sent);
    }

    #[test]
    fn foreign_payloads_are_harmless() {
        for payload in ["", "x", "x a c d", "x a1 a1: a:1 é", " a99999999999999999999:1"] {
            assert_eq!(parse(payload), (None, vec![]), "{payload}");
        }
    }
}
