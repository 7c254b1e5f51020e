//! What a hostile project does to its own rows behind the service's back, for the benchmark; the service never uses it.

use sqlx::{ConnectOptions, Connection, PgConnection};

use super::connect_options;

/// Everything that was sent to the queues has been delivered once to each group, and failed.
const FAIL_ALL: &str = "
WITH moved AS (
    UPDATE subscriptions SET cursor_offset = next_offset, cursor_time = last_appended_at, version = version + 1
    FROM streams, queues
    WHERE streams.stream_id = subscriptions.stream_id AND queues.stream_id = streams.stream_id
      AND queues.queue_id = ANY ($1::text[]::uuid[])
    RETURNING subscriptions.stream_id, subscription_id)
INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
SELECT moved.stream_id, subscription_id, message_offset, 1, appended_at
FROM moved, segments, generate_series(base_offset, base_offset + message_count - 1) AS message_offset
WHERE segments.stream_id = moved.stream_id";

/// The next offset overflows, and so every append to the queues is refused.
const REFUSE_APPENDS: &str = "
UPDATE streams SET next_offset = 9223372036854775807
FROM queues WHERE queues.stream_id = streams.stream_id AND queues.queue_id = ANY ($1::text[]::uuid[])";

const LOCK_STREAMS: &str = "
SELECT FROM streams JOIN queues USING (stream_id)
WHERE queues.queue_id = ANY ($1::text[]::uuid[]) ORDER BY stream_id FOR UPDATE OF streams";
const LOCK_SUBSCRIPTIONS: &str = "
SELECT FROM subscriptions JOIN queues USING (stream_id)
WHERE queue_id = ANY ($1::text[]::uuid[]) ORDER BY stream_id, subscription_id FOR UPDATE OF subscriptions";

/// A session that interferes with the queues of one project.
#[derive(Debug)]
pub struct Interference {
    connection: PgConnection,
    queue_ids: Vec<String>,
}

impl Interference {
    /// Connects.
    pub async fn connect(database_url: &str, queue_ids: Vec<String>) -> sqlx::Result<Self> {
        let options = connect_options(database_url)?.application_name("interference");
        Ok(Self { connection: options.connect().await?, queue_ids })
    }

    /// Marks all messages as failed once by every group. No replica may have read those groups before.
    pub async fn fail_all(&mut self) -> sqlx::Result<u64> {
        self.run(FAIL_ALL).await
    }

    /// Has every append to the queues refused from now on.
    pub async fn refuse_appends(&mut self) -> sqlx::Result<u64> {
        self.run(REFUSE_APPENDS).await
    }

    /// Locks the rows of the queues' streams and subscriptions until [`Interference::unlock`].
    pub async fn lock(&mut self) -> sqlx::Result<()> {
        sqlx::query("BEGIN").execute(&mut self.connection).await?;
        self.run(LOCK_STREAMS).await?;
        self.run(LOCK_SUBSCRIPTIONS).await.map(drop)
    }

    /// Releases the locks.
    pub async fn unlock(&mut self) -> sqlx::Result<()> {
        sqlx::query("ROLLBACK").execute(&mut self.connection).await?;
        Ok(())
    }

    /// Runs a statement about the queues; how many rows it touched.
    async fn run(&mut self, sql: &'static str) -> sqlx::Result<u64> {
        let done = sqlx::query(sql).bind(&self.queue_ids).execute(&mut self.connection).await?;
        Ok(done.rows_affected())
    }

    /// Ends the session.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }
}
