//! What an entry of the files of tokens and keys gives: a name, projects, roles.

use serde::de::DeserializeOwned;

use super::principal::Principal;
use super::rights::{Rights, Role};
use crate::domain::ids::ProjectId;
use crate::watched::Malformed;

/// Stands for all projects.
const EVERY_PROJECT: &str = "*";

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

/// Reads JSON. The parser's own words may quote the content, so only the place is told.
pub(super) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = if error.is_data() { "not of the documented form" } else { "not JSON" };
        let unknown = unknown_field(&error.to_string()).unwrap_or_default();
        Malformed(format!("{what}{unknown}, at line {line} column {column}"))
    })
}

/// What is wrong with a field that nobody reads: its owner believes that it has an effect (`expires`, `disabled`). It is not named, for
/// it may be a secret in the wrong place; the parser names those that there are behind it.
fn unknown_field(error: &str) -> Option<String> {
    let (_, known) = error.strip_prefix("unknown field `")?.rsplit_once("`, expected ")?;
    let known = known.rsplit_once(" at line ").map_or(known, |(known, _)| known);
    Some(format!(": an unknown field, expected {known}"))
}

/// Names the entry that is wrong.
pub(super) fn at(list: &'static str, index: usize) -> impl Fn(Malformed) -> Malformed {
    move |Malformed(why)| Malformed(format!("{list}[{index}]: {why}"))
}
