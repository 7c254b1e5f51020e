//! What the benchmark is measured against, in plain SQL on the same Postgres: the fastest inserts there are, and pgmq. The
//! service never uses it.

use bytes::Bytes;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Decode, Encode, PgConnection, Postgres, Type};

use super::connect_options;

/// JSON text as a `jsonb` parameter or column, in the binary form that drivers use: a version byte, then the text.
struct Jsonb(Bytes);

impl Type<Postgres> for Jsonb {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(3802))
    }
}

impl PgHasArrayType for Jsonb {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(3807))
    }
}

impl Encode<'_, Postgres> for Jsonb {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> std::result::Result<IsNull, BoxDynError> {
        buffer.push(1);
        buffer.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }
}

impl<'r> Decode<'r, Postgres> for Jsonb {
    fn decode(value: PgValueRef<'r>) -> std::result::Result<Self, BoxDynError> {
        let format = value.format();
        let bytes = value.as_bytes()?;
        let text = if format == PgValueFormat::Binary { bytes.get(1..).unwrap_or_default() } else { bytes };
        Ok(Self(Bytes::copy_from_slice(text)))
    }
}

/// One connection to a peer.
#[derive(Debug)]
pub struct Peer {
    connection: PgConnection,
}

const INSERT_RAW: &str = "
INSERT INTO bench_raw (stream_id, base_offset, appended_at, message_count, codec, payload)
SELECT 1, o, now(), 1, 0, p FROM unnest($1::bigint[], $2::bytea[]) AS m (o, p)";

impl Peer {
    /// Connects.
    pub async fn connect(database_url: &str) -> sqlx::Result<Self> {
        Ok(Self { connection: connect_options(database_url)?.connect().await? })
    }

    /// Makes a table with the columns of `segments`, empty and without an index.
    pub async fn create_raw(&mut self) -> sqlx::Result<()> {
        self.drop_raw().await?;
        self.run("CREATE TABLE bench_raw (LIKE segments INCLUDING STORAGE INCLUDING CONSTRAINTS)".to_owned()).await
    }

    /// Drops it.
    pub async fn drop_raw(&mut self) -> sqlx::Result<()> {
        self.run("DROP TABLE IF EXISTS bench_raw".to_owned()).await
    }

    /// Inserts one row a body in one transaction.
    pub async fn insert_raw(&mut self, first_offset: i64, bodies: &[Bytes]) -> sqlx::Result<()> {
        let offsets: Vec<i64> = (first_offset..).take(bodies.len()).collect();
        let payloads: Vec<&[u8]> = bodies.iter().map(Bytes::as_ref).collect();
        sqlx::query(INSERT_RAW).bind(offsets).bind(payloads).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Loads pgmq's own SQL, unless it is there.
    pub async fn install_pgmq(&mut self, sql: &str) -> sqlx::Result<()> {
        let there: bool =
            sqlx::query_scalar("SELECT to_regproc('pgmq.create') IS NOT NULL").fetch_one(&mut self.connection).await?;
        if there {
            return Ok(());
        }
        self.run("CREATE SCHEMA IF NOT EXISTS pgmq".to_owned()).await?;
        self.run(sql.to_owned()).await
    }

    /// Makes a pgmq queue.
    pub async fn create_pgmq(&mut self, queue: &str) -> sqlx::Result<()> {
        sqlx::query("SELECT pgmq.create($1)").bind(queue).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Drops a pgmq queue.
    pub async fn drop_pgmq(&mut self, queue: &str) -> sqlx::Result<()> {
        sqlx::query("SELECT pgmq.drop_queue($1)").bind(queue).execute(&mut self.connection).await?;
        Ok(())
    }

    /// `pgmq.send` for one message, `pgmq.send_batch` for several.
    pub async fn send_pgmq(&mut self, queue: &str, bodies: Vec<Bytes>) -> sqlx::Result<()> {
        let mut bodies: Vec<Jsonb> = bodies.into_iter().map(Jsonb).collect();
        let sent: Vec<i64> = if bodies.len() == 1 {
            let send = sqlx::query_scalar("SELECT * FROM pgmq.send($1, $2)").bind(queue).bind(bodies.pop());
            send.fetch_all(&mut self.connection).await?
        } else {
            let send = sqlx::query_scalar("SELECT * FROM pgmq.send_batch($1, $2)").bind(queue).bind(bodies);
            send.fetch_all(&mut self.connection).await?
        };
        drop(sent);
        Ok(())
    }

    /// `pgmq.read`: ids and bodies, hidden from others for `seconds`.
    pub async fn read_pgmq(&mut self, queue: &str, seconds: i32, count: i32) -> sqlx::Result<Vec<(i64, Bytes)>> {
        let rows: Vec<(i64, Jsonb)> = sqlx::query_as("SELECT msg_id, message FROM pgmq.read($1, $2, $3)")
            .bind(queue)
            .bind(seconds)
            .bind(count)
            .fetch_all(&mut self.connection)
            .await?;
        Ok(rows.into_iter().map(|(id, body)| (id, body.0)).collect())
    }

    /// `pgmq.delete` of several; the ids that were there.
    pub async fn delete_pgmq(&mut self, queue: &str, ids: &[i64]) -> sqlx::Result<Vec<i64>> {
        let delete = sqlx::query_scalar("SELECT * FROM pgmq.delete($1, $2)").bind(queue).bind(ids);
        delete.fetch_all(&mut self.connection).await
    }

    /// Ends the connection.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }

    async fn run(&mut self, sql: String) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await?;
        Ok(())
    }
}
