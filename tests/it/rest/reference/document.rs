//! docs/openapi.yaml, with references replaced by what they name, and in its own order.

use std::fs;
use std::path::{Path, PathBuf};

use dms::domain::ErrorKind;
use dms::domain::error::ErrorRow;
use serde_json::Value as Json;
use serde_yaml_ng::{Mapping, Value};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A file of the documentation.
pub(super) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

pub(super) fn load() -> Value {
    let text = fs::read_to_string(file("openapi.yaml")).unwrap();
    let root: Value = serde_yaml_ng::from_str(&text).unwrap();
    resolved(&root, &root)
}

/// What stands beside a reference comes first, and wins.
fn resolved(value: &Value, root: &Value) -> Value {
    match value {
        Value::Sequence(items) => items.iter().map(|item| resolved(item, root)).collect(),
        Value::Mapping(fields) => {
            let mut all = Mapping::new();
            for (key, value) in fields.iter().filter(|(key, _)| *key != "$ref") {
                all.insert(key.clone(), resolved(value, root));
            }
            if let Some(reference) = value["$ref"].as_str() {
                for (key, value) in map(&resolved(named(reference, root), root)) {
                    all.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
            Value::Mapping(all)
        }
        other => other.clone(),
    }
}

fn named<'a>(reference: &str, root: &'a Value) -> &'a Value {
    let parts = reference.strip_prefix("#/").unwrap().split('/');
    parts.fold(root, |at, part| at.get(part).unwrap_or_else(|| panic!("nothing is called {reference}")))
}

/// A mapping; empty where there is none.
pub(super) fn map(value: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    value.as_mapping().into_iter().flatten()
}

/// A list; empty where there is none.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_sequence().map_or(&[], Vec::as_slice)
}

/// A text; empty where there is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The same as JSON, without its order.
pub(super) fn json(value: &Value) -> Json {
    serde_json::to_value(value).unwrap()
}

/// A method of a path.
#[derive(Debug)]
pub(super) struct Operation {
    pub path: String,
    pub method: String,
    pub spec: Value,
    /// Those of the path come first.
    pub parameters: Vec<Value>,
}

pub(super) fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, item) in map(&document["paths"]) {
        for (method, spec) in map(item).filter(|(method, _)| METHODS.contains(&text(method))) {
            let parameters = [list(&item["parameters"]), list(&spec["parameters"])].concat();
            let (path, method) = (text(path).to_owned(), text(method).to_uppercase());
            all.push(Operation { path, method, spec: spec.clone(), parameters });
        }
    }
    all
}

impl Operation {
    pub(super) fn name(&self) -> &str {
        text(&self.spec["operationId"])
    }

    /// The status and the description of its success.
    pub(super) fn success(&self) -> (u16, &Value) {
        let (status, answer) = map(&self.spec["responses"]).next().unwrap();
        (text(status).parse().unwrap(), answer)
    }

    /// The schema of its answer.
    pub(super) fn answer_schema(&self) -> Option<&Value> {
        self.success().1.get("content").map(|content| &content["application/json"]["schema"])
    }

    /// The schema of its body.
    pub(super) fn body_schema(&self) -> Option<&Value> {
        self.spec.get("requestBody").map(|body| &body["content"]["application/json"]["schema"])
    }

    /// The examples of its body.
    pub(super) fn bodies(&self) -> Vec<&Value> {
        let content = &self.spec["requestBody"]["content"]["application/json"];
        let several = map(&content["examples"]).map(|(_, example)| &example["value"]);
        content.get("example").into_iter().chain(several).collect()
    }
}

/// The row of a code.
pub(super) fn row(code: &str) -> ErrorRow {
    let found = ErrorKind::ALL.iter().map(|kind| kind.row()).find(|row| row.code == code);
    found.unwrap_or_else(|| panic!("DMS.{code} is not in the table of errors"))
}
