//! Resource tags of queues (not message labels): their rules, and what a call wants done with them.

use std::collections::HashSet;

use super::error::{Error, ErrorKind, Result};
use super::limits::{QUEUE_TAGS_MAX, TAG_KEY_CHARS, TAG_VALUE_CHARS_MAX};

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// 1-36 characters.
    pub key: String,
    /// 0-43 characters.
    pub value: String,
}

impl Tag {
    /// Checks both parts; `field` is the tag's place in the request.
    pub fn parse(field: &str, key: String, value: String) -> Result<Self> {
        check_key(&format!("{field}.key"), &key)?;
        check_value(&format!("{field}.value"), &value)?;
        Ok(Self { key, value })
    }
}

/// A key and the values it has in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagValues {
    /// The key.
    pub key: String,
    /// Its values in order, each once.
    pub values: Vec<String>,
}

/// Names tags to delete: those with this key and, when a value is given, this value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSelector {
    /// The key.
    pub key: String,
    /// The value; any when absent.
    pub value: Option<String>,
}

impl TagSelector {
    /// Checks the parts that are given.
    pub fn parse(field: &str, key: String, value: Option<String>) -> Result<Self> {
        check_key(&format!("{field}.key"), &key)?;
        value.as_deref().map_or(Ok(()), |value| check_value(&format!("{field}.value"), value))?;
        Ok(Self { key, value })
    }
}

/// A batch to do, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagBatch {
    /// Add or overwrite; each key once.
    Create(Vec<Tag>),
    /// Delete; what is not there is passed over.
    Delete(Vec<TagSelector>),
}

impl TagBatch {
    /// Checks that no key is given twice.
    pub fn create(tags: Vec<Tag>) -> Result<Self> {
        check_unique(tags.iter().map(|tag| tag.key.as_str()))?;
        Ok(Self::Create(tags))
    }
}

/// Checks the size of a batch before its tags: 1-10 (DMS.10540010, 10240044).
pub(crate) fn check_count(field: &str, count: usize) -> Result<()> {
    match count {
        0 => Err(Error::missing(ErrorKind::RequestFormat, field, "1-10 tags")),
        1..=QUEUE_TAGS_MAX => Ok(()),
        _ => Err(Error::field(ErrorKind::TooManyTags, field, format!("{count} tags"), "1-10 tags")),
    }
}

/// More tags than a queue may have.
pub(crate) fn too_many(len: i64) -> Error {
    Error::field(ErrorKind::TooManyTags, "tags", format!("{len} tags"), "at most 10 tags on one queue")
}

/// Checks a tag key: 1-36 characters (DMS.10240035), none of them forbidden (10240036).
pub(crate) fn check_key(field: &str, key: &str) -> Result<()> {
    if !TAG_KEY_CHARS.contains(&key.chars().count()) {
        return Err(Error::field(ErrorKind::TagKeyLength, field, key, "1-36 characters"));
    }
    check_characters(ErrorKind::TagKeyCharacters, field, key)
}

/// Checks a tag value: at most 43 characters (DMS.10240038), none of them forbidden (10240039).
pub(crate) fn check_value(field: &str, value: &str) -> Result<()> {
    if value.chars().count() > TAG_VALUE_CHARS_MAX {
        return Err(Error::field(ErrorKind::TagValueLength, field, value, "0-43 characters"));
    }
    check_characters(ErrorKind::TagValueCharacters, field, value)
}

fn check_characters(kind: ErrorKind, field: &str, text: &str) -> Result<()> {
    let forbidden = |c: char| c < ' ' || "=*<>\\,|/".contains(c);
    match text.contains(forbidden) {
        true => Err(Error::field(kind, field, text, "text without control characters and = * < > \\ , | /")),
        false => Ok(()),
    }
}

fn check_unique<'a>(keys: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for (index, key) in keys.enumerate() {
        if !seen.insert(key) {
            let allowed = "used once in the request";
            return Err(Error::field(ErrorKind::TagKeyRepeated, &format!("tags[{index}].key"), key, allowed));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(kind(check_key("key", &"é".repeat(36))), None);
        assert_eq!(kind(check_key("key", &"é".repeat(37))), Some(ErrorKind::TagKeyLength));
        assert_eq!(kind(check_key("key", "")), Some(ErrorKind::TagKeyLength));
        assert_eq!(kind(check_value("value", "")), None);
        assert_eq!(kind(check_value("value", &"值".repeat(43))), None);
        assert_eq!(kind(check_value("value", &"v".repeat(44))), Some(ErrorKind::TagValueLength));
    }

    #[test]
    fn each_forbidden_character_is_refused() {
        for c in ('\0'..' ').chain("=*<>\\,|/".chars()) {
            let text = format!("a{c}b");
            assert_eq!(kind(check_key("key", &text)), Some(ErrorKind::TagKeyCharacters), "{c:?}");
            assert_eq!(kind(check_value("value", &text)), Some(ErrorKind::TagValueCharacters), "{c:?}");
        }
        for text in ["a b", "a.b:c", "_-@#", "\u{7f}", "日本"] {
            assert_eq!(kind(check_key("key", text)), None, "{text}");
        }
    }

    #[test]
    fn a_batch_has_one_to_ten_tags() {
        assert_eq!(kind(check_count("tags", 0)), Some(ErrorKind::RequestFormat));
        assert_eq!(kind(check_count("tags", 10)), None);
        assert_eq!(kind(check_count("tags", 11)), Some(ErrorKind::TooManyTags));
    }

    #[test]
    fn a_key_given_twice_is_named() {
        let tag = |key: &str| Tag { key: key.into(), value: String::new() };
        let error = TagBatch::create(vec![tag("a"), tag("b"), tag("a")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TagKeyRepeated);
        assert_eq!(error.message(), "tags[2].key: 'a' is not used once in the request");
        assert!(TagBatch::create(vec![tag("a"), tag("A")]).is_ok());
    }
}
