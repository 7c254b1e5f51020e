//! Requests that the document says are refused: for every limit of every field and parameter, a value just outside of it.

use serde_json::{Value as Json, json};
use serde_yaml_ng::Value;

use super::document::{self, Operation, list, text};
use super::shape::{properties, types};

/// A value outside of a schema, and the kind of its fault.
pub(super) type Wrong = (&'static str, Json);

/// Characters that no pattern of the document allows.
const NO_PATTERN: &str = "a<b";

/// An ill-formed body and the code that it is refused with.
#[derive(Debug)]
pub(super) struct WrongBody {
    pub what: String,
    pub body: Vec<u8>,
    pub code: String,
}

/// The bodies that an operation refuses.
pub(super) fn bodies(operation: &Operation) -> Vec<WrongBody> {
    let Some(schema) = operation.body_schema() else { return Vec::new() };
    let examples: Vec<Json> = operation.bodies().into_iter().map(document::json).collect();
    let code = |kind: &str| code(schema, kind, operation.name());
    let mut all = vec![
        WrongBody { what: "syntax".into(), body: b"{".to_vec(), code: code("syntax") },
        WrongBody { what: "not an object".into(), body: b"[]".to_vec(), code: code("type") },
    ];
    for (at, property) in properties(schema) {
        let example = example_with(&examples, &at);
        for (kind, value) in wrong_values(property, example.pointer(&at)) {
            all.push(changed(example, &at, kind, Some(value), property));
        }
        if is_required(schema, &at) {
            all.push(changed(example, &at, "missing", None, property));
        }
    }
    for refused in list(&operation.spec["x-refused"]) {
        let body = document::json(&refused["body"]).to_string();
        all.push(WrongBody { what: body.clone(), body: body.into(), code: text(&refused["error"]).into() });
    }
    all
}

fn changed(example: &Json, at: &str, kind: &str, value: Option<Json>, schema: &Value) -> WrongBody {
    let mut body = example.clone();
    let what = format!("{at}: {kind} {value:.60?}");
    let (parent, name) = at.rsplit_once('/').unwrap();
    match (body.pointer_mut(parent).unwrap(), value) {
        (Json::Object(fields), Some(value)) => drop(fields.insert(name.to_owned(), value)),
        (Json::Object(fields), None) => {
            drop(fields.remove(name).unwrap_or_else(|| panic!("{what}: not in the example")))
        }
        (Json::Array(items), Some(value)) => items[0] = value,
        (other, _) => panic!("{what}: {other}"),
    }
    WrongBody { code: code(schema, kind, &what), what, body: body.to_string().into() }
}

/// The first example that has the field, else the first that it could be in.
fn example_with<'a>(examples: &'a [Json], at: &str) -> &'a Json {
    let (parent, _) = at.rsplit_once('/').unwrap();
    let has = |place: &str| examples.iter().find(|example| example.pointer(place).is_some());
    has(at).or_else(|| has(parent)).unwrap_or_else(|| panic!("no example has {parent}"))
}

fn is_required(schema: &Value, at: &str) -> bool {
    let (parent, name) = at.rsplit_once('/').unwrap();
    let parent = parent.split('/').skip(1).fold(schema, |schema, part| match part {
        "0" => &schema["items"],
        name => &schema["properties"][name],
    });
    list(&parent["required"]).iter().any(|required| text(required) == name)
}

/// Values outside of a schema, one or two for each thing that it asks for.
pub(super) fn wrong_values(schema: &Value, example: Option<&Json>) -> Vec<Wrong> {
    let mut wrong: Vec<Wrong> = of_another_type(schema).into_iter().map(|value| ("type", value)).collect();
    wrong.extend(schema["minimum"].as_i64().map(|min| ("range", json!(min - 1))));
    wrong.extend(schema["maximum"].as_i64().map(|max| ("range", json!(max + 1))));
    wrong.extend(schema["minLength"].as_u64().map(|min| ("length", json!("x".repeat(size(min) - 1)))));
    wrong.extend(schema["maxLength"].as_u64().map(|max| ("length", json!("x".repeat(size(max) + 1)))));
    wrong.extend(schema.get("pattern").map(|_| ("pattern", json!(NO_PATTERN))));
    wrong.extend(schema.get("enum").map(|_| ("value", json!("other"))));
    wrong.extend(schema.get("minItems").map(|_| ("few", json!([]))));
    let item = example.and_then(|list| list.get(0)).cloned().unwrap_or_else(|| json!("x"));
    wrong.extend(schema["maxItems"].as_u64().map(|max| ("many", json!(vec![item; size(max) + 1]))));
    wrong
}

fn of_another_type(schema: &Value) -> Vec<Json> {
    match types(schema)[..] {
        [] => vec![],
        ["integer"] => vec![json!("x"), json!(1.5)],
        ["number" | "boolean"] => vec![json!("x")],
        ["string" | "array" | "object"] => vec![json!(7)],
        _ => vec![json!(true)],
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// The code that a fault of this kind is refused with. What a schema asks for has one, or the reference says nothing of it.
pub(super) fn code(schema: &Value, kind: &str, what: &str) -> String {
    let code = match &schema["x-error"] {
        Value::String(code) => code,
        codes => text(&codes[kind]),
    };
    assert!(!code.is_empty(), "{what}: no code for {kind}");
    code.to_owned()
}
