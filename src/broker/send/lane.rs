//! The append lane: commits sends.
//!
//! A small flush is one statement, answered when its commit is on disk. A large one is committed before it is on disk, and a
//! second commit that waits for the disk confirms it, while the next one is already on its way to Postgres on another
//! connection. Both commits of a flush use one connection: it would not be there any more, had Postgres crashed in between.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::AppendRequest;
use super::appender::{Appender, SetApart, failed};
use super::flush::Flush;
use crate::broker::batching::apart::Apart;
use crate::broker::batching::flush_cycle::FlushCycle;
use crate::broker::batching::lane::LaneQueue;
use crate::broker::core::Core;
use crate::broker::send::row_locations::RowLocations;
use crate::observe::metrics::Lane;
use crate::store::session::connection::{Durability, LaneConnection};

const NAME: &str = "dms-append";
/// A flush of fewer bytes is on disk before a second commit is worth it, and what arrives meanwhile makes the next one larger.
const OVERLAP_BYTES_MIN: usize = 192 * 1024;
/// Flushes in flight: one on its way to Postgres, one on its way to the disk.
const OVERLAP_CONNECTIONS: usize = 2;

/// Commits sends until the lane is closed and empty.
pub(crate) async fn run(
    core: Arc<Core>,
    queue: Arc<LaneQueue<AppendRequest>>,
    apart: Arc<Apart<SetApart>>,
    durability: Durability,
) {
    let mut lane = AppendLane {
        direct: LaneConnection::new(&core.store, NAME, durability),
        overlapping: (0..OVERLAP_CONNECTIONS).map(|_| overlapping(&core)).collect(),
        confirming: JoinSet::new(),
        appender: Appender { core, apart, row_locations: RowLocations::default() },
    };
    while let Some(requests) = queue.next().await {
        let callers = || requests.iter().map(|request| &request.caller);
        let cycle = FlushCycle::begin(Lane::Append, requests.len(), callers());
        cycle.serves(callers());
        lane.serve(requests, durability).instrument(cycle.span()).await;
        cycle.end();
    }
    lane.close().await;
}

fn overlapping(core: &Core) -> LaneConnection {
    LaneConnection::new(&core.store, NAME, Durability::Asynchronous)
}

struct AppendLane {
    /// Its commits are as durable as the lane is.
    direct: LaneConnection,
    /// Their commits have to be confirmed; those not in use.
    overlapping: Vec<LaneConnection>,
    confirming: JoinSet<LaneConnection>,
    appender: Appender,
}

impl AppendLane {
    async fn serve(&mut self, requests: Vec<AppendRequest>, durability: Durability) {
        let (begun, calls) = (Instant::now(), requests.len());
        let mut flush = Flush::new(requests, self.appender.core.cache.epoch());
        self.appender.divert(&mut flush);
        if flush.is_empty() {
            return;
        }
        let bytes = flush.size_bytes();
        let overlap = durability == Durability::Synchronous && bytes >= OVERLAP_BYTES_MIN;
        // Delayed messages are a transaction of several statements, which is committed as it should be.
        if overlap && !flush.has_delayed() {
            self.commit_and_confirm(flush).await;
        } else {
            self.commit(flush).await;
        }
        self.appender.core.metrics.lanes().flushed(Lane::Append, calls, bytes, begun.elapsed());
    }

    async fn commit(&mut self, mut flush: Flush) {
        let stored = self.appender.commit(&mut self.direct, &mut flush).await;
        flush.answer(&self.appender.core, stored);
    }

    /// Commits, and leaves it to a task of its own to wait for the disk and to answer.
    async fn commit_and_confirm(&mut self, mut flush: Flush) {
        let mut connection = match self.overlapping.pop() {
            Some(connection) => connection,
            None => self.confirmed().await,
        };
        let core = Arc::clone(&self.appender.core);
        let session = match connection.open().await {
            Ok(_) => connection.session(),
            Err(error) => {
                let stored = failed(flush.streams(), &error);
                flush.answer(&core, stored);
                return self.overlapping.push(connection);
            }
        };
        let stored = self.appender.commit(&mut connection, &mut flush).await;
        let confirming = async move {
            let stored = match connection.confirm(session).await {
                Ok(()) => stored,
                Err(error) => failed(flush.streams(), &error),
            };
            flush.answer(&core, stored);
            connection
        };
        self.confirming.spawn(confirming.in_current_span());
    }

    /// A connection whose flush is answered.
    async fn confirmed(&mut self) -> LaneConnection {
        match self.confirming.join_next().await {
            Some(Ok(connection)) => connection,
            _ => overlapping(&self.appender.core),
        }
    }

    async fn close(mut self) {
        while let Some(confirmed) = self.confirming.join_next().await {
            self.overlapping.extend(confirmed.ok());
        }
        for connection in self.overlapping.into_iter().chain([self.direct]) {
            connection.close().await;
        }
    }
}
