//! Message labels (`tags` of a message) and the rule by which a group selects by them.

use std::fmt;

use super::error::{Error, ErrorKind, Result};
use super::limits::{LABEL_CHARS, LABELS_MAX};
use super::text;

/// Checks the labels of a message or of a rule: at most 3, each 1-64 plain characters (DMS.10240004).
pub(crate) fn parse(field: &str, labels: &[String]) -> Result<()> {
    check_count(field, labels.len())?;
    for label in labels {
        if !LABEL_CHARS.contains(&label.len()) || !text::is_plain(label) {
            let allowed = "1-64 characters of A-Z a-z 0-9 _ -";
            return Err(Error::field(ErrorKind::LabelInvalid, field, label, allowed));
        }
    }
    Ok(())
}

/// Checks how many labels a message or a rule has: at most 3.
pub(crate) fn check_count(field: &str, count: usize) -> Result<()> {
    if count <= LABELS_MAX {
        return Ok(());
    }
    Err(Error::field(ErrorKind::LabelInvalid, field, format!("{count} labels"), "at most 3 labels"))
}

/// The error for a retrieval with another rule than the one its group is bound to.
pub(crate) fn other_rule(asked: Option<&LabelRule>, bound: Option<&LabelRule>) -> Error {
    let shown = |rule: Option<&LabelRule>| rule.map_or_else(|| "no label".to_owned(), LabelRule::to_string);
    let (asked, bound) = (shown(asked), shown(bound));
    let message = format!(
        "tags: asked for {asked}, but the first retrieval with labels has bound this group to {bound} for good; ask for that, \
         or make a group of its own for another choice (to change this one, delete it and make it again)"
    );
    Error::new(ErrorKind::ConsumeFailed, message).about("tags")
}

/// Which messages a group takes. Two rules are the same when they select the same messages by the same labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRule {
    labels: Vec<String>,
    all: bool,
}

/// In words: `'a' or 'b'`.
impl fmt::Display for LabelRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<String> = self.labels.iter().map(|label| text::quoted(label)).collect();
        f.write_str(&quoted.join(if self.all { " and " } else { " or " }))
    }
}

impl LabelRule {
    /// A rule; `None` without labels. Order and repetition do not matter, nor does `all` for a single label.
    pub fn new(mut labels: Vec<String>, all: bool) -> Option<Self> {
        labels.sort();
        labels.dedup();
        let all = all && labels.len() > 1;
        (!labels.is_empty()).then_some(Self { labels, all })
    }

    /// The labels, sorted.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether a message needs all labels, not just one.
    pub fn all(&self) -> bool {
        self.all
    }

    /// Whether a message with these labels is selected.
    pub fn matches(&self, labels: &[String]) -> bool {
        let has = |wanted: &String| labels.contains(wanted);
        if self.all { self.labels.iter().all(has) } else { self.labels.iter().any(has) }
    }
}
