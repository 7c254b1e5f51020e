//! Lists of any length: rows are taken one by one, and each reserves the memory that it takes until it is answered.

use tokio_stream::{Stream, StreamExt as _};

use crate::domain::Result;
use crate::memory::Answer;

/// What a row of a list takes, on its way from Postgres to protobuf and JSON.
const ROW_BYTES: usize = 900;

/// All rows.
///
/// # Errors
/// `Overloaded` when there is no memory for them; those that are still to come are not read.
pub(crate) async fn all<T>(rows: impl Stream<Item = sqlx::Result<T>>, memory: &Answer) -> Result<Vec<T>> {
    let mut rows = std::pin::pin!(rows);
    let mut taken = Vec::new();
    while let Some(row) = rows.next().await {
        memory.grow(ROW_BYTES)?;
        taken.push(row?);
    }
    Ok(taken)
}
