//! The tables of docs/rest.md: fields and parameters, with type, range, default and the code that they are refused with.

use serde_yaml_ng::Value;

use super::document::{list, map, text};
use super::shape::types;

/// Parameters of the URL; ids in paths have a table of their own.
pub(super) fn parameters<'a>(parameters: impl Iterator<Item = &'a Value>) -> String {
    let mut table = String::new();
    for parameter in parameters {
        let (name, schema) = (text(&parameter["name"]), &parameter["schema"]);
        table += &input_row(name, schema, text(&parameter["description"]), parameter["required"] == true);
    }
    headed("| parameter | type | range | default | refused with DMS. | meaning |\n|---|---|---|---|---|---|\n", &table)
}

/// The fields of a body.
pub(super) fn body(schema: &Value) -> String {
    let mut table = String::new();
    for (name, field, required) in fields(schema) {
        table += &input_row(&name, field, text(&field["description"]), required);
    }
    headed("| field | type | range | default | refused with DMS. | meaning |\n|---|---|---|---|---|---|\n", &table)
}

/// The fields of an answer.
pub(super) fn answer(schema: &Value) -> String {
    let mut table = String::new();
    for (name, field, _) in fields(schema) {
        let cells = [code(&name), types_of(field), range(field), inline(text(&field["description"]))];
        table += &row(&cells);
    }
    headed("| field | type | unit, values | meaning |\n|---|---|---|---|\n", &table)
}

/// Codes with when they come.
pub(super) fn codes(rows: &[(u16, String, String)]) -> String {
    let line =
        |(http, code, when): &(u16, String, String)| row(&[http.to_string(), format!("DMS.{code}"), inline(when)]);
    let table: String = rows.iter().map(line).collect();
    headed("| status | code | when |\n|---|---|---|\n", &table)
}

fn headed(head: &str, rows: &str) -> String {
    if rows.is_empty() { String::new() } else { format!("{head}{rows}\n") }
}

fn input_row(name: &str, schema: &Value, meaning: &str, required: bool) -> String {
    let default = match schema.get("default") {
        _ if required => "required".to_owned(),
        Some(default) => code(&plain(default)),
        None => String::new(),
    };
    row(&[code(name), types_of(schema), range(schema), default, refused_with(schema), inline(meaning)])
}

fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Fields by the path that leads to them, such as `messages[].body`; scalars in lists are a row of their list.
fn fields(schema: &Value) -> Vec<(String, &Value, bool)> {
    let mut found = Vec::new();
    collect(schema, "", &mut found);
    found
}

fn collect<'a>(schema: &'a Value, at: &str, found: &mut Vec<(String, &'a Value, bool)>) {
    for (name, field) in map(&schema["properties"]) {
        let path = if at.is_empty() { text(name).to_owned() } else { format!("{at}.{}", text(name)) };
        let required = list(&schema["required"]).contains(name);
        found.push((path.clone(), field, required));
        collect(field, &path, found);
    }
    if let Some(items) = schema.get("items") {
        collect(items, &format!("{at}[]"), found);
    }
}

fn types_of(schema: &Value) -> String {
    match types(schema)[..] {
        [] => "any".to_owned(),
        ["array"] => format!("array of {}s", types_of(&schema["items"])),
        ref several => several.join(" or "),
    }
}

fn range(schema: &Value) -> String {
    let mut parts = Vec::new();
    let unit = schema["x-unit"].as_str().map(|unit| format!(" {unit}")).unwrap_or_default();
    parts.extend(ends(schema, "minimum", "maximum").map(|ends| format!("{ends}{unit}")));
    parts.extend(ends(schema, "minLength", "maxLength").map(|ends| format!("{ends} characters")));
    parts.extend(ends(schema, "minItems", "maxItems").map(|ends| format!("{ends} items")));
    parts.extend(ends(&schema["items"], "minLength", "maxLength").map(|ends| format!("{ends} characters each")));
    let values: Vec<String> = list(&schema["enum"]).iter().map(|value| code(&plain(value))).collect();
    if !values.is_empty() {
        parts.push(values.join(", "));
    }
    if parts.is_empty() { unit.trim().to_owned() } else { parts.join("; ") }
}

fn ends(schema: &Value, min: &str, max: &str) -> Option<String> {
    match (schema[min].as_i64(), schema[max].as_i64()) {
        (Some(min), Some(max)) => Some(format!("{min}-{max}")),
        (Some(min), None) => Some(format!("{min} or more")),
        (None, Some(max)) => Some(format!("at most {max}")),
        (None, None) => None,
    }
}

/// The codes of a schema and of the items of its list, each once.
fn refused_with(schema: &Value) -> String {
    let items = &schema["items"];
    let scalars = items.get("properties").is_none().then_some(items);
    let mut codes: Vec<&str> = Vec::new();
    for schema in std::iter::once(schema).chain(scalars) {
        let given = &schema["x-error"];
        codes.extend(given.as_str());
        codes.extend(map(given).map(|(_, code)| text(code)));
    }
    codes.sort_unstable();
    codes.dedup();
    match codes[..] {
        ["ignored"] => "nothing: it is ignored".to_owned(),
        _ => codes.join(", "),
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A value without the quotes of a text, unless it is empty.
fn plain(value: &Value) -> String {
    value.as_str().filter(|text| !text.is_empty()).map_or_else(|| literal(value), str::to_owned)
}

/// One line of it.
pub(super) fn inline(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value as JSON on one line, in its own order.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Mapping(fields) => {
            let field = |(key, value): (&Value, &Value)| format!("{}: {}", literal(key), literal(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Value::Sequence(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        scalar => serde_json::to_string(scalar).unwrap(),
    }
}
