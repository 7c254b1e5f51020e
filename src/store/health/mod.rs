//! What operators and `dms doctor` ask Postgres.

pub(crate) mod dead_rows;
pub(crate) mod diagnosis;
pub(crate) mod observe;
pub(crate) mod wraparound;

use crate::store::sql::Statement;

pub(in crate::store) fn statements() -> Vec<Statement> {
    [dead_rows::statements(), diagnosis::all_statements(), observe::statements(), wraparound::statements()].concat()
}
