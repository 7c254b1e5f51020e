//! The transaction that settles deliveries one by one: what was not a whole batch acknowledged with success.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::BytesMut;
use sqlx::{Connection, PgConnection};

use super::leases::{self, LeaseKey};
use super::retries;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{LeaseId, StreamId, SubscriptionKey};
use crate::domain::lease::{Lease, MessageRef};
use crate::domain::message::{self, DeadLetterOrigin, DeadLetterReason, Message};
use crate::store::log::partitions::with_partitions;
use crate::store::log::segments::{self, Append, Segment, SegmentKey};
use crate::store::log::{codec, held_segments};
use crate::store::metadata::groups::{self, SubscriptionPolicy};
use crate::store::subscriptions;

/// Bytes of segments read by one statement in search of them.
const READ_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A message that has failed for the last time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadMessage {
    /// The subscription that gives it up.
    pub key: SubscriptionKey,
    /// The message in the subscription's stream.
    pub message: MessageRef,
    /// Why.
    pub reason: DeadLetterReason,
    /// The policy of the subscription.
    pub policy: SubscriptionPolicy,
    /// Where it goes.
    pub to: StreamId,
}

/// What to write.
#[derive(Debug, Default)]
pub(crate) struct Settlement {
    /// Leases that changed, with what is left of them.
    pub leases: Vec<Lease>,
    /// Messages that are redelivered.
    pub retries: Vec<(SubscriptionKey, MessageRef)>,
    /// Messages that become dead letters.
    pub dead: Vec<DeadMessage>,
    /// Messages that left because they have expired.
    pub expired: Vec<SubscriptionKey>,
}

/// What was written.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Subscriptions whose batch in flight has ended, wholly or in part.
    pub changed: BTreeSet<SubscriptionKey>,
    /// Leases that are gone.
    pub ended: Vec<LeaseId>,
    /// Dead letters, appended.
    pub dead_letters: Vec<Segment>,
    /// Messages that should have become dead letters and could not be read.
    pub lost: usize,
}

/// Locks subscriptions and leases, lets `decide` say what becomes of them, and writes that, all or nothing. Leases and subscriptions
/// that are gone are missing in what `decide` sees. `cached` may have the messages that become dead letters; the others are read
/// while nothing is locked, and everything is decided anew then. `None`, and nothing is written, when they have more than
/// `dying_bytes_max`: the caller settles fewer deliveries at once.
pub(crate) async fn settle<T>(
    conn: &mut PgConnection,
    keys: &[LeaseKey],
    now: Timestamp,
    decide: impl Fn(Vec<Lease>, &[SubscriptionPolicy]) -> (Settlement, T),
    cached: impl Fn(StreamId, MessageRef) -> Option<Message>,
    dying_bytes_max: usize,
) -> sqlx::Result<Option<(Settled, T)>> {
    with_partitions!(conn, now, try_settle(conn, keys, now, &decide, &cached, dying_bytes_max))
}

async fn try_settle<T>(
    conn: &mut PgConnection,
    keys: &[LeaseKey],
    now: Timestamp,
    decide: impl Fn(Vec<Lease>, &[SubscriptionPolicy]) -> (Settlement, T),
    cached: impl Fn(StreamId, MessageRef) -> Option<Message>,
    dying_bytes_max: usize,
) -> sqlx::Result<Option<(Settled, T)>> {
    let subscriptions: BTreeSet<SubscriptionKey> = keys.iter().map(|lease| lease.subscription).collect();
    let mut dying = DyingMessages::default();
    loop {
        let mut tx = conn.begin().await?;
        subscriptions::lock(&mut tx, &subscriptions.iter().copied().collect::<Vec<_>>()).await?;
        let policies =
            groups::policies(&mut tx, &subscriptions.iter().map(|key| key.subscription).collect::<Vec<_>>()).await?;
        let (settlement, outcome) = decide(leases::lock(&mut tx, keys).await?, &policies);
        dying.take_cached(&settlement.dead, &cached);
        let unread = dying.unread(&settlement.dead);
        if unread.is_empty() && dying.bytes <= dying_bytes_max {
            let settled = write(&mut tx, settlement, now, dying).await?;
            tx.commit().await?;
            return Ok(Some((settled, outcome)));
        }
        tx.rollback().await?;
        dying.read(conn, unread, dying_bytes_max).await?;
        if dying.bytes > dying_bytes_max {
            return Ok(None);
        }
    }
}

/// Writes what was decided.
async fn write(
    tx: &mut PgConnection,
    settlement: Settlement,
    now: Timestamp,
    dying: DyingMessages,
) -> sqlx::Result<Settled> {
    leases::write_back(tx, &settlement.leases.iter().collect::<Vec<_>>()).await?;
    if !settlement.retries.is_empty() {
        retries::insert(tx, &settlement.retries).await?;
    }
    let mut skipped: BTreeMap<SubscriptionKey, i64> = BTreeMap::new();
    for key in settlement.expired.iter().copied().chain(settlement.dead.iter().map(|dead| dead.key)) {
        *skipped.entry(key).or_default() += 1;
    }
    for (key, count) in skipped {
        subscriptions::add_skipped(tx, key, count).await?;
    }
    let (dead_letters, lost) = move_dead(tx, &settlement.dead, now, dying).await?;
    let ended = settlement.leases.iter().filter(|lease| lease.messages.is_empty()).map(|lease| lease.id).collect();
    let changed = settlement.leases.iter().map(|lease| lease.key).collect();
    Ok(Settled { changed, ended, dead_letters, lost })
}

/// The messages that are about to become dead letters, copied out of their segments; `None` for one that cannot be read.
#[derive(Debug, Default)]
struct DyingMessages {
    messages: BTreeMap<(StreamId, i64), Option<Message>>,
    bytes: usize,
}

impl DyingMessages {
    fn take_cached(&mut self, dead: &[DeadMessage], cached: impl Fn(StreamId, MessageRef) -> Option<Message>) {
        for DeadMessage { key, message, .. } in dead {
            if !self.messages.contains_key(&(key.stream, message.offset))
                && let Some(body) = cached(key.stream, *message)
            {
                self.add(key.stream, message.offset, Some(body));
            }
        }
    }

    fn add(&mut self, stream: StreamId, offset: i64, message: Option<Message>) {
        let message = message.map(|mut message| {
            message::detach(&mut [&mut message]);
            message
        });
        self.bytes += message.as_ref().map_or(0, Message::size_bytes);
        self.messages.insert((stream, offset), message);
    }

    /// Those that nobody has looked for yet.
    fn unread(&self, dead: &[DeadMessage]) -> Vec<(StreamId, MessageRef)> {
        let unread = dead.iter().map(|dead| (dead.key.stream, dead.message));
        unread.filter(|(stream, message)| !self.messages.contains_key(&(*stream, message.offset))).collect()
    }

    /// Reads messages, some thousand or some megabytes in a statement, until there are too many of them.
    async fn read(
        &mut self,
        conn: &mut PgConnection,
        mut unread: Vec<(StreamId, MessageRef)>,
        bytes_max: usize,
    ) -> sqlx::Result<()> {
        while !unread.is_empty() && self.bytes <= bytes_max {
            let held = held_segments::read_holding(conn, &unread, READ_BYTES_MAX).await?;
            let (later, found): (Vec<_>, Vec<_>) = unread.into_iter().partition(|(stream, message)| {
                held.find(*stream, *message).is_none() && held.has_deferred(*stream, *message)
            });
            for (stream, message) in found {
                let body = held.find(stream, message).and_then(|segment| segment.message(message.offset).cloned());
                self.add(stream, message.offset, body);
            }
            unread = later;
        }
        Ok(())
    }
}

/// Copies messages into dead-letter streams, so that they outlive the original's retention. Returns how many cannot be read, too.
async fn move_dead(
    conn: &mut PgConnection,
    dead: &[DeadMessage],
    now: Timestamp,
    dying: DyingMessages,
) -> sqlx::Result<(Vec<Segment>, usize)> {
    let mut by_stream: BTreeMap<StreamId, VecDeque<Message>> = BTreeMap::new();
    let mut lost = 0;
    for dead in dead {
        let (stream, offset) = (dead.key.stream, dead.message.offset);
        match dying.messages.get(&(stream, offset)).cloned().flatten() {
            Some(message) => by_stream.entry(dead.to).or_default().push_back(as_dead_letter(message, dead)),
            None => {
                lost += 1;
                tracing::error!(stream = stream.0, offset, "dead letter lost: its message cannot be read");
            }
        }
    }
    Ok((append_all(conn, by_stream, now).await?, lost))
}

fn as_dead_letter(message: Message, dead: &DeadMessage) -> Message {
    let origin = DeadLetterOrigin {
        reason: dead.reason,
        attempts: dead.message.attempts,
        queue: dead.policy.queue,
        offset: dead.message.offset,
        appended_at: dead.message.appended_at,
    };
    Message { dead_letter: Some(origin), ..message }
}

async fn append_all(
    conn: &mut PgConnection,
    mut by_stream: BTreeMap<StreamId, VecDeque<Message>>,
    now: Timestamp,
) -> sqlx::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    while !by_stream.is_empty() {
        let appends: Vec<Append> =
            by_stream.iter_mut().map(|(stream, messages)| take_segment(*stream, messages)).collect();
        by_stream.retain(|_, messages| !messages.is_empty());
        let appended = segments::append_within(conn, &appends, now).await?;
        let segment = |key: SegmentKey| {
            let append = appends.iter().find(|append| append.stream == key.stream_id)?;
            Some(Segment::decode(key, append.message_count, codec::CODEC_PLAIN, append.payload.clone()))
        };
        segments.extend(appended.into_iter().filter_map(|result| segment(result.segment)));
    }
    Ok(segments)
}

/// As many of the first messages as one segment should hold.
fn take_segment(stream: StreamId, messages: &mut VecDeque<Message>) -> Append {
    let bytes_max = usize::try_from(segments::BYTES_MAX).unwrap_or(usize::MAX);
    let (mut payload, mut message_count) = (BytesMut::new(), 0);
    while let Some(message) =
        messages.pop_front_if(|message| message_count == 0 || payload.len() + message.size_bytes() <= bytes_max)
    {
        codec::encode(&message, &mut payload);
        message_count += 1;
    }
    Append { stream, message_count, payload: payload.freeze() }
}
