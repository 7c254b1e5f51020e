//! Whether a JSON value is as a schema of the document says: its keys, types and values.

use serde_json::Value as Json;
use serde_yaml_ng::Value;

use super::document::{json, list, map, text};

/// What is wrong with it, each with its place.
pub(super) fn faults(schema: &Value, value: &Json) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "", &mut found);
    found
}

fn check(schema: &Value, value: &Json, at: &str, found: &mut Vec<String>) {
    let types = types(schema);
    if !types.is_empty() && !types.iter().any(|name| is(name, value)) {
        found.push(format!("{at}: {value} is not {types:?}"));
        return;
    }
    let allowed = list(&schema["enum"]);
    if !allowed.is_empty() && !allowed.iter().any(|one| json(one) == *value) {
        found.push(format!("{at}: {value} is none of {allowed:?}"));
    }
    if schema.get("const").is_some_and(|only| json(only) != *value) {
        found.push(format!("{at}: {value} is not {:?}", schema["const"]));
    }
    match value {
        Json::Object(_) if schema.get("properties").is_some() => check_object(schema, value, at, found),
        Json::Array(items) => {
            let number = |(index, item)| check(&schema["items"], item, &format!("{at}/{index}"), found);
            items.iter().enumerate().for_each(number);
        }
        _ => {}
    }
}

fn check_object(schema: &Value, value: &Json, at: &str, found: &mut Vec<String>) {
    for name in list(&schema["required"]) {
        if value.get(text(name)).is_none() {
            found.push(format!("{at}: has no {}", text(name)));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => check(schema, value, &format!("{at}/{name}"), found),
            None => found.push(format!("{at}/{name}: is not documented")),
        }
    }
}

/// The types of a schema; none when it may be anything.
pub(super) fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        several => list(several).iter().map(text).collect(),
    }
}

fn is(name: &str, value: &Json) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other} is no type of JSON"),
    }
}

/// The places of all properties of a schema, as JSON pointers; those of list items under `0`.
pub(super) fn properties(schema: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    collect(schema, "", &mut found);
    found
}

fn collect<'a>(schema: &'a Value, at: &str, found: &mut Vec<(String, &'a Value)>) {
    for (name, property) in map(&schema["properties"]) {
        let at = format!("{at}/{}", text(name));
        found.push((at.clone(), property));
        collect(property, &at, found);
    }
    if let Some(items) = schema.get("items") {
        let at = format!("{at}/0");
        found.push((at.clone(), items));
        collect(items, &at, found);
    }
}
