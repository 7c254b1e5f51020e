//! Sessions with Postgres: how they begin, what lanes hold, locks, notifications, the clock, errors.

pub(crate) mod clock;
pub(super) mod connect;
pub mod connection;
pub mod leadership;
pub(crate) mod notifications;
pub(crate) mod sqlstate;
pub(crate) mod statement;
pub(super) mod timestamp;

use crate::store::sql::Statement;

pub(in crate::store) fn statements() -> Vec<Statement> {
    [
        clock::statements(),
        connection::statements(),
        leadership::statements(),
        notifications::statements(),
        sqlstate::statements(),
    ]
    .concat()
}
