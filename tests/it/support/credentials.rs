//! Credentials of the tests: files of tokens and keys, an issuer of JWTs, and calls that show them.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dms::auth::{AuthOptions, Methods};
use dms::reload::Source;
use http::uri::PathAndQuery;
use prost::Message as _;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;

/// A file that is removed with this value.
pub(crate) struct SecretFile(pub PathBuf);

impl SecretFile {
    pub(crate) fn new(content: &Value) -> Self {
        Self::text(&content.to_string())
    }

    pub(crate) fn text(content: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("dms-secret-{}", Uuid::new_v4().simple())));
        file.write_text(content);
        file
    }

    /// Replaces the content as a whole, as tools that rotate secrets do.
    pub(crate) fn write(&self, content: &Value) {
        self.write_text(&content.to_string());
    }

    pub(crate) fn write_text(&self, content: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }

    pub(crate) fn source(&self) -> Source {
        Source::File(self.0.clone())
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A file of tokens: `(token, projects, roles)`.
pub(crate) fn tokens(entries: &[(&str, &[&str], &[&str])]) -> Value {
    let entry = |(token, projects, roles): &(&str, &[&str], &[&str])| {
        let sha256 = hex::encode(digest(&SHA256, token.as_bytes()));
        json!({ "sha256": sha256, "name": format!("owner of {}", projects.join(" ")), "projects": projects, "roles": roles })
    };
    json!({ "tokens": entries.iter().map(entry).collect::<Vec<_>>() })
}

/// For callers with one of these tokens.
pub(crate) fn by_token(entries: &[(&str, &[&str], &[&str])]) -> AuthOptions {
    let tokens = Some(Source::Text(tokens(entries).to_string()));
    AuthOptions::Required(Methods { tokens, ..Methods::default() })
}

/// Signs JWTs.
pub(crate) struct Issuer {
    key: Ed25519KeyPair,
    id: String,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        Self { key: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(), id: Uuid::new_v4().to_string() }
    }

    /// Its public keys, as it would publish them.
    pub(crate) fn jwks(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.id, "x": x }] })
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": self.id });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// Any request of ours: the project is its first field.
#[derive(Clone, PartialEq, prost::Message)]
struct OfProject {
    #[prost(string, tag = "1")]
    project_id: String,
}

/// The paths of all methods of the API, from its description.
pub(crate) fn methods() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(dms_client::DESCRIPTOR_SET).unwrap().file;
    let path = |package: &str, service: &str, method: &str| format!("/{package}.{service}/{method}");
    let mut paths = Vec::new();
    for file in files {
        for service in &file.service {
            paths.extend(service.method.iter().map(|method| path(file.package(), service.name(), method.name())));
        }
    }
    paths
}

/// Calls a method for a project and shows some metadata.
pub(crate) async fn call(
    channel: &Channel,
    path: &str,
    project: &str,
    metadata: &[(&'static str, &str)],
) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(OfProject { project_id: project.into() });
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let codec = tonic_prost::ProstCodec::<OfProject, ()>::default();
    client.unary(request, PathAndQuery::try_from(path).unwrap(), codec).await.map(drop)
}

/// The same with a bearer token; the DMS code of the refusal, if it is refused.
pub(crate) async fn refusal(channel: &Channel, path: &str, project: &str, token: &str) -> Option<String> {
    let refused = call(channel, path, project, &[("authorization", &format!("Bearer {token}"))]).await.err();
    refused.map(|status| super::service::code(&status))
}
