//! Access keys and their secrets. A signature can only be checked by who knows the secret, so the secrets are in memory, in
//! the form that the HMAC needs.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::fmt;
use std::sync::Arc;

use ring::hmac::{HMAC_SHA256, Key};
use serde::Deserialize;

use super::grant::{Grant, at, from_json};
use super::principal::Principal;
use super::rights::Role;
use crate::reload::Malformed;

/// All access keys and who has them.
pub(super) struct AccessKeys {
    keys: HashMap<String, (Key, Arc<Principal>)>,
    /// For access keys that are not there, so that they take as long to refuse.
    nobody: Key,
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKeys").field("len", &self.keys.len()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with a list `keys`")]
struct File {
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with access, secret, name, projects and roles")]
struct Entry {
    access: String,
    secret: String,
    name: String,
    projects: Vec<String>,
    roles: Vec<Role>,
}

impl Entry {
    /// Whoever signs has the key without the newline that `echo` or an editor has left.
    fn warn_of_white_space(&self, index: usize) {
        for (field, value) in [("access", &self.access), ("secret", &self.secret)] {
            if value.trim() != value {
                tracing::warn!(
                    what = "access-keys",
                    "keys[{index}].{field} begins or ends with white space: signatures made without it are refused"
                );
            }
        }
    }

    fn grant(&self) -> Grant {
        Grant { name: self.name.clone(), projects: self.projects.clone(), roles: self.roles.clone() }
    }
}

impl AccessKeys {
    /// Reads `{"keys":[{"access":"...","secret":"...","name":"...","projects":["..."],"roles":["..."]}]}`. Entries with the same
    /// access key are one key with the rights of all; the secret is that of the first.
    pub(super) fn parse(json: &[u8]) -> Result<Self, Malformed> {
        let file: File = from_json(json)?;
        let mut owners: HashMap<&str, (&str, Principal)> = HashMap::new();
        for (index, entry) in file.keys.iter().enumerate() {
            let place = at("keys", index);
            entry.warn_of_white_space(index);
            if entry.access.is_empty() || entry.secret.is_empty() {
                return Err(place(Malformed("access and secret must not be empty".into())));
            }
            let (secret, owner) = match owners.entry(&entry.access) {
                Place::Occupied(known) => known.into_mut(),
                Place::Vacant(free) => free.insert((&entry.secret, Principal::new(&entry.name))),
            };
            if *secret != entry.secret {
                return Err(place(Malformed("another secret than an earlier entry of this access key".into())));
            }
            entry.grant().add_to(owner).map_err(&place)?;
        }
        if owners.is_empty() {
            tracing::warn!(what = "access-keys", "the list of access keys is empty: no signature lets anybody in");
        }
        let key = |secret: &str| Key::new(HMAC_SHA256, secret.as_bytes());
        let keys =
            owners.into_iter().map(|(access, (secret, owner))| (access.to_owned(), (key(secret), Arc::new(owner))));
        Ok(Self { keys: keys.collect(), nobody: key("") })
    }

    /// The key to check a signature with, and who has it if anybody does.
    pub(super) fn find(&self, access: &str) -> (&Key, Option<&Arc<Principal>>) {
        match self.keys.get(access) {
            Some((key, owner)) => (key, Some(owner)),
            None => (&self.nobody, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &str) -> Result<AccessKeys, Malformed> {
        AccessKeys::parse(format!(r#"{{"keys":[{entries}]}}"#).as_bytes())
    }

    const GRANT: &str = r#""name":"shop","projects":["p"],"roles":["admin"]"#;

    #[test]
    fn keys_are_found_and_never_shown() {
        let keys = parse(&format!(r#"{{"access":"AK","secret":"hunter2",{GRANT}}}"#)).unwrap();
        assert_eq!(keys.keys.len(), 1);
        assert_eq!(keys.find("AK").1.unwrap().name(), "shop");
        assert!(keys.find("ak").1.is_none());
        assert!(!format!("{keys:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_wrong_is_told_without_its_value() {
        let cases = [
            (r#"{"access":"","secret":"hunter2","#, "must not be empty"),
            (r#"{"access":"AK","secret":"","#, "must not be empty"),
            (r#"{"access":"AK","secret":"a",GRANT},{"access":"AK","secret":"hunter2","#, "keys[1]: another secret"),
            (
                r#"{"access":"AK","secret":["hunter2"],"#,
                "keys[0].secret: not of the documented form: an array, expected a string",
            ),
            (
                r#"{"access":"AK","secret":"hunter2","expires":1,"#,
                "an unknown field, expected one of `access`, `secret`",
            ),
        ];
        for (entry, expected) in cases {
            let entry = entry.replace("GRANT", GRANT) + GRANT + "}";
            let Malformed(why) = parse(&entry).unwrap_err();
            assert!(why.contains(expected) && !why.contains("hunter"), "{expected}: {why}");
        }
    }
}
