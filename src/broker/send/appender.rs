//! Writes a flush to the log: all of it in a statement or two, and when that fails, what can be written without the streams that
//! it has failed for.

use std::sync::Arc;

use super::flush::{Flush, FlushResults, StreamFlush};
use crate::broker::batching::apart::{Apart, ApartWork, Attempt};
use crate::broker::batching::isolation::{self, Failed, Parts};
use crate::broker::core::Core;
use crate::broker::send::row_locations::RowLocations;
use crate::domain::clock::Timestamp;
use crate::domain::ids::StreamId;
use crate::domain::{Error, Result};
use crate::store::log::delayed;
use crate::store::log::segments::{self, AppendResult};
use crate::store::session::connection::{Failure, FlushError, LaneConnection, try_flush};
use crate::store::subscriptions::locks;

/// The same error for all.
pub(super) fn failed(streams: impl IntoIterator<Item = StreamId>, error: &Error) -> FlushResults {
    streams.into_iter().map(|stream| (stream, Err(error.clone()))).collect()
}

/// Writes to the log.
pub(super) struct Appender {
    pub core: Arc<Core>,
    /// Where streams go that cannot be served with the others.
    pub apart: Arc<Apart<SetApart>>,
    pub row_locations: RowLocations,
}

impl Appender {
    /// Leaves out what goes to streams that are served apart.
    pub(super) fn divert(&self, flush: &mut Flush) {
        if self.apart.is_empty() {
            return;
        }
        let apart: Vec<StreamId> = flush.streams().filter(|stream| self.apart.has(*stream)).collect();
        apart.into_iter().for_each(|stream| self.set_apart(flush, stream));
    }

    fn set_apart(&self, flush: &mut Flush, stream: StreamId) {
        if let Some(work) = flush.take(stream) {
            self.apart.add(stream, SetApart { stream, flush: work });
        }
    }

    /// Commits a flush. What cannot be committed for now is taken out of it.
    pub(super) async fn commit(&mut self, connection: &mut LaneConnection, flush: &mut Flush) -> FlushResults {
        let now = self.core.clock.now();
        if let Err(error) = self.core.ensure_partitions(now).await {
            return failed(flush.streams(), &error);
        }
        let limit = self.core.settings.statement_timeout;
        let mut appending = Appending { appender: self, connection, flush, now, results: FlushResults::new() };
        if let Err(failed) = appending.all().await {
            isolation::isolate(&mut appending, failed, limit).await;
        }
        appending.results
    }
}

/// One flush on its way.
struct Appending<'a> {
    appender: &'a mut Appender,
    connection: &'a mut LaneConnection,
    flush: &'a mut Flush,
    now: Timestamp,
    results: FlushResults,
}

impl Appending<'_> {
    async fn all(&mut self) -> Result<(), Failed<StreamId>> {
        let streams = self.flush.streams().collect();
        if self.flush.has_delayed() { self.attempt(streams).await } else { self.append(streams).await }
    }

    /// Appends where the rows of the streams were last seen, then by key to those whose rows are elsewhere: each a statement
    /// and a transaction of its own, so that row locks are taken in order.
    async fn append(&mut self, streams: Vec<StreamId>) -> Result<(), Failed<StreamId>> {
        let now = self.now;
        let ((known, locations), rest) = self.appender.row_locations.split(self.flush.appends(&streams));
        let mut rest: Vec<StreamId> = rest.into_iter().map(|append| append.stream).collect();
        if !known.is_empty() {
            match try_flush!(self.connection, conn => segments::append_at(conn, &known, &locations, now)) {
                Ok(results) => self.add(results),
                Err(error) => return Err((streams, error)),
            }
            let moved = known.iter().map(|append| append.stream);
            rest.extend(moved.filter(|stream| !self.results.contains_key(stream)));
        }
        if rest.is_empty() { Ok(()) } else { self.attempt(rest).await }
    }

    fn add(&mut self, results: Vec<AppendResult>) {
        for result in results {
            self.appender.row_locations.remember(&result);
            self.results.insert(result.segment.stream_id, Ok(Some(result.segment)));
        }
    }
}

impl Parts for Appending<'_> {
    type Item = StreamId;

    async fn attempt(&mut self, part: Vec<StreamId>) -> Result<(), Failed<StreamId>> {
        match append(self.connection, self.flush, &part, self.now).await {
            Ok(present) => {
                for (stream, result) in present {
                    self.results.insert(stream, Ok(result.map(|result| result.segment)));
                    result.iter().for_each(|result| self.appender.row_locations.remember(result));
                }
                Ok(())
            }
            Err(error) => Err((part, error)),
        }
    }

    async fn split_locked(&mut self, part: Vec<StreamId>) -> (Vec<StreamId>, Vec<StreamId>) {
        let locked = try_flush!(self.connection, conn => locks::streams(conn, &part)).unwrap_or_default();
        part.into_iter().partition(|stream| locked.contains(stream))
    }

    fn refused(&mut self, stream: StreamId, error: Error) {
        self.appender.apart.failed(stream);
        self.results.insert(stream, Err(error));
    }

    fn set_apart(&mut self, stream: StreamId) {
        self.appender.apart.failed(stream);
        self.appender.set_apart(self.flush, stream);
    }

    fn lost(&mut self, streams: Vec<StreamId>, error: Error) {
        self.results.extend(failed(streams, &error));
    }
}

/// Appends to some streams of a flush by key, and stores what is hidden for a while, in one transaction: the results of
/// the appends to those that exist.
async fn append(
    connection: &mut LaneConnection,
    flush: &Flush,
    streams: &[StreamId],
    now: Timestamp,
) -> Result<Vec<(StreamId, Option<AppendResult>)>, FlushError> {
    let (appends, delayed) = (flush.appends(streams), flush.delayed(streams));
    if delayed.is_empty() {
        let results = try_flush!(connection, conn => segments::append(conn, &appends, now))?;
        return Ok(results.into_iter().map(|result| (result.segment.stream_id, Some(result))).collect());
    }
    try_flush!(connection, conn => delayed::append_and_delay(conn, streams, &appends, &delayed, now))
}

/// Sends to one stream that cannot be served with others.
pub(crate) struct SetApart {
    stream: StreamId,
    flush: StreamFlush,
}

impl ApartWork for SetApart {
    type Key = StreamId;

    fn bytes(&self) -> usize {
        self.flush.bytes()
    }

    fn is_abandoned(&self) -> bool {
        self.flush.is_abandoned()
    }

    fn refuse(self, error: &Error) {
        self.flush.refuse(error);
    }

    async fn attempt(self, core: &Core, connection: &mut LaneConnection, in_line: bool) -> Attempt<Self> {
        let Self { stream, flush } = self;
        if !in_line {
            let locked = try_flush!(connection, conn => locks::streams(conn, &[stream]));
            if locked.is_ok_and(|locked| !locked.is_empty()) {
                return Attempt::Locked(Self { stream, flush });
            }
        }
        let now = core.clock.now();
        let mut flush = Flush::of(stream, flush, core.cache.epoch());
        let appended = match core.ensure_partitions(now).await {
            Ok(()) => append(connection, &flush, &[stream], now).await,
            Err(error) => Err(FlushError { failure: Failure::Lost, error }),
        };
        match appended {
            Ok(present) => {
                let results =
                    present.into_iter().map(|(stream, result)| (stream, Ok(result.map(|result| result.segment))));
                flush.answer(core, results.collect());
                Attempt::Done
            }
            Err(FlushError { failure: Failure::Locked, .. }) => match flush.take(stream) {
                Some(flush) => Attempt::Locked(Self { stream, flush }),
                None => Attempt::Done,
            },
            Err(FlushError { failure, error }) => {
                flush.answer(core, failed([stream], &error));
                if failure == Failure::Refused { Attempt::Refused } else { Attempt::Done }
            }
        }
    }
}
