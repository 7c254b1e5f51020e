//! Message labels (`tags` of a message) and the rule by which a group selects by them.

use super::error::{Error, ErrorKind, Result};
use super::limits::{LABEL_CHARS, LABELS_MAX};
use super::text;

/// Checks the labels of a message or of a rule: at most 3, each 1-64 plain characters (DMS.10240004).
pub fn parse(field: &str, labels: &[String]) -> Result<()> {
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
pub fn check_count(field: &str, count: usize) -> Result<()> {
    if count <= LABELS_MAX {
        return Ok(());
    }
    Err(Error::field(ErrorKind::LabelInvalid, field, format!("{count} labels"), "at most 3 labels"))
}

/// Which messages a group takes. Two rules are the same when they select the same messages by the same labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRule {
    labels: Vec<String>,
    all: bool,
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
