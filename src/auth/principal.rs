//! Who calls: a name for the log, and rights per project.

use std::collections::HashMap;

use super::rights::{Right, Rights};
use crate::domain::ids::ProjectId;
use crate::domain::{Error, ErrorKind, Result, text};
use crate::observe::log_limit::LogLimit;

static REFUSED: LogLimit = LogLimit::new();

/// A caller whose credentials were good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    name: String,
    everywhere: Rights,
    projects: HashMap<ProjectId, Rights>,
}

impl Principal {
    /// A caller without any right yet. The name is shown in logs, so it is escaped and cut.
    pub fn new(name: &str) -> Self {
        Self { name: text::escaped(name), everywhere: Rights::NONE, projects: HashMap::new() }
    }

    /// Whoever it is, with every right everywhere: for a service that asks for no credentials.
    pub fn anyone() -> Self {
        Self { everywhere: Rights::ALL, ..Self::new("anyone") }
    }

    /// Adds rights in one project.
    pub fn grant(&mut self, project: ProjectId, rights: Rights) {
        *self.projects.entry(project).or_default() |= rights;
    }

    /// Adds rights in all projects, also those to come.
    pub(crate) fn grant_everywhere(&mut self, rights: Rights) {
        self.everywhere |= rights;
    }

    /// For the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this caller may do it there. A project of somebody else is refused whatever is or is not in it.
    pub fn allow(&self, project: &ProjectId, right: Right) -> Result<()> {
        let here = self.projects.get(project).copied().unwrap_or_default() | self.everywhere;
        if here.has(right) {
            return Ok(());
        }
        let (kind, message) = match here {
            Rights::NONE if self.has_nothing() => (ErrorKind::AccessDenied, "the credentials give no access"),
            Rights::NONE => (ErrorKind::TokenProject, "the credentials are not for this project"),
            Rights::READ_ONLY => {
                (ErrorKind::TenantReadOnly, "the credentials only let their owner read in this project")
            }
            _ => (ErrorKind::RoleLacksRight, "the role of the credentials in this project lacks the right to do this"),
        };
        if let Some(left_out) = REFUSED.admits() {
            tracing::info!(project = project.as_str(), ?right, left_out, "refused: {message}");
        }
        Err(Error::new(kind, message))
    }

    fn has_nothing(&self) -> bool {
        self.everywhere == Rights::NONE && self.projects.values().all(|rights| *rights == Rights::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::rights::Role;

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).unwrap()
    }

    fn refusal(principal: &Principal, name: &str, right: Right) -> Option<ErrorKind> {
        principal.allow(&project(name), right).err().map(|error| error.kind())
    }

    #[test]
    fn every_refusal_has_its_code() {
        let mut caller = Principal::new("shop");
        assert_eq!(refusal(&caller, "a", Right::Read), Some(ErrorKind::AccessDenied));
        caller.grant(project("a"), Role::ReadOnly.rights());
        caller.grant(project("b"), Role::Consumer.rights());
        assert_eq!(refusal(&caller, "a", Right::Read), None);
        assert_eq!(refusal(&caller, "a", Right::Produce), Some(ErrorKind::TenantReadOnly));
        assert_eq!(refusal(&caller, "b", Right::Consume), None);
        assert_eq!(refusal(&caller, "b", Right::Produce), Some(ErrorKind::RoleLacksRight));
        assert_eq!(refusal(&caller, "c", Right::Read), Some(ErrorKind::TokenProject));
    }

    #[test]
    fn rights_add_up_per_project_and_everywhere() {
        let mut caller = Principal::new("shop");
        caller.grant(project("a"), Role::Consumer.rights());
        caller.grant(project("a"), Role::Producer.rights());
        assert_eq!(refusal(&caller, "a", Right::Produce), None);
        assert_eq!(refusal(&caller, "a", Right::Consume), None);
        caller.grant_everywhere(Role::ReadOnly.rights());
        assert_eq!(refusal(&caller, "z", Right::Read), None);
        assert_eq!(refusal(&caller, "z", Right::Consume), Some(ErrorKind::TenantReadOnly));
        for right in [Right::Read, Right::Consume, Right::Produce, Right::Administer] {
            assert_eq!(refusal(&Principal::anyone(), "z", right), None);
        }
    }

    #[test]
    fn a_name_cannot_forge_log_lines() {
        let caller = Principal::new(&format!("x\n2026 ERROR forged\u{1b}[0m{}", "y".repeat(200)));
        assert!(!caller.name().contains(['\n', '\u{1b}']) && caller.name().len() < 130, "{}", caller.name());
    }
}
