//! Authentication and authorisation: credentials in, a [`Principal`] or an error out. One file for each method.
//!
//! Nothing here knows gRPC or HTTP; `api` asks at the door of every call (`api/access.rs`), for gRPC and REST alike.

mod access_keys;
mod canonical;
pub mod credentials;
mod grant;
mod jwt;
mod jwt_keys;
mod jwt_memory;
mod jwt_provider;
mod principal;
mod replay;
pub mod rights;
mod sdk_date;
mod signatures;
mod tokens;

use std::sync::Arc;

use self::access_keys::AccessKeys;
pub use self::credentials::Credentials;
pub use self::jwt::JwtRules;
use self::jwt_keys::JwtKeys;
pub use self::principal::Principal;
pub use self::signatures::SignatureRules;
use self::signatures::{Received, Signatures};
use self::tokens::Tokens;
use crate::domain::signed_request::SignedRequest;
use crate::domain::{Error, ErrorKind, Result};
use crate::observe::log_limit::LogLimit;
use crate::reload::{Freshness, Source, Watched};

static DIGEST_BY_LINE: LogLimit = LogLimit::new();

/// How callers prove who they are.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum AuthOptions {
    /// Not at all: anyone may do anything.
    Open,
    /// In one of these ways.
    Required(Methods),
}

/// The ways to prove it; at least one.
#[derive(Debug, Clone, Default)]
pub struct Methods {
    /// Static bearer tokens.
    pub tokens: Option<Source>,
    /// JWTs.
    pub jwt: Option<JwtOptions>,
    /// Signed requests.
    pub signatures: Option<SignatureOptions>,
}

impl AuthOptions {
    /// The ways that are allowed; none when anyone may do anything.
    pub fn names(&self) -> Vec<&'static str> {
        let Self::Required(Methods { tokens, jwt, signatures }) = self else { return Vec::new() };
        let allowed = [("tokens", tokens.is_some()), ("jwt", jwt.is_some()), ("aksk", signatures.is_some())];
        allowed.into_iter().filter_map(|(name, allowed)| allowed.then_some(name)).collect()
    }
}

/// How JWTs are checked.
#[derive(Debug, Clone)]
pub struct JwtOptions {
    /// The public keys of the issuer.
    pub keys: Source,
    /// What a token must say.
    pub rules: JwtRules,
}

/// How signed requests are checked.
#[derive(Debug, Clone)]
pub struct SignatureOptions {
    /// The access keys and their secrets.
    pub keys: Source,
    /// What a request must be beside signed.
    pub rules: SignatureRules,
}

/// Checks credentials. Clones share what they know.
#[derive(Debug, Clone)]
pub struct Authenticator(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Set when nobody has to prove anything.
    anyone: Option<Arc<Principal>>,
    tokens: Option<Arc<Watched<Tokens>>>,
    jwt: Option<(Arc<Watched<JwtKeys>>, JwtRules)>,
    signatures: Option<(Arc<Watched<AccessKeys>>, Signatures)>,
}

impl Authenticator {
    /// Lets anyone in.
    pub fn open() -> Self {
        Self(Arc::new(Known { anyone: Some(Arc::new(Principal::anyone())), ..Known::default() }))
    }

    /// Reads all sources; each must be good.
    pub async fn load(options: AuthOptions) -> Result<Self> {
        let methods = match options {
            AuthOptions::Open => return Ok(Self::open()),
            AuthOptions::Required(methods) => methods,
        };
        let mut known = Known::default();
        if let Some(source) = methods.tokens {
            known.tokens = Some(Arc::new(Watched::one("tokens", source, Tokens::parse).await?));
        }
        if let Some(JwtOptions { keys, rules }) = methods.jwt {
            known.jwt = Some((Arc::new(Watched::one("jwks", keys, JwtKeys::parse).await?), rules));
        }
        if let Some(SignatureOptions { keys, rules }) = methods.signatures {
            let keys = Arc::new(Watched::one("access-keys", keys, AccessKeys::parse).await?);
            known.signatures = Some((keys, Signatures::new(rules)));
        }
        Ok(Self(Arc::new(known)))
    }

    /// Lets what is known follow its sources, for ever.
    pub(crate) async fn follow_sources(self) {
        let Known { tokens, jwt, signatures, .. } = &*self.0;
        tokio::join!(
            follow(tokens.as_ref()),
            follow(jwt.as_ref().map(|(keys, _)| keys)),
            follow(signatures.as_ref().map(|(keys, _)| keys)),
        );
    }

    /// How the sources do.
    pub(crate) fn freshness(&self) -> Vec<Arc<Freshness>> {
        let Known { tokens, jwt, signatures, .. } = &*self.0;
        let known = [
            tokens.as_ref().and_then(|set| set.freshness()),
            jwt.as_ref().and_then(|(keys, _)| keys.freshness()),
            signatures.as_ref().and_then(|(keys, _)| keys.freshness()),
        ];
        known.into_iter().flatten().collect()
    }

    /// Who shows these credentials.
    pub fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Arc<Principal>> {
        if let Some(anyone) = &self.0.anyone {
            return Ok(Arc::clone(anyone));
        }
        match credentials {
            Credentials::None => Err(Error::new(ErrorKind::TokenMissing, "this call needs credentials")),
            Credentials::Token(token) => self.owner_of(token),
            Credentials::Signature(authorization, request) => match (&self.0.signatures, request) {
                (Some((keys, signatures)), Some(request)) => {
                    signatures.verify(&keys.get(), authorization, request, Received::now())
                }
                _ => Err(not_valid("no way to check a signature here")),
            },
            Credentials::Unreadable => Err(not_valid("unreadable")),
        }
    }

    /// Looks at a signed request whose body has not come: whether it may turn out to be good.
    ///
    /// # Errors
    /// `TokenInvalid` or `TokenExpired`, whatever its body is.
    pub(crate) fn may_be_signed(&self, authorization: &str, head: &SignedRequest) -> Result<()> {
        match (&self.0.anyone, &self.0.signatures) {
            (Some(_), _) => Ok(()),
            (None, Some((keys, signatures))) => {
                signatures.check_head(&keys.get(), authorization, head, Received::now())
            }
            (None, None) => Err(not_valid("no way to check a signature here")),
        }
    }

    fn owner_of(&self, token: &str) -> Result<Arc<Principal>> {
        let known = self.0.tokens.as_ref().and_then(|tokens| tokens.get().owner(token).map(Arc::clone));
        match (known, &self.0.jwt) {
            (Some(owner), _) => Ok(owner),
            (None, Some((keys, rules))) if jwt::is_jwt(token) => {
                rules.verify(&keys.get(), token).inspect_err(|error| {
                    // It may be of a key that the issuer has had for a moment.
                    if error.kind() == ErrorKind::TokenInvalid {
                        keys.look_soon();
                    }
                })
            }
            _ => Err(self.digest_by_line(token).unwrap_or_else(|| not_valid("unknown token"))),
        }
    }

    /// The error for a token whose digest was made of it and a newline: the one mistake that can be told from a wrong token.
    fn digest_by_line(&self, token: &str) -> Option<Error> {
        let tokens = self.0.tokens.as_ref()?.get();
        let owner = tokens.owner_by_line(token)?;
        let message =
            "its sha256 in the list of tokens is of the token and a newline: make it with printf instead of echo";
        if let Some(left_out) = DIGEST_BY_LINE.admits() {
            tracing::warn!(name = owner.name(), left_out, "a token is refused: {message}");
        }
        Some(Error::new(ErrorKind::TokenInvalid, format!("the token is not valid: {message}")))
    }
}

async fn follow<T: Send + Sync + 'static>(set: Option<&Arc<Watched<T>>>) {
    if let Some(set) = set {
        Arc::clone(set).follow().await;
    }
}

/// The reason is for the log: strangers all get the same answer.
fn not_valid(reason: &'static str) -> Error {
    tracing::debug!(reason, "credentials are refused");
    Error::new(ErrorKind::TokenInvalid, "the credentials are not valid")
}
