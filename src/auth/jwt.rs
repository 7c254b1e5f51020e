//! Tokens of an OpenID Connect provider, or of any issuer of JWTs with public keys.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind as JwtError;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, get_current_timestamp};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::jwt_keys::JwtKeys;
use super::principal::Principal;
use super::rights::{Rights, Role};
use crate::domain::ids::ProjectId;
use crate::domain::{Error, ErrorKind, Result};

/// Longer ones are refused unread.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a token must say to be good here, and where it says what its owner may do.
#[derive(Debug, Clone)]
pub struct JwtRules {
    /// The only `iss`.
    pub issuer: String,
    /// One of the `aud`.
    pub audience: String,
    /// The claim with the ids of the projects.
    pub project_claim: String,
    /// The claim with the roles.
    pub role_claim: String,
    /// How far the clock of the issuer may be off.
    pub leeway: Duration,
}

impl JwtRules {
    /// Whose token this is.
    pub(crate) fn verify(&self, keys: &JwtKeys, token: &str) -> Result<Arc<Principal>> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid("too long"));
        }
        match keys.checked.owner(token, get_current_timestamp()) {
            Some(owner) => Ok(owner),
            None => self.check(keys, token),
        }
    }

    fn check(&self, keys: &JwtKeys, token: &str) -> Result<Arc<Principal>> {
        let header = decode_header(token).map_err(refused)?;
        if header.crit.is_some() {
            return Err(invalid("crit"));
        }
        let key = keys.find(&header).ok_or_else(|| invalid("no such key"))?;
        let Claims(claims) = decode::<Claims>(token, key, &self.validation(header.alg)).map_err(refused)?.claims;
        // The library takes a list of issuers for any of them.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(invalid("another issuer"));
        }
        let owner = Arc::new(self.principal(&claims));
        if let Some(end) = claims.get("exp").and_then(Value::as_u64) {
            keys.checked.keep(token, &owner, end.saturating_add(self.leeway.as_secs()));
        }
        Ok(owner)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.validate_nbf = true;
        validation.leeway = self.leeway.as_secs();
        validation
    }

    /// Other roles than ours, and what is no project id, give nothing.
    fn principal(&self, claims: &Value) -> Principal {
        let mut principal = Principal::new(claims.get("sub").and_then(Value::as_str).unwrap_or_default());
        let rights: Rights = words(claims, &self.role_claim).filter_map(Role::named).collect();
        for project in words(claims, &self.project_claim).filter_map(|word| ProjectId::parse(word).ok()) {
            principal.grant(project, rights);
        }
        principal
    }
}

/// Claims, each of them once: of two with one name some readers take the first and some the last.
struct Claims(Value);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EachOnce)
    }
}

struct EachOnce;

impl<'de> Visitor<'de> for EachOnce {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with each claim once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Claims, A::Error> {
        let mut claims = Map::new();
        while let Some((name, value)) = entries.next_entry::<String, Value>()? {
            if claims.insert(name, value).is_some() {
                return Err(de::Error::custom("a claim twice"));
            }
        }
        Ok(Claims(Value::Object(claims)))
    }
}

/// Whether a token has the form of a JWT.
pub(super) fn is_jwt(token: &str) -> bool {
    token.split('.').count() == 3
}

/// The words of a claim: a text of words or a list of texts.
fn words<'a>(claims: &'a Value, path: &str) -> impl Iterator<Item = &'a str> {
    let claim = claim(claims, path);
    let list = claim.and_then(Value::as_array).into_iter().flatten();
    claim.into_iter().chain(list).filter_map(Value::as_str).flat_map(str::split_whitespace)
}

/// A claim by its name, or by names with dots between them when it is inside of others (`resource_access.dms.roles`).
fn claim<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| path.split('.').try_fold(claims, |inside, name| inside.get(name)))
}

/// The reason is for the log: strangers all get the same answer, but for a token that was good once.
fn refused(error: jsonwebtoken::errors::Error) -> Error {
    match error.kind() {
        JwtError::ExpiredSignature => Error::new(ErrorKind::TokenExpired, "the token has expired"),
        // Some kinds quote the token.
        JwtError::InvalidSignature => invalid("wrong signature"),
        JwtError::InvalidIssuer => invalid("another issuer"),
        JwtError::InvalidAudience => invalid("for another audience"),
        JwtError::ImmatureSignature => invalid("not good yet"),
        JwtError::MissingRequiredClaim(_) => invalid("exp, iss or aud missing"),
        _ => invalid("malformed"),
    }
}

fn invalid(reason: &'static str) -> Error {
    tracing::debug!(reason, "a JWT is refused");
    Error::new(ErrorKind::TokenInvalid, "the token is not valid")
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
