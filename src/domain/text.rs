//! Rules for outside text: allowed characters, and how a hostile value is shown in a message.

use std::ops::RangeInclusive;

use super::error::{Error, ErrorKind, Result};

const SHOWN_CHARS_MAX: usize = 80;

/// The value with control characters escaped, cut after 80 characters: safe in logs. Double quotes stay, for [`quoted`] uses single ones.
pub fn escaped(value: &str) -> String {
    let mut shown = String::new();
    for char in value.chars().take(SHOWN_CHARS_MAX) {
        if char == '"' {
            shown.push(char);
        } else {
            shown.extend(char.escape_debug());
        }
    }
    let more = if value.chars().nth(SHOWN_CHARS_MAX).is_some() { "..." } else { "" };
    shown + more
}

/// The same in quotes, for messages.
pub fn quoted(value: &str) -> String {
    format!("'{}'", escaped(value))
}

/// Whether the text has only `A-Z a-z 0-9 _ -`.
pub fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// A name of `A-Z a-z 0-9 _ -` whose length is in range; the length has its own error code.
pub fn name(field: &str, value: &str, chars: RangeInclusive<usize>, length_kind: ErrorKind) -> Result<String> {
    let (min, max) = (chars.start(), chars.end());
    if !chars.contains(&value.chars().count()) {
        return Err(Error::field(length_kind, field, value, &format!("{min}-{max} characters of A-Z a-z 0-9 _ -")));
    }
    if !is_plain(value) {
        let allowed = format!("{min}-{max} characters of A-Z a-z 0-9 _ -");
        return Err(Error::field(ErrorKind::NameCharacters, field, value, &allowed));
    }
    Ok(value.to_owned())
}
