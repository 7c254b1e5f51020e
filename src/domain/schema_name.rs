//! The name of the schema of Postgres that an installation lives in.

use std::fmt;
use std::str::FromStr;

/// Postgres allows 63 bytes; the channel of the wake-ups has the name in it, after a prefix.
const LENGTH_MAX: usize = 48;
/// Where tables go whose owner has not asked for a schema.
const PUBLIC: &str = "public";
const ALLOWED: &str = "give 1 to 48 lower-case letters, digits and underscores, such as dms or orders_dms: the first one is no digit, \
                       and neither a name that begins with pg_ nor information_schema is free";

/// A name that needs no quotes, so that what an operator types in `psql` is what the service uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaName(String);

impl SchemaName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As an identifier in SQL. Quoted, for it may be a word of SQL.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }

    /// The schema that every database has.
    pub fn public() -> Self {
        Self(PUBLIC.to_owned())
    }

    /// Whether it is the schema that every database has.
    pub(crate) fn is_public(&self) -> bool {
        self.0 == PUBLIC
    }
}

impl Default for SchemaName {
    fn default() -> Self {
        Self("dms".to_owned())
    }
}

impl FromStr for SchemaName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let taken = text.starts_with("pg_") || text == "information_schema";
        if begins && plain && !taken && text.len() <= LENGTH_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(ALLOWED.to_owned())
        }
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::SchemaName;

    #[test]
    fn names_that_need_no_quotes_are_taken() {
        let longest = "a".repeat(48);
        for name in ["dms", "public", "_", "orders_2", "select", longest.as_str()] {
            assert_eq!(name.parse::<SchemaName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn other_names_are_refused_with_the_allowed_form() {
        let long = "a".repeat(49);
        for name in
            ["", "1a", "Dms", "a b", "a-b", "a\"b", "a.b", "größe", "pg_dms", "pg_catalog", "information_schema", &long]
        {
            assert!(name.parse::<SchemaName>().unwrap_err().contains("1 to 48 lower-case letters"), "{name}");
        }
    }
}
