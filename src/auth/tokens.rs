//! Static bearer tokens. Only their SHA-256 is known here, so nothing that is stored or logged lets anybody in.

use std::collections::HashMap;
use std::sync::Arc;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use super::grant::{Grant, at, from_json};
use super::principal::Principal;
use super::rights::Role;
use crate::reload::Malformed;

/// The bytes of a digest that find its entry; the rest is compared in constant time.
const INDEX_LEN: usize = 8;

const LINE_ENDS: [&str; 2] = ["\n", "\r\n"];

type Digest = [u8; SHA256_OUTPUT_LEN];

/// All tokens and who has them.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<[u8; INDEX_LEN], Vec<(Digest, Arc<Principal>)>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with a list `tokens`")]
struct File {
    tokens: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with sha256, name, projects and roles")]
struct Entry {
    sha256: String,
    name: String,
    projects: Vec<String>,
    roles: Vec<Role>,
}

impl Entry {
    fn grant(&self) -> Grant {
        Grant { name: self.name.clone(), projects: self.projects.clone(), roles: self.roles.clone() }
    }
}

impl Tokens {
    /// Reads `{"tokens":[{"sha256":"...","name":"...","projects":["..."],"roles":["..."]}]}`. Entries with the same digest are
    /// one token with the rights of all.
    pub(super) fn parse(json: &[u8]) -> Result<Self, Malformed> {
        let file: File = from_json(json)?;
        let mut owners: HashMap<Digest, Principal> = HashMap::new();
        for (index, entry) in file.tokens.iter().enumerate() {
            let place = at("tokens", index);
            let digest = digest_of_hex(&entry.sha256).map_err(&place)?;
            let owner = owners.entry(digest).or_insert_with(|| Principal::new(&entry.name));
            entry.grant().add_to(owner).map_err(&place)?;
        }
        if owners.is_empty() {
            tracing::warn!(what = "tokens", "the list of tokens is empty: no token lets anybody in");
        }
        let mut tokens = Self::default();
        for (digest, owner) in owners {
            tokens.0.entry(index_of(&digest)).or_default().push((digest, Arc::new(owner)));
        }
        Ok(tokens)
    }

    /// Who has this token.
    pub(super) fn owner(&self, token: &str) -> Option<&Arc<Principal>> {
        self.of_bytes(token.as_bytes())
    }

    /// Who has this token if its digest was made of it and a newline, as `echo` writes one. Only a caller with the right token can
    /// learn that.
    pub(super) fn owner_by_line(&self, token: &str) -> Option<&Arc<Principal>> {
        LINE_ENDS.iter().find_map(|end| self.of_bytes(format!("{token}{end}").as_bytes()))
    }

    fn of_bytes(&self, token: &[u8]) -> Option<&Arc<Principal>> {
        let given: Digest = digest(&SHA256, token).as_ref().try_into().ok()?;
        let candidates = self.0.get(&index_of(&given))?;
        candidates.iter().find(|(digest, _)| bool::from(digest.ct_eq(&given))).map(|(_, owner)| owner)
    }
}

fn digest_of_hex(hex: &str) -> Result<Digest, Malformed> {
    let mut digest = Digest::default();
    hex::decode_to_slice(hex, &mut digest)
        .map_err(|_| Malformed("sha256: not 64 hexadecimal digits, the first word that sha256sum prints".into()))?;
    Ok(digest)
}

fn index_of(digest: &Digest) -> [u8; INDEX_LEN] {
    let mut index = [0; INDEX_LEN];
    index.copy_from_slice(&digest[..INDEX_LEN]);
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::rights::Right;
    use crate::domain::ids::ProjectId;

    /// `printf secret | sha256sum`
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    /// `printf other | sha256sum`
    const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

    fn entry(sha256: &str, rest: &str) -> String {
        format!(r#"{{"sha256":"{sha256}",{rest}}}"#)
    }

    fn parse(entries: &[String]) -> Result<Tokens, Malformed> {
        Tokens::parse(format!(r#"{{"tokens":[{}]}}"#, entries.join(",")).as_bytes())
    }

    #[test]
    fn a_token_is_known_by_its_digest() {
        let rest = r#""name":"shop","projects":["p"],"roles":["producer"]"#;
        let tokens = parse(&[entry(SECRET, rest), entry(&OTHER.to_uppercase(), rest)]).unwrap();
        assert_eq!(tokens.0.len(), 2);
        for (token, known) in [("secret", true), ("other", true), ("Secret", false), ("", false), (SECRET, false)] {
            assert_eq!(tokens.owner(token).is_some(), known, "{token}");
        }
        assert_eq!(tokens.owner("secret").unwrap().name(), "shop");
    }

    #[test]
    fn entries_of_one_token_add_up() {
        let consumer = entry(SECRET, r#""name":"shop","projects":["p","q"],"roles":["consumer"]"#);
        let producer = entry(SECRET, r#""name":"again","projects":["q"],"roles":["producer","read-only"]"#);
        let tokens = parse(&[consumer, producer]).unwrap();
        let owner = tokens.owner("secret").unwrap();
        let may = |project: &str, right| owner.allow(&ProjectId::parse(project).unwrap(), right).is_ok();
        assert_eq!(tokens.0.len(), 1);
        assert!(may("p", Right::Consume) && may("q", Right::Consume) && may("q", Right::Produce));
        assert!(!may("p", Right::Produce) && !may("q", Right::Administer) && !may("r", Right::Read));
    }

    #[test]
    fn what_is_wrong_is_told_without_its_value() {
        let whole = r#""name":"n","projects":["p"],"roles":["admin"]"#;
        let cases = [
            (parse(&[entry("hunter2", whole)]), "tokens[0]: sha256: not 64 hexadecimal digits"),
            (parse(&[entry(SECRET, r#""name":"n","projects":["hunter 2"],"roles":["admin"]"#)]), "nor *"),
            (parse(&[entry(SECRET, r#""name":"n","projects":[],"roles":["admin"]"#)]), "must not be empty"),
            (
                parse(&[
                    entry(SECRET, whole),
                    entry(SECRET, r#""name":"n","projects":["p"],"roles":["admin","hunter2"]"#),
                ]),
                "tokens[1].roles[1]: not of the documented form: an unknown value, expected one of `read-only`, `consumer`, \
                 `producer`, `admin`, at line 1 column",
            ),
            (
                parse(&[entry(SECRET, r#""name":"n","projects":["p"]"#)]),
                "tokens[0]: not of the documented form: missing field `roles`",
            ),
            (
                parse(&[entry(SECRET, r#""name":"n","projects":"hunter2, expected x","roles":["admin"]"#)]),
                "tokens[0].projects: not of the documented form: a string, expected an array, at line 1",
            ),
            (
                parse(&[entry(SECRET, r#""name":["hunter2"],"projects":["p"],"roles":["admin"]"#)]),
                "tokens[0].name: not of the documented form: an array, expected a string",
            ),
            (
                parse(&[entry(SECRET, r#""name":"n","projects":["p"],"roles":[5]"#)]),
                "tokens[0].roles[0]: not of the documented form: a number, expected a string",
            ),
            (
                parse(&[r#""hunter2""#.into()]),
                "tokens[0]: not of the documented form: a string, expected an object with sha256",
            ),
            (
                Tokens::parse(br#"{"tokens":"hunter2"}"#),
                "tokens: not of the documented form: a string, expected an array, at line 1 column 19",
            ),
            (Tokens::parse(br#"{"hunter2":[]}"#), "not of the documented form: an unknown field, expected `tokens`"),
            (Tokens::parse(br#"{"tokens":[]} hunter2"#), "not JSON: something stands behind its end"),
            (Tokens::parse(b"hunter2"), "not JSON, at line 1"),
            (Tokens::parse(b""), "not JSON"),
        ];
        for (parsed, expected) in cases {
            let Malformed(why) = parsed.unwrap_err();
            assert!(why.contains(expected) && !why.contains("hunter"), "{expected}: {why}");
        }
    }

    #[test]
    fn a_field_that_nobody_reads_is_refused_with_those_that_there_are() {
        let whole = r#""name":"n","projects":["p"],"roles":["admin"]"#;
        for field in [r#""expires":"2020-01-01""#, r#""disabled":true"#, r#""hunter2":1"#, r#""SHA256":"x""#] {
            let Malformed(why) =
                parse(&[entry(SECRET, whole), entry(SECRET, &format!("{whole},{field}"))]).unwrap_err();
            let words = "an unknown field, expected one of `sha256`, `name`, `projects`, `roles`";
            assert!(why.starts_with("tokens[1]: ") && why.contains(words), "{field}: {why}");
            assert!(!why.contains("hunter") && why.contains("at line 1 column"), "{why}");
        }
        let Malformed(why) = Tokens::parse(br#"{"tokens":[],"expires":1}"#).unwrap_err();
        assert!(why.contains("an unknown field, expected `tokens`, at line 1"), "{why}");
        for field in ["sha256", "name"] {
            let twice = parse(&[entry(SECRET, &format!(r#"{whole},"{field}":"n""#))]);
            let Malformed(why) = twice.unwrap_err();
            let words = format!(": not of the documented form: duplicate field `{field}`");
            assert!(why.starts_with("tokens[0]") && why.contains(&words), "{field} twice: {why}");
        }
    }

    #[test]
    fn a_digest_of_a_token_and_a_newline_is_known_for_what_it_is() {
        /// `echo secret | sha256sum`
        const BY_ECHO: &str = "b37e50cedcd3e3f1ff64f4afc0422084ae694253cf399326868e07a35f4a45fb";
        let rest = r#""name":"shop","projects":["p"],"roles":["producer"]"#;
        let tokens = parse(&[entry(BY_ECHO, rest), entry(OTHER, rest)]).unwrap();
        assert!(tokens.owner("secret").is_none(), "it lets nobody in all the same");
        let by_line = |token| tokens.owner_by_line(token).map(|owner| owner.name());
        assert_eq!([by_line("secret"), by_line("other"), by_line("unknown")], [Some("shop"), None, None]);
    }

    #[test]
    fn no_token_at_all_is_a_way_to_lock_everybody_out() {
        assert!(parse(&[]).unwrap().0.is_empty());
    }
}
