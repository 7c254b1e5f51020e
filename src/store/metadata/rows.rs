//! Lists of any length: rows are taken one by one, and each reserves the memory that it takes until it is answered.

use tokio_stream::{Stream, StreamExt as _};

use crate::domain::Result;
use crate::memory::Answer;

/// Reads a row into a struct whose fields are named as its columns; a field behind `;` is a struct that reads the same row.
///
/// The derive macro of sqlx does this too, but has all of sqlx, tokio and rustls compiled once more, for the compiler to run.
macro_rules! from_row {
    ($row:ident { $($field:ident),+ $(; $nested:ident)? }) => {
        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $row {
            fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
                Ok(Self {
                    $($field: sqlx::Row::try_get(row, stringify!($field))?,)+
                    $($nested: sqlx::FromRow::from_row(row)?,)?
                })
            }
        }
    };
}
pub(crate) use from_row;

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
