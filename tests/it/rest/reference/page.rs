//! docs/rest.md, rendered from the document.

use std::fmt::Write as _;

use serde_yaml_ng::Value;

use super::document::{Operation, list, map, operations, row, text};
use super::tables;

const PROJECT: &str = "demo";

pub(super) fn render(document: &Value) -> String {
    let operations = operations(document);
    let mut page = format!(
        "# REST API

This page is rendered from [openapi.yaml](openapi.yaml), which is also for programs: generators of clients, validators.
`DMS_WRITE_REFERENCE=1 cargo test rest_page` writes it again. Tests send every example and a value beyond every limit to a real service.

{}
{}
{}
{}",
        text(&document["info"]["description"]),
        overview(&operations),
        ids(document),
        common_errors(document)
    );
    for tag in list(&document["tags"]) {
        write!(page, "## {}\n\n{}\n\n", text(&tag["name"]), text(&tag["description"])).unwrap();
        for operation in operations.iter().filter(|operation| list(&operation.spec["tags"]).contains(&tag["name"])) {
            page += &section(operation);
        }
    }
    page.trim_end().to_owned() + "\n"
}

fn overview(operations: &[Operation]) -> String {
    let mut table = String::from("## Operations\n\n| operation | method and path | status |\n|---|---|---|\n");
    for operation in operations {
        let summary = text(&operation.spec["summary"]);
        let anchor = summary.to_lowercase().replace(' ', "-").replace([',', '`'], "");
        let (method, path, status) = (&operation.method, &operation.path, operation.success().0);
        writeln!(table, "| [{summary}](#{anchor}) | `{method} {path}` | {status} |").unwrap();
    }
    table
}

fn ids(document: &Value) -> String {
    let parameters = map(&document["components"]["parameters"]).map(|(_, parameter)| parameter);
    let mut text = String::from("## Ids in paths\n\n");
    text += &tables::parameters(parameters.filter(|parameter| parameter["in"] == "path"));
    text.trim_end().to_owned() + "\n"
}

fn common_errors(document: &Value) -> String {
    let intro = "## Errors of every path\n\nEvery code there is, also as gRPC says it: [errors.md](errors.md). Codes of a field or \
                 parameter stand beside it below; those that depend on more are listed with the operation.\n\n";
    intro.to_owned() + &tables::codes(&codes(&document["x-common-errors"]))
}

fn codes(given: &Value) -> Vec<(u16, String, String)> {
    let explained = |(code, when): (&Value, &Value)| {
        let row = row(text(code));
        let when = if text(when).is_empty() { sentence(row.meaning) } else { text(when).to_owned() };
        (row.http, text(code).to_owned(), when)
    };
    let mut rows: Vec<_> = map(given).map(explained).collect();
    rows.sort();
    rows
}

fn sentence(meaning: &str) -> String {
    let mut letters = meaning.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn section(operation: &Operation) -> String {
    let (method, path, spec) = (&operation.method, &operation.path, &operation.spec);
    let mut section = format!("### {}\n\n`{method} {path}`\n\n", text(&spec["summary"]));
    let description = text(&spec["description"]).trim_end();
    if !description.is_empty() {
        section += &format!("{description}\n\n");
    }
    // Ids have a table of their own.
    let shown = |parameter: &&Value| parameter["in"] == "query" || parameter["name"] == "key";
    section += &tables::parameters(operation.parameters.iter().filter(shown));
    section += &operation.body_schema().map(tables::body).unwrap_or_default();
    section += &answer(operation);
    let errors = tables::codes(&codes(&spec["x-errors"]));
    if !errors.is_empty() {
        section += &format!("Errors:\n\n{errors}");
    }
    section + &example(operation)
}

fn answer(operation: &Operation) -> String {
    let (status, answer) = operation.success();
    let fields = operation.answer_schema().map(tables::answer).unwrap_or_default();
    format!("Answer {status}: {}\n\n{fields}", lower_first(text(&answer["description"])))
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default() + letters.as_str()
}

/// The first example: request, empty line, answer.
fn example(operation: &Operation) -> String {
    let mut lines = vec![format!("{} /v1.0/{PROJECT}{}", operation.method, url(operation))];
    lines.extend(operation.bodies().first().map(|body| tables::literal(body)));
    let (status, answer) = operation.success();
    lines.push(format!("\n{status}"));
    let answer = &answer["content"]["application/json"]["example"];
    lines.extend((!answer.is_null()).then(|| tables::literal(answer)));
    format!("```\n{}\n```\n\n", lines.join("\n"))
}

fn url(operation: &Operation) -> String {
    let mut url = operation.path.clone();
    let mut query = Vec::new();
    for parameter in &operation.parameters {
        let (name, example) = (text(&parameter["name"]), &parameter["example"]);
        if parameter["in"] == "path" {
            url = url.replace(&format!("{{{name}}}"), text(example));
        } else {
            let values = super::scene::values(&super::document::json(example));
            query.extend(values.into_iter().map(|value| format!("{name}={value}")));
        }
    }
    if query.is_empty() { url } else { format!("{url}?{}", query.join("&")) }
}
