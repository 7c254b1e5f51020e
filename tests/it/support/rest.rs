//! A REST client as a stranger writes one: paths, JSON text, status codes. It checks of every answer what holds for all.

use std::time::SystemTime;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;

use super::panics;
use super::service::{PROJECT, Replica, TestService};
use super::signer::Signer;

/// Calls below `/{version}/{project}`.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    root: String,
    base: String,
    http: reqwest::Client,
    shows: Shows,
}

/// What a client shows of itself.
#[derive(Debug, Clone, Default)]
enum Shows {
    #[default]
    Nothing,
    Header(&'static str, String),
    Signature(Signer),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: header::HeaderMap,
    pub text: String,
}

impl Rest {
    /// Below `/v1.0` and the project of the tests.
    pub(crate) fn new(replica: &Replica) -> Self {
        Self::on(replica.rest())
    }

    /// The same on any server.
    pub(crate) fn on(root: &str) -> Self {
        let root = root.to_owned();
        Self { base: format!("{root}/v1.0/{PROJECT}"), root, http: reqwest::Client::new(), shows: Shows::Nothing }
    }

    /// `http://host:port`.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// The same over connections of its own.
    pub(crate) fn anew(&self) -> Self {
        Self { http: reqwest::Client::new(), ..self.clone() }
    }

    /// With a header on every request.
    pub(crate) fn showing(&self, header: &'static str, value: &str) -> Self {
        Self { shows: Shows::Header(header, value.to_owned()), ..self.clone() }
    }

    /// With a signature on every request.
    pub(crate) fn signing(&self, signer: &Signer) -> Self {
        Self { shows: Shows::Signature(signer.clone()), ..self.clone() }
    }

    /// Below another version and project.
    pub(crate) fn at(&self, version: &str, project: &str) -> Self {
        Self { base: format!("{}/{version}/{project}", self.root), ..self.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, Some(body.to_string().into_bytes())).await
    }

    /// Any bytes as a body.
    pub(crate) async fn post_bytes(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.call(Method::POST, path, Some(body.into())).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Answer {
        let request = self.http.request(method, format!("{}{path}", self.base));
        self.send(body.into_iter().fold(request, reqwest::RequestBuilder::body)).await
    }

    /// What a probe gets at a path outside the API: status and text.
    pub(crate) async fn probe(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("{}{path}", self.root)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// A request to be made by hand.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request made by hand.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let mut request = request.build().unwrap();
        match &self.shows {
            Shows::Nothing => {}
            Shows::Header(name, value) => drop(request.headers_mut().append(*name, value.parse().unwrap())),
            Shows::Signature(signer) => signer.sign(&mut request, SystemTime::now()),
        }
        self.execute(request).await
    }

    /// Sends exactly this.
    pub(crate) async fn execute(&self, request: reqwest::Request) -> Answer {
        let response = self.http.execute(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        assert!(headers.contains_key("x-request-id"), "{status} {text}");
        match status {
            StatusCode::NO_CONTENT => assert_eq!(text, ""),
            _ if text.is_empty() => {}
            _ => assert_eq!(headers[header::CONTENT_TYPE], "application/json", "{text}"),
        }
        Answer { status: status.as_u16(), headers, text }
    }

    /// Creates a queue; its id.
    pub(crate) async fn queue(&self, settings: &Value) -> String {
        text(&self.post("/queues", settings).await.ok(201)["id"])
    }

    /// Creates a group; its path.
    pub(crate) async fn group(&self, queue: &str, name: &str) -> String {
        let path = format!("/queues/{queue}/groups");
        let created = self.post(&path, &json!({ "groups": [{ "name": name }] })).await.ok(201);
        format!("{path}/{}", text(&created["groups"][0]["id"]))
    }

    /// A NORMAL queue with a group: the queue's id and the group's path.
    pub(crate) async fn queue_and_group(&self, settings: &Value) -> (String, String) {
        let queue = self.queue(settings).await;
        let group = self.group(&queue, "billing").await;
        (queue, group)
    }

    /// Sends messages.
    pub(crate) async fn send_messages(&self, queue: &str, messages: &Value) {
        let sent = self.post(&format!("/queues/{queue}/messages"), &json!({ "messages": messages })).await;
        sent.ok(201);
    }

    /// Sends one message for each body.
    pub(crate) async fn send_bodies(&self, queue: &str, bodies: &[Value]) {
        let messages: Vec<Value> = bodies.iter().map(|body| json!({ "body": body })).collect();
        self.send_messages(queue, &json!(messages)).await;
    }

    /// Consumes with a short wait: bodies and handlers.
    pub(crate) async fn consume(&self, group: &str) -> (Vec<Value>, Vec<String>) {
        taken(&self.get(&format!("{group}/messages?time_wait=1")).await)
    }

    /// Consumes dead letters with a short wait: bodies and handlers.
    pub(crate) async fn consume_dead_letters(&self, group: &str) -> (Vec<Value>, Vec<String>) {
        taken(&self.get(&format!("{group}/deadletters?time_wait=1")).await)
    }

    /// Acknowledges `(handler, status)` pairs.
    pub(crate) async fn ack(&self, group: &str, entries: &[(&str, &str)]) -> Answer {
        self.post(&format!("{group}/ack"), &ack_body(entries)).await
    }
}

impl Answer {
    /// The JSON of an answer with this status; null when it is empty.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { serde_json::from_str(&self.text).unwrap() }
    }

    /// Status, code and message of an answer that must be an error of the documented shape.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, String, String) {
        let body: Value = serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text));
        let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["error_code", "error_msg"], "{}", self.text);
        (self.status, text(&body["error_code"]), text(&body["error_msg"]))
    }

    /// Its status and code.
    #[track_caller]
    pub(crate) fn code(&self) -> (u16, String) {
        let (status, code, _) = self.error();
        (status, code)
    }
}

/// The body of an acknowledgement.
pub(crate) fn ack_body(entries: &[(&str, &str)]) -> Value {
    let entry = |(handler, status): &(&str, &str)| json!({ "handler": handler, "status": status });
    json!({ "message": entries.iter().map(entry).collect::<Vec<_>>() })
}

/// All handlers with one status.
pub(crate) fn all<'a>(handlers: &'a [String], status: &'a str) -> Vec<(&'a str, &'a str)> {
    handlers.iter().map(|handler| (handler.as_str(), status)).collect()
}

/// The text of a JSON string.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[track_caller]
fn taken(answer: &Answer) -> (Vec<Value>, Vec<String>) {
    let list = answer.ok(200);
    let list = list.as_array().unwrap();
    list.iter().map(|taken| (taken["message"]["body"].clone(), text(&taken["handler"]))).unzip()
}

/// A snapshot: what differs from run to run is checked for its form and replaced by a name.
pub(crate) fn masked(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(masked).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key.clone(), mask(&key, value))).collect(),
        other => other,
    }
}

fn mask(key: &str, value: Value) -> Value {
    let is_uuid = |text: &str| text.len() == 36 && Uuid::try_parse(text).is_ok();
    let form = match (key, &value) {
        ("id" | "queue_id" | "resource_id", Value::String(id)) => {
            if is_uuid(id) {
                Some("<id>")
            } else {
                id.strip_prefix("g-").filter(|id| is_uuid(id)).map(|_| "<group id>")
            }
        }
        ("handler", Value::String(handler)) => (!handler.is_empty()).then_some("<handler>"),
        ("created" | "eff_date", Value::Number(millis)) => {
            // In this century, and not in seconds.
            millis.as_i64().filter(|millis| (1_700_000_000_000..4_000_000_000_000).contains(millis)).map(|_| "<ms>")
        }
        ("kafka_topic", Value::String(topic)) => {
            topic.strip_prefix(&format!("k-{PROJECT}-")).filter(|id| is_uuid(id)).map(|_| "<topic>")
        }
        _ => None,
    };
    form.map_or_else(|| masked(value), Value::from)
}

/// A service watched for panics, with a queue and a group (their ids).
pub(crate) async fn start() -> (TestService, Rest, String, String) {
    panics::watch();
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    (service, rest, queue, group)
}

/// The service answers, and nothing has panicked.
pub(crate) async fn is_well(rest: &Rest, queue: &str, group: &str) {
    rest.send_bodies(queue, &[json!("still here")]).await;
    let (bodies, handlers) = rest.consume(group).await;
    assert_eq!(bodies, [json!("still here")]);
    rest.ack(group, &all(&handlers, "success")).await.ok(200);
    panics::none_seen();
}
