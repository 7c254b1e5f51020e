//! How callers prove who they are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use http::Uri;

use super::units::{self, Seconds};
use crate::auth::{AuthOptions, JwtOptions, JwtRules, Methods, SignatureOptions, SignatureRules};
use crate::domain::hosts::HostName;
use crate::reload::{Source, http_get};

const CHOICE: &str = "tell how callers prove who they are: --auth or DMS_AUTH with tokens, jwt, aksk (one or more of them, with \
                      commas between) or none (anyone may do anything: for development only)";

/// A way to prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthMethod {
    /// Nothing is asked: anyone may do anything
    None,
    /// Static bearer tokens
    Tokens,
    /// JWTs of an OpenID Connect provider
    Jwt,
    /// Requests signed with an access key and its secret (REST only)
    Aksk,
}

/// The flags of [`AuthOptions`].
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthArgs {
    /// How callers authenticate, comma-separated; required by `dms serve`, none by default in `dms dev`
    #[arg(long, env = "DMS_AUTH", value_enum, value_name = "METHODS", value_delimiter = ',')]
    pub auth: Vec<AuthMethod>,
    /// File of tokens (see docs/security.md), reloaded when it changes
    #[arg(long, env = "DMS_AUTH_TOKENS_FILE", value_name = "FILE")]
    pub(crate) auth_tokens_file: Option<PathBuf>,
    /// The content of that file instead
    #[arg(long, env = "DMS_AUTH_TOKENS", value_name = "JSON", hide_env_values = true)]
    pub auth_tokens: Option<Secret>,
    /// File of access keys and secrets (see docs/security.md), reloaded when it changes
    #[arg(long, env = "DMS_AUTH_AKSK_FILE", value_name = "FILE")]
    pub(crate) auth_aksk_file: Option<PathBuf>,
    /// The content of that file instead; as a variable only, since other accounts can read command lines
    #[arg(long, env = "DMS_AUTH_AKSK", value_name = "JSON", hide_env_values = true)]
    pub(crate) auth_aksk: Option<Secret>,
    /// Allowed difference between the date of a signed request and the service's clock, 1m-1h
    #[arg(long, env = "DMS_AUTH_DATE_WINDOW", value_name = "TIME", default_value = "15m",
          value_parser = units::time(Duration::from_secs(60), Duration::from_secs(3600)))]
    pub(crate) auth_date_window: Seconds,
    /// Time in which a signature may be repeated, since equal requests of one second have the same, 1s-5m
    #[arg(long, env = "DMS_AUTH_REPLAY_WINDOW", value_name = "TIME", default_value = "5s",
          value_parser = units::time(Duration::from_secs(1), Duration::from_secs(300)))]
    pub(crate) auth_replay_window: Seconds,
    /// Uses of one signature in that time for requests other than GET, 1-1000
    #[arg(long, env = "DMS_AUTH_REPLAY_MAX", value_name = "COUNT", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) auth_replay_max: u32,
    /// The same for GET, 1-100000
    #[arg(long, env = "DMS_AUTH_REPLAY_POLLS_MAX", value_name = "COUNT", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) auth_replay_polls_max: u32,
    /// Hosts that requests may be signed for, HOST or HOST:PORT, comma-separated; any if not set
    #[arg(long, env = "DMS_AUTH_AKSK_HOSTS", value_name = "HOSTS", value_delimiter = ',')]
    pub(crate) auth_aksk_hosts: Vec<HostName>,
    /// File with the public keys (JWKS) of the JWT issuer, reloaded when it changes
    #[arg(long, env = "DMS_AUTH_JWKS_FILE", value_name = "FILE")]
    pub(crate) auth_jwks_file: Option<PathBuf>,
    /// URL of that document instead: https, or http on this machine; fetched every 5 min and for unknown keys
    #[arg(long, env = "DMS_AUTH_JWKS_URL", value_name = "URL", value_parser = jwks_url, conflicts_with = "auth_jwks_file")]
    pub(crate) auth_jwks_url: Option<Uri>,
    /// Required issuer (iss) of a JWT
    #[arg(long, env = "DMS_AUTH_JWT_ISSUER", value_name = "ISSUER")]
    pub(crate) auth_jwt_issuer: Option<String>,
    /// Required audience (aud) of a JWT
    #[arg(long, env = "DMS_AUTH_JWT_AUDIENCE", value_name = "AUDIENCE")]
    pub(crate) auth_jwt_audience: Option<String>,
    /// JWT claim with project ids; dots lead into nested claims
    #[arg(long, env = "DMS_AUTH_JWT_PROJECT_CLAIM", value_name = "CLAIM", default_value = "project_id")]
    pub(crate) auth_jwt_project_claim: String,
    /// JWT claim with roles: read-only, consumer, producer, admin; others are ignored
    #[arg(long, env = "DMS_AUTH_JWT_ROLE_CLAIM", value_name = "CLAIM", default_value = "roles")]
    pub(crate) auth_jwt_role_claim: String,
    /// Allowed clock difference to the JWT issuer, 0s-5m
    #[arg(long, env = "DMS_AUTH_JWT_LEEWAY", value_name = "TIME", default_value = "30s",
          value_parser = units::time(Duration::ZERO, Duration::from_secs(300)))]
    pub(crate) auth_jwt_leeway: Seconds,
}

impl AuthArgs {
    fn has_credentials(&self) -> bool {
        let files = [&self.auth_tokens_file, &self.auth_aksk_file, &self.auth_jwks_file];
        let values = [&self.auth_tokens, &self.auth_aksk];
        files.iter().any(|file| file.is_some())
            || values.iter().any(|value| value.is_some())
            || self.auth_jwks_url.is_some()
    }

    /// What was chosen; an error that names the flag when nothing was, or not all that the choice needs.
    pub fn options(&self) -> Result<AuthOptions> {
        match self.auth[..] {
            [] => bail!(CHOICE),
            [AuthMethod::None] if self.has_credentials() => {
                bail!("--auth none lets anyone in, and credentials are given beside it: {CHOICE}")
            }
            [AuthMethod::None] => return Ok(AuthOptions::Open),
            _ if self.chosen(AuthMethod::None) => bail!("--auth none stands alone: {CHOICE}"),
            _ => {}
        }
        let mut methods = Methods::default();
        if self.chosen(AuthMethod::Tokens) {
            methods.tokens = Some(source("tokens", self.auth_tokens_file.as_ref(), self.auth_tokens.as_ref())?);
        }
        if self.chosen(AuthMethod::Jwt) {
            methods.jwt = Some(self.jwt()?);
        }
        if self.chosen(AuthMethod::Aksk) {
            methods.signatures = Some(SignatureOptions {
                keys: source("aksk", self.auth_aksk_file.as_ref(), self.auth_aksk.as_ref())?,
                rules: self.signature_rules(),
            });
        }
        Ok(AuthOptions::Required(methods))
    }

    /// What was chosen, or nothing asked of anybody.
    pub(crate) fn options_or_open(&self) -> Result<AuthOptions> {
        if self.auth.is_empty() { Ok(AuthOptions::Open) } else { self.options() }
    }

    fn chosen(&self, method: AuthMethod) -> bool {
        self.auth.contains(&method)
    }

    fn signature_rules(&self) -> SignatureRules {
        SignatureRules {
            date_window: self.auth_date_window.0,
            replay_window: self.auth_replay_window.0,
            uses_max: self.auth_replay_max,
            polls_max: self.auth_replay_polls_max,
            hosts: self.auth_aksk_hosts.clone(),
        }
    }

    fn jwt(&self) -> Result<JwtOptions> {
        let keys = match (&self.auth_jwks_file, &self.auth_jwks_url) {
            (Some(path), _) => Source::File(path.clone()),
            // Not by the parser of the value, which would show it in its complaint.
            (None, Some(url)) if url.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
                bail!(
                    "--auth-jwks-url: give it without user and password: public keys are for everybody, and a URL is logged"
                )
            }
            (None, Some(url)) => Source::Url(url.clone()),
            (None, None) => {
                bail!("--auth jwt needs --auth-jwks-file (DMS_AUTH_JWKS_FILE) or --auth-jwks-url (DMS_AUTH_JWKS_URL)")
            }
        };
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let needs = |flag: &str, variable: &str| format!("--auth jwt needs {flag} ({variable})");
        let issuer = given(&self.auth_jwt_issuer);
        let audience = given(&self.auth_jwt_audience);
        let rules = JwtRules {
            issuer: issuer.with_context(|| needs("--auth-jwt-issuer", "DMS_AUTH_JWT_ISSUER"))?,
            audience: audience.with_context(|| needs("--auth-jwt-audience", "DMS_AUTH_JWT_AUDIENCE"))?,
            project_claim: self.auth_jwt_project_claim.clone(),
            role_claim: self.auth_jwt_role_claim.clone(),
            leeway: self.auth_jwt_leeway.0,
        };
        Ok(JwtOptions { keys, rules })
    }
}

fn jwks_url(text: &str) -> Result<Uri, String> {
    let uri: Option<Uri> = text.parse().ok();
    uri.filter(http_get::is_trustworthy).ok_or_else(|| "give https://..., or http:// on this machine".to_owned())
}

fn source(method: &str, file: Option<&PathBuf>, content: Option<&Secret>) -> Result<Source> {
    let variable = method.to_uppercase();
    match (file, content) {
        (Some(path), None) if method == "aksk" => Ok(Source::SecretFile(path.clone())),
        (Some(path), None) => Ok(Source::File(path.clone())),
        (None, Some(content)) => Ok(Source::Text(content.0.clone())),
        (None, None) => {
            bail!("--auth {method} needs --auth-{method}-file (DMS_AUTH_{variable}_FILE) or DMS_AUTH_{variable}")
        }
        (Some(_), Some(_)) => bail!("give --auth-{method}-file or DMS_AUTH_{variable}, not both"),
    }
}

/// A value that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("empty".to_owned()) } else { Ok(Self(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        auth: AuthArgs,
    }

    fn options(flags: &[&str]) -> Result<AuthOptions> {
        Program::parse_from(["auth"].iter().chain(flags)).auth.options()
    }

    fn refusal(flags: &[&str]) -> String {
        options(flags).unwrap_err().to_string()
    }

    #[test]
    fn a_choice_must_be_made() {
        let refused = refusal(&[]);
        for word in ["--auth", "DMS_AUTH", "tokens", "jwt", "aksk", "none"] {
            assert!(refused.contains(word), "{word}: {refused}");
        }
        assert!(refusal(&["--auth=none,tokens"]).starts_with("--auth none stands alone"));
        assert!(matches!(options(&["--auth=none"]), Ok(AuthOptions::Open)));
        let beside = refusal(&["--auth=none", "--auth-tokens-file=tokens.json"]);
        assert!(beside.starts_with("--auth none lets anyone in"), "{beside}");
    }

    #[test]
    fn a_method_needs_its_settings() {
        for (flags, missing) in [
            (&["--auth=tokens"][..], "DMS_AUTH_TOKENS_FILE"),
            (&["--auth=aksk"], "--auth-aksk-file"),
            (&["--auth=tokens", "--auth-tokens-file=f", "--auth-tokens=x"], "not both"),
            (&["--auth=jwt"], "--auth-jwks-file"),
            (&["--auth=jwt", "--auth-jwks-file=f"], "--auth-jwt-issuer"),
            (&["--auth=jwt", "--auth-jwks-file=f", "--auth-jwt-issuer=i"], "--auth-jwt-audience"),
            (&["--auth=jwt", "--auth-jwks-file=f", "--auth-jwt-issuer="], "--auth-jwt-issuer"),
            (&["--auth=jwt", "--auth-jwks-url=https://u:hunter2@id.example/keys"], "without user and password"),
            (&["--auth=jwt", "--auth-jwks-url=https://hunter2@id.example/keys"], "without user and password"),
        ] {
            assert!(refusal(flags).contains(missing), "{flags:?}: {}", refusal(flags));
            assert!(!refusal(flags).contains("hunter2"), "{flags:?}: {}", refusal(flags));
        }
    }

    #[test]
    fn methods_can_be_had_together_and_secrets_are_not_shown() {
        let jwt = ["--auth-jwks-file=f", "--auth-jwt-issuer=i", "--auth-jwt-audience=a"];
        let flags = [&["--auth=tokens,jwt,aksk", "--auth-tokens=hunter2", "--auth-aksk=hunter2"][..], &jwt].concat();
        let options = options(&flags).unwrap();
        let AuthOptions::Required(Methods { tokens: Some(_), jwt: Some(_), signatures: Some(_) }) = &options else {
            panic!("{options:?}");
        };
        assert!(!format!("{options:?} {:?}", Program::parse_from(["auth"].iter().chain(&flags))).contains("hunter2"));
    }
}
