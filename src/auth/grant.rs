//! What an entry of the files of tokens and keys gives: a name, projects, roles.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::principal::Principal;
use super::rights::{Rights, Role};
use crate::domain::ids::ProjectId;
use crate::reload::Malformed;

/// Stands for all projects.
const EVERY_PROJECT: &str = "*";

/// The lists that files consist of.
const KNOWN_LISTS: [&str; 2] = ["tokens", "keys"];

/// Who may do what where, in the words of a file.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) name: String,
    pub(super) projects: Vec<String>,
    pub(super) roles: Vec<Role>,
}

impl Grant {
    /// Adds what the entry gives.
    pub(super) fn add_to(&self, principal: &mut Principal) -> Result<(), Malformed> {
        if self.name.is_empty() || self.projects.is_empty() || self.roles.is_empty() {
            return Err(Malformed("name, projects and roles must not be empty".into()));
        }
        let rights: Rights = self.roles.iter().copied().collect();
        for project in &self.projects {
            if project == EVERY_PROJECT {
                principal.grant_everywhere(rights);
                continue;
            }
            let id = ProjectId::parse(project);
            principal.grant(id.map_err(|_| Malformed("projects: not a project id, nor *".into()))?, rights);
        }
        Ok(())
    }
}

/// Reads JSON. The parser's own words may quote the content, so what is told is the place of what is wrong, and what belongs there.
pub(super) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Malformed> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    let value =
        serde_path_to_error::deserialize(&mut parser).map_err(|error| malformed(error.path(), error.inner()))?;
    parser.end().map_err(|_| Malformed("not JSON: something stands behind its end".into()))?;
    Ok(value)
}

fn malformed(path: &Path, error: &serde_json::Error) -> Malformed {
    let (line, column) = (error.line(), error.column());
    if !error.is_data() {
        return Malformed(format!("not JSON, at line {line} column {column}"));
    }
    let words = error.to_string();
    let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words);
    let (place, reason) = (place(path, words), reason(words).unwrap_or_default());
    Malformed(format!("{place}not of the documented form{reason}, at line {line} column {column}"))
}

/// Where it is: `tokens[1].roles[0]: `. An unknown field is not named, for it may be a secret in the wrong place.
fn place(path: &Path, words: &str) -> String {
    let mut place = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => place += &format!("[{index}]"),
            Segment::Map { key } if !is_unknown_field(words) || KNOWN_LISTS.contains(&key.as_str()) => {
                place += if place.is_empty() { "" } else { "." };
                place += key;
            }
            _ => {}
        }
    }
    if place.is_empty() { place } else { place + ": " }
}

fn is_unknown_field(words: &str) -> bool {
    words.starts_with("unknown field ")
}

/// What is wrong, without its value, and what belongs there instead. The last words of the parser are ours, those before may be the file's.
fn reason(words: &str) -> Option<String> {
    if words.starts_with("missing field ") || words.starts_with("duplicate field ") {
        return Some(format!(": {words}"));
    }
    let (found, expected) = words.rsplit_once(", expected ")?;
    let (what, _value) = found.split_once(['`', ':'])?;
    let found = match what.trim() {
        // Its owner believes that it has an effect (`expires`, `disabled`).
        "unknown field" => "an unknown field",
        "unknown variant" => "an unknown value",
        "invalid type" => json_kind(found),
        _ => return None,
    };
    Some(format!(": {found}, expected {}", expected.replace("a sequence", "an array")))
}

/// The kind of value that `invalid type: KIND ...` speaks of.
fn json_kind(found: &str) -> &'static str {
    match found.trim_start_matches("invalid type: ").split([' ', '`']).next() {
        Some("map") => "an object",
        Some("sequence") => "an array",
        Some("integer" | "floating") => "a number",
        Some("boolean") => "a boolean",
        Some("null") => "null",
        _ => "a string",
    }
}

/// Names the entry that is wrong.
pub(super) fn at(list: &'static str, index: usize) -> impl Fn(Malformed) -> Malformed {
    move |Malformed(why)| Malformed(format!("{list}[{index}]: {why}"))
}
