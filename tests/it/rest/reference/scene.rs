//! What an operation needs to be called: a queue, a group, tags, messages in a state. Each scene is a project of its own.

use reqwest::Method;
use serde_json::{Value as Json, json};
use serde_yaml_ng::Value;

use super::document::{Operation, json as to_json, text};
use crate::support::rest::{Answer, Rest, all};

/// The trace that messages are made in and consumers are in.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(super) struct Scene {
    pub rest: Rest,
    queue: String,
    group: String,
    handler: String,
}

impl Scene {
    /// Everything that the operation is about is there.
    pub(super) async fn of(rest: &Rest, operation: &Operation, number: usize) -> Self {
        let rest = rest.at("v1.0", &format!("{}-{number}", operation.name())).showing("traceparent", TRACE);
        let redrive = json!({ "name": format!("orders-{number}"), "redrive_policy": "enable", "max_consume_count": 1 });
        let (queue, group) = rest.queue_and_group(&redrive).await;
        let mut scene = Self { rest, queue, group, handler: String::new() };
        match operation.name() {
            "consumeMessages" => scene.send().await,
            "acknowledgeMessages" => scene.lease("messages").await,
            "consumeDeadLetters" => scene.bury().await,
            "acknowledgeDeadLetters" => {
                scene.bury().await;
                scene.lease_dead_letter().await;
            }
            _ if operation.path.starts_with("/queue/") => scene.tag().await,
            _ => {}
        }
        scene
    }

    async fn send(&self) {
        self.rest.send_messages(&self.queue, &json!([{ "body": 1, "tags": ["urgent"] }])).await;
    }

    async fn lease(&mut self, source: &str) {
        self.send().await;
        self.take(source).await;
    }

    async fn lease_dead_letter(&mut self) {
        self.take("deadletters").await;
    }

    async fn take(&mut self, source: &str) {
        let taken = self.rest.get(&format!("{}/{source}", self.group)).await.ok(200);
        text_of(&taken[0]["handler"]).clone_into(&mut self.handler);
    }

    /// Makes a dead letter.
    async fn bury(&mut self) {
        self.lease("messages").await;
        self.rest.ack(&self.group, &all(std::slice::from_ref(&self.handler), "fail")).await.ok(200);
    }

    async fn tag(&self) {
        for (key, value) in [("team", "payments"), ("stage", "test"), ("action", "")] {
            let tag = json!({ "tag": { "key": key, "value": value } });
            self.rest.post(&format!("/queue/{}/tags", self.queue), &tag).await.ok(204);
        }
    }

    /// A path of the document, with what is really there for its ids.
    pub(super) fn path(&self, path: &str) -> String {
        let group = self.group.rsplit('/').next().unwrap_or_default();
        let ids = [("{queue_id}", &*self.queue), ("{group_id}", group), ("{key}", "team")];
        ids.into_iter().fold(path.to_owned(), |path, (name, id)| path.replace(name, id))
    }

    /// An example body; the handler in it is that of a message under a lease.
    pub(super) fn body(&self, example: &Value) -> Json {
        let mut body = to_json(example);
        if let Some(handler) = body.pointer_mut("/message/0/handler") {
            *handler = json!(self.handler);
        }
        body
    }

    /// Calls an operation.
    pub(super) async fn call(&self, operation: &Operation, path: &str, body: Option<Vec<u8>>) -> Answer {
        self.rest.call(Method::from_bytes(operation.method.as_bytes()).unwrap(), path, body).await
    }
}

fn text_of(value: &Json) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The query of an operation with these parameters, `name=value` each.
pub(super) fn query(parameters: &[(String, String)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// What is not plain is escaped, byte by byte.
pub(super) fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The examples of the parameters in the URL behind the path.
pub(super) fn example_parameters(operation: &Operation) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for parameter in operation.parameters.iter().filter(|parameter| parameter["in"] == "query") {
        pairs.extend(
            values(&to_json(&parameter["example"]))
                .into_iter()
                .map(|value| (text(&parameter["name"]).to_owned(), value)),
        );
    }
    pairs
}

/// A value as parameters: one for each item of a list.
pub(super) fn values(value: &Json) -> Vec<String> {
    let one = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    value.as_array().map_or_else(|| vec![one(value)], |items| items.iter().map(one).collect())
}
