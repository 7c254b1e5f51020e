//! The public keys of a token issuer: a JSON Web Key Set.

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

use super::grant::from_json;
use super::jwt_memory::Memory;
use super::jwt_provider;
use crate::reload::Malformed;

/// The keys that can check a token.
#[derive(Debug)]
pub(crate) struct JwtKeys {
    keys: Vec<JwtKey>,
    /// Good tokens; with the keys goes what was checked with them.
    pub(super) checked: Memory,
}

#[derive(Debug)]
struct JwtKey {
    id: Option<String>,
    /// The only one it is for, when the issuer says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct File {
    keys: Vec<Value>,
}

impl JwtKeys {
    /// Reads a JWKS. Keys of kinds that are not accepted are passed over; at least one must be left.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, Malformed> {
        jwt_provider::install();
        let file: File = from_json(json)?;
        let keys: Vec<_> = file.keys.into_iter().filter_map(usable).collect();
        match keys.is_empty() {
            true => Err(Malformed("no public key that can check a signature".into())),
            false => Ok(Self { keys, checked: Memory::default() }),
        }
    }

    /// The key that a token names; when it names none, the only one that fits.
    pub(super) fn find(&self, header: &Header) -> Option<&DecodingKey> {
        let named = |key: &&JwtKey| header.kid.is_none() || key.id == header.kid;
        let mut fitting = self.keys.iter().filter(named).filter(|key| key.fits(header.alg));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Some(&key.key),
            _ => None,
        }
    }
}

impl JwtKey {
    fn fits(&self, algorithm: Algorithm) -> bool {
        let only = self.algorithm.is_none_or(|only| only == algorithm);
        only && jwt_provider::is_accepted(algorithm) && self.key.family() == algorithm.family()
    }
}

fn usable(jwk: Value) -> Option<JwtKey> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    let for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let algorithm = match jwk.common.key_algorithm {
        Some(named) => Some(Algorithm::try_from(named).ok().filter(|algorithm| jwt_provider::is_accepted(*algorithm))?),
        None => None,
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let public = key.family() != Algorithm::HS256.family();
    (for_signatures && public).then_some(JwtKey { id: jwk.common.key_id, algorithm, key })
}
