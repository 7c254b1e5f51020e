//! Clients of the peers: a connection to Postgres each, and no service in between.

use bytes::Bytes;
use tonic::Status;

use super::{Delivered, Receipt, Topic};
use crate::bench::consumer::LEASE;
use crate::sql::Error;
use crate::sql::baselines::Peer;

/// Connects with the first call, and again after an error.
#[derive(Debug)]
struct Connector {
    database_url: String,
    peer: Option<Peer>,
}

impl Connector {
    async fn open(&mut self) -> Result<&mut Peer, Status> {
        if self.peer.is_none() {
            self.peer = Some(Peer::connect(&self.database_url).await.map_err(failed)?);
        }
        self.peer.as_mut().ok_or_else(|| Status::unavailable("no connection"))
    }

    /// The answer of a call. Whether the connection is good after an error is not known.
    fn judge<T>(&mut self, answer: Result<T, Error>) -> Result<T, Status> {
        if answer.is_err() {
            self.peer = None;
        }
        answer.map_err(failed)
    }
}

fn failed(error: Error) -> Status {
    Status::unknown(error.to_string())
}

/// Of pgmq.
#[derive(Debug)]
pub(crate) struct PgmqClient(Connector);

impl PgmqClient {
    /// A client of the pgmq in this database.
    pub(crate) fn new(database_url: String) -> Self {
        Self(Connector { database_url, peer: None })
    }

    pub(super) async fn send(&mut self, topic: &Topic, bodies: Vec<Bytes>) -> Result<(), Status> {
        let answer = self.0.open().await?.send_pgmq(&topic.queue_id, bodies).await;
        self.0.judge(answer)
    }

    pub(super) async fn consume(&mut self, topic: &Topic, max: u32) -> Result<Vec<Delivered>, Status> {
        let seconds = i32::try_from(LEASE.as_secs()).unwrap_or(i32::MAX);
        let answer = self.0.open().await?.read_pgmq(&topic.queue_id, seconds, max.cast_signed()).await;
        let rows = self.0.judge(answer)?;
        if rows.is_empty() {
            // pgmq polls too; at the end of a backlog this keeps idle readers from costing anything.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(rows.into_iter().map(|(id, body)| Delivered { body, receipt: Receipt::Id(id) }).collect())
    }

    pub(super) async fn ack(&mut self, topic: &Topic, receipts: &[Receipt]) -> Result<Vec<bool>, Status> {
        let id = |receipt: &Receipt| match receipt {
            Receipt::Id(id) => *id,
            Receipt::Handler(_) => -1,
        };
        let ids: Vec<i64> = receipts.iter().map(id).collect();
        let answer = self.0.open().await?.delete_pgmq(&topic.queue_id, &ids).await;
        let deleted = self.0.judge(answer)?;
        Ok(ids.iter().map(|id| deleted.contains(id)).collect())
    }
}

/// Of a plain table.
#[derive(Debug)]
pub(crate) struct RawClient {
    connector: Connector,
    next_offset: i64,
}

impl RawClient {
    /// A client that writes to a range of keys of its own.
    pub(crate) fn new(database_url: String, index: u32) -> Self {
        Self { connector: Connector { database_url, peer: None }, next_offset: i64::from(index) << 40 }
    }

    pub(super) async fn send(&mut self, bodies: Vec<Bytes>) -> Result<(), Status> {
        let first = self.next_offset;
        self.next_offset += i64::try_from(bodies.len()).unwrap_or(i64::MAX);
        let answer = self.connector.open().await?.insert_raw(first, &bodies).await;
        self.connector.judge(answer)
    }
}
