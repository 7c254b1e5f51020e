//! What an entry of the files of tokens and keys gives: a name, projects, roles.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::principal::Principal;
use super::rights::{Rights, Role};
use crate::domain::ids::ProjectId;
use crate::watched::Malformed;

/// Stands for all projects.
const EVERY_PROJECT: &str = "*";

/// Who may do what where, in the words of a file.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Grant {
    name: String,
    projects: Vec<String>,
    roles: Vec<Role>,
}

impl Grant {
    /// For the log.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

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
        Malformed(format!("{what}, at line {line} column {column}"))
    })
}

/// Names the entry that is wrong.
pub(super) fn at(list: &'static str, index: usize) -> impl Fn(Malformed) -> Malformed {
    move |Malformed(why)| Malformed(format!("{list}[{index}]: {why}"))
}
