//! Statements of the store by name.

use dms::store::sql::Statement;

/// The statement of this module and name, `claims::CLAIM`.
#[track_caller]
pub(crate) fn statement(name: &str) -> Statement {
    let ends = format!("::{name}");
    let all = dms::store::statements();
    all.into_iter()
        .find(|statement| format!("{}::{}", statement.module, statement.name).ends_with(&ends))
        .unwrap_or_else(|| panic!("there is no statement {name}"))
}
