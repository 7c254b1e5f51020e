//! What operators and `dms doctor` ask Postgres.

pub(crate) mod dead_rows;
pub(crate) mod diagnosis;
pub(crate) mod observe;
pub(crate) mod wraparound;
