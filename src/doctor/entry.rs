//! Findings about the way to the database, and what it takes.

use super::{Finding, Verdict};
use crate::store::schema::entry::Entry;

/// Whether sessions are whole, and whether all text can be stored.
pub(super) fn findings(entry: &Entry) -> Vec<Finding> {
    let pool = entry.wrong_pool();
    let sessions = if pool.is_none() { "sessions last" } else { "sessions last no longer than a transaction" };
    let encoding = entry.wrong_encoding();
    vec![
        Finding::new(pool.is_none(), Verdict::Bad, sessions, pool.unwrap_or_default()),
        Finding::new(
            encoding.is_none(),
            Verdict::Bad,
            format!("the encoding of the database is {}", entry.encoding),
            encoding.unwrap_or_default(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_pool_and_a_wrong_encoding_are_bad() {
        let verdicts = |encoding: &str, pooled| {
            let found = findings(&Entry { encoding: encoding.to_owned(), pooled });
            found.into_iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts("UTF8", false), [Verdict::Good, Verdict::Good]);
        assert_eq!(verdicts("LATIN1", true), [Verdict::Bad, Verdict::Bad]);
    }
}
