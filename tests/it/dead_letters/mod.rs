//! Messages that were given up.

mod as_messages;
mod moves;
