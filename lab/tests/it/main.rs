//! The lab against the program `dms`, on a Postgres of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bench;
mod chaos;
mod command_line;
