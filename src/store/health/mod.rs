//! What operators and `dms doctor` ask Postgres.

pub mod dead_rows;
pub mod diagnosis;
pub mod observe;
pub mod wraparound;
