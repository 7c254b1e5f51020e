//! Rules for outside text: allowed characters, and how a hostile value is shown in a message.

const SHOWN_CHARS_MAX: usize = 80;

/// The value with control characters escaped, cut after 80 characters: safe in logs. Double quotes stay, for [`quoted`] uses single ones.
pub(crate) fn escaped(value: &str) -> String {
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
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", escaped(value))
}

/// Whether the text has only `A-Z a-z 0-9 _ -`.
pub(crate) fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
