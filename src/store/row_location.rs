//! Rows found by their location instead of their key: `tid` <-> [`RowLocation`], and why that is right.
//!
//! `streams` and `subscriptions` have rows that are updated hundreds of times a second. While a foreign transaction keeps dead
//! versions from being pruned, a look-up by key walks all of them; the location of the newest version is one page, however many
//! there are. Whoever wrote or read a row remembers where it was, and its next statement matches `ctid` with that location.
//!
//! A location may be wrong: the row has moved, or another row lives there now. So each match also compares the key (`+ 0` keeps
//! the planner from using its index). What it finds is the version that the statement's snapshot sees, or nothing: a scan by
//! ctid does not follow a row that has moved. Nothing found means nothing written; the caller then goes by key.
//!
//! - Nobody has updated the row since the snapshot: the update finds that same version.
//! - Somebody has: the update waits for them, follows the row to its newest version, and checks the match again. Older
//!   versions of Postgres (16.2) do not compare the ctid in that check: the row is updated, from its newest version. Newer ones
//!   (15.18) do compare it, find another one, and leave the row out: nothing is written.
//!
//! Either way offsets come from the newest version, under its lock, or not at all.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

const TID: Oid = Oid(27);
const TID_ARRAY: Oid = Oid(1010);

/// The location of a row in its table (its `ctid`). A hint, only good for the table it came from: a row moves with each of its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLocation {
    /// Page of the table.
    pub block: u32,
    /// Line on the page, from 1.
    pub line: u16,
}

impl Type<Postgres> for RowLocation {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TID)
    }
}

impl PgHasArrayType for RowLocation {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TID_ARRAY)
    }
}

impl Encode<'_, Postgres> for RowLocation {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend(self.block.to_be_bytes());
        buffer.extend(self.line.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for RowLocation {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("tid not in binary format".into());
        }
        let &[b0, b1, b2, b3, l0, l1] = value.as_bytes()? else { return Err("tid is not 6 bytes".into()) };
        Ok(Self { block: u32::from_be_bytes([b0, b1, b2, b3]), line: u16::from_be_bytes([l0, l1]) })
    }
}
