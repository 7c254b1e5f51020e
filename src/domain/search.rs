//! Search of queues by tag and name, as a pure function over the queues of a project.

use std::collections::HashSet;

use super::error::{Error, ErrorKind, Result};
use super::ids::QueueId;
use super::limits::{
    SEARCH_KEY_CHARS_MAX, SEARCH_KEYS_MAX, SEARCH_LIMIT, SEARCH_LIMIT_DEFAULT, SEARCH_VALUE_CHARS_MAX,
};
use super::tag::{Tag, TagValues};

/// A queue with its tags by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedQueue {
    /// Its id.
    pub id: QueueId,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// Tag conditions; a condition is a key with values joined by OR, and no values mean any.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// All must hold.
    pub tags: Vec<TagValues>,
    /// At least one must hold.
    pub tags_any: Vec<TagValues>,
    /// Not all may hold together.
    pub not_tags: Vec<TagValues>,
    /// None may hold.
    pub not_tags_any: Vec<TagValues>,
    /// The name contains this text, in any case.
    pub(crate) name_part: String,
}

impl Filter {
    /// Checks the documented bounds of every list.
    pub fn check(&self) -> Result<()> {
        check_conditions("tags", &self.tags)?;
        check_conditions("tags_any", &self.tags_any)?;
        check_conditions("not_tags", &self.not_tags)?;
        check_conditions("not_tags_any", &self.not_tags_any)
    }

    /// Whether a queue is wanted. An empty list asks nothing.
    pub fn matches(&self, queue: &TaggedQueue) -> bool {
        let holds = |condition: &TagValues| holds(condition, &queue.tags);
        self.tags.iter().all(holds)
            && (self.tags_any.is_empty() || self.tags_any.iter().any(holds))
            && (self.not_tags.is_empty() || !self.not_tags.iter().all(holds))
            && !self.not_tags_any.iter().any(holds)
            && queue.name.to_lowercase().contains(&self.name_part.to_lowercase())
    }
}

fn holds(condition: &TagValues, tags: &[Tag]) -> bool {
    let fits = |tag: &Tag| condition.values.is_empty() || condition.values.contains(&tag.value);
    tags.iter().any(|tag| tag.key == condition.key && fits(tag))
}

/// Which part of the matches to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    limit: usize,
    offset: usize,
}

impl Page {
    /// No queues, just their count.
    pub(crate) const COUNT_ONLY: Self = Self { limit: 0, offset: 0 };

    /// Checks the range of both (DMS.10240042, 10240043).
    pub fn parse(limit: Option<i32>, offset: Option<i32>) -> Result<Self> {
        let limit = limit.unwrap_or(SEARCH_LIMIT_DEFAULT);
        if !SEARCH_LIMIT.contains(&limit) {
            return Err(Error::field(ErrorKind::SearchLimit, "limit", limit, "an integer from 1 to 1000"));
        }
        let offset = offset.unwrap_or(0);
        let wrong = |_| Error::field(ErrorKind::SearchOffset, "offset", offset, "an integer of 0 or more");
        // A limit in range is positive.
        Ok(Self { limit: limit.unsigned_abs() as usize, offset: usize::try_from(offset).map_err(wrong)? })
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The page.
    pub queues: Vec<TaggedQueue>,
    /// All matches, whatever the page.
    pub total: usize,
}

/// Filters the queues of a project, given by creation time.
pub(crate) fn search(mut queues: Vec<TaggedQueue>, filter: &Filter, page: Page) -> Found {
    queues.retain(|queue| filter.matches(queue));
    let total = queues.len();
    Found { queues: queues.into_iter().skip(page.offset).take(page.limit).collect(), total }
}

/// Checks how many keys a list of a search has: at most 10.
pub(crate) fn check_keys_count(field: &str, count: usize) -> Result<()> {
    if count <= SEARCH_KEYS_MAX {
        return Ok(());
    }
    Err(Error::field(ErrorKind::TooManyTags, field, format!("{count} keys"), "at most 10 keys"))
}

/// Checks how many values a key of a search has: at most 10.
pub(crate) fn check_values_count(field: &str, count: usize) -> Result<()> {
    if count <= SEARCH_KEYS_MAX {
        return Ok(());
    }
    Err(Error::field(ErrorKind::RequestFormat, field, format!("{count} values"), "at most 10 values"))
}

fn check_conditions(list: &str, conditions: &[TagValues]) -> Result<()> {
    check_keys_count(list, conditions.len())?;
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let field = format!("{list}[{index}].key");
        if !(1..=SEARCH_KEY_CHARS_MAX).contains(&condition.key.chars().count()) {
            return Err(Error::field(ErrorKind::TagKeyLength, &field, &condition.key, "1-127 characters"));
        }
        if !seen.insert(condition.key.as_str()) {
            return Err(Error::field(ErrorKind::TagKeyRepeated, &field, &condition.key, "used once in the list"));
        }
        check_values(&format!("{list}[{index}].values"), &condition.values)?;
    }
    Ok(())
}

fn check_values(field: &str, values: &[String]) -> Result<()> {
    check_values_count(field, values.len())?;
    let mut seen = HashSet::new();
    for value in values {
        if value.chars().count() > SEARCH_VALUE_CHARS_MAX {
            return Err(Error::field(ErrorKind::TagValueLength, field, value, "0-255 characters"));
        }
        if !seen.insert(value) {
            return Err(Error::field(ErrorKind::RequestFormat, field, value, "used once for its key"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
