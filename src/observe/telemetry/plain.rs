//! Log lines without characters that a terminal or a reader would obey: control characters of C1, and those that change the direction of
//! text. JSON escapes only what is below a space, and names, paths and ids of callers get into the log.

use std::io::{self, Write};
use std::str;

use tracing_subscriber::fmt::MakeWriter;

/// How a character is written instead.
#[derive(Debug, Clone, Copy)]
pub(super) enum Escape {
    /// `\u{9b}`; a line of text is one line, and only the format itself may colour it.
    Text {
        /// Whether it does.
        coloured: bool,
    },
    /// `\u009b`, which a reader of JSON makes a character of again. Such characters stand only inside of strings.
    Json,
}

/// Makes writers to standard error.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlainStderr(pub(super) Escape);

impl<'a> MakeWriter<'a> for PlainStderr {
    type Writer = Plain<io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Plain { inner: io::stderr(), escape: self.0 }
    }
}

/// Writes lines, each of which comes whole.
#[derive(Debug)]
pub(super) struct Plain<W> {
    inner: W,
    escape: Escape,
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Hardly any line has a character beyond ASCII.
        let inside = line.strip_suffix(b"\n").unwrap_or(line);
        let plain = inside.iter().all(|byte| (b' '..DELETE).contains(byte));
        match str::from_utf8(line) {
            Ok(text) if !plain => self.inner.write_all(self.escape.applied(text).as_bytes())?,
            _ => self.inner.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

const DELETE: u8 = 0x7f;

fn is_obeyed(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

impl Escape {
    fn applied(self, line: &str) -> String {
        let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
        let mut escaped = String::with_capacity(line.len() + 16);
        for (at, character) in text.char_indices() {
            match (is_obeyed(character), self) {
                (false, _) => escaped.push(character),
                (true, Self::Text { coloured: true }) if is_colour(&text[at..]) => escaped.push(character),
                (true, Self::Text { .. }) => escaped.extend(character.escape_unicode()),
                (true, Self::Json) => {
                    let mut units = [0; 2];
                    escaped.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
                }
            }
        }
        escaped + end
    }
}

/// Whether the text begins with the sequence that sets a colour, which does no harm whoever wrote it.
fn is_colour(text: &str) -> bool {
    let rest =
        text.strip_prefix("\u{1b}[").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
    rest.is_some_and(|rest| rest.starts_with('m'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Escape = Escape::Text { coloured: false };

    fn written(escape: Escape, line: &[u8]) -> Vec<u8> {
        let mut writer = Plain { inner: Vec::new(), escape };
        writer.write_all(line).unwrap();
        writer.inner
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        for (line, text, json) in [
            ("plain é 一 🙂\n", "plain é 一 🙂\n", "plain é 一 🙂\n"),
            ("a\u{9b}31mb\n", "a\\u{9b}31mb\n", "a\\u009b31mb\n"),
            ("a\u{202e}b\u{2066}c\n", "a\\u{202e}b\\u{2066}c\n", "a\\u202eb\\u2066c\n"),
            ("\u{7f}\u{85}\u{2028}\n", "\\u{7f}\\u{85}\\u{2028}\n", "\\u007f\\u0085\\u2028\n"),
            ("\u{e0041}\n", "\\u{e0041}\n", "\\udb40\\udc41\n"),
            ("\u{1b}[2J\r\nforged\n", "\\u{1b}[2J\\u{d}\\u{a}forged\n", "\\u001b[2J\\u000d\\u000aforged\n"),
        ] {
            assert_eq!(written(TEXT, line.as_bytes()), text.as_bytes(), "{line:?}");
            assert_eq!(written(Escape::Json, line.as_bytes()), json.as_bytes(), "{line:?}");
        }
        assert_eq!(written(TEXT, b"\xff\n"), b"\xff\n");
    }

    #[test]
    fn only_colours_are_left_to_a_coloured_line() {
        let coloured = Escape::Text { coloured: true };
        for (line, expected) in [
            ("\u{1b}[1;32mINFO\u{1b}[0m\n", "\u{1b}[1;32mINFO\u{1b}[0m\n"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}\n", "\\u{1b}[2J\\u{1b}]0;title\\u{7}\n"),
        ] {
            assert_eq!(written(coloured, line.as_bytes()), expected.as_bytes());
            assert_ne!(written(TEXT, line.as_bytes()), line.as_bytes());
        }
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = "a\u{9b}b\u{202e}c\u{e0041}\u{7f}";
        let line = serde_json::json!({ "path": value }).to_string();
        let escaped = written(Escape::Json, line.as_bytes());
        assert!(escaped.is_ascii());
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&escaped).unwrap()["path"], value);
    }

    #[test]
    fn lines_of_the_log_are_escaped_in_both_forms() {
        for json in [false, true] {
            let file = std::env::temp_dir().join(format!("dms-log-{}", uuid::Uuid::new_v4()));
            let make = {
                let file = file.clone();
                move || {
                    let inner = std::fs::OpenOptions::new().create(true).append(true).open(&file).unwrap();
                    Plain { inner, escape: if json { Escape::Json } else { TEXT } }
                }
            };
            let log = || {
                let hostile = "x\u{9b}2J\u{202e}\u{1b}[2J\r\nforged";
                let _in = tracing::error_span!("call", path = hostile).entered();
                tracing::error!(name = hostile, shown = %hostile, "{hostile}");
            };
            let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(make);
            if json {
                tracing::subscriber::with_default(lines.json().finish(), log);
            } else {
                tracing::subscriber::with_default(lines.finish(), log);
            }
            let text = std::fs::read_to_string(&file).unwrap();
            std::fs::remove_file(&file).unwrap();
            assert_eq!(text.lines().count(), 1, "json: {json}: {text:?}");
            let raw = |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
            assert!(!text.contains(raw), "json: {json}: {text:?}");
        }
    }
}
