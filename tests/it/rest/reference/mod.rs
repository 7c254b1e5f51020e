//! docs/openapi.yaml, which docs/rest.md is rendered from, and the service that they describe.

mod document;
mod page;
mod scene;
mod shape;
mod tables;
mod wrong;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use dms::gateway::documented_paths;
use reqwest::Method;
use serde_json::Value as Json;
use serde_yaml_ng::Value;

use self::document::{Operation, file, load, map, operations, row, text};
use self::scene::{Scene, escaped, example_parameters, query, values};
use crate::support::panics;
use crate::support::rest::Rest;
use crate::support::service::TestService;

#[test]
fn rest_page_is_fresh() {
    let page = page::render(&load());
    if std::env::var_os("DMS_WRITE_REFERENCE").is_some() {
        fs::write(file("rest.md"), &page).unwrap();
    }
    assert_eq!(fs::read_to_string(file("rest.md")).unwrap(), page, "run: DMS_WRITE_REFERENCE=1 cargo test rest_page");
}

#[test]
fn every_code_of_the_document_is_in_the_table_of_errors() {
    let document = load();
    let mut of_rules = operations(&document).into_iter().map(|operation| operation.spec["x-errors"].clone());
    let common = document["x-common-errors"].clone();
    let codes: Vec<String> = of_rules.by_ref().chain([common]).flat_map(|codes| names(&codes)).collect();
    assert!(codes.len() > 50, "{codes:?}");
    for code in codes {
        row(&code);
    }
}

fn names(codes: &Value) -> Vec<String> {
    map(codes).map(|(code, _)| text(code).to_owned()).collect()
}

#[test]
fn documented_answers_are_as_their_schemas_say() {
    for operation in operations(&load()) {
        let Some(schema) = operation.answer_schema() else { continue };
        let example = document::json(&operation.success().1["content"]["application/json"]["example"]);
        assert_eq!(shape::faults(schema, &example), [""; 0], "{}", operation.name());
    }
}

/// The path of an empty key, which has an error of its own, and is part of `/queue/{queue_id}/tags/{key}` to a caller.
const EMPTY_KEY: &str = "/queue/{queue_id}/tags/";

#[tokio::test]
async fn the_document_has_every_path_and_method_of_the_service_and_no_others() {
    let (_service, rest) = start().await;
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for operation in operations(&load()) {
        documented.entry(operation.path).or_default().insert(operation.method);
    }
    let paths: BTreeSet<&str> = documented_paths().into_iter().filter(|path| *path != EMPTY_KEY).collect();
    assert_eq!(documented.keys().map(String::as_str).collect::<BTreeSet<_>>(), paths);
    for (path, methods) in documented {
        // No method that a path might have.
        let answer = rest.call(Method::from_bytes(b"FOO").unwrap(), &path.replace(['{', '}'], ""), None).await;
        assert_eq!(answer.code(), (405, "DMS.00405001".into()), "{path}");
        let allowed = answer.headers["allow"].to_str().unwrap();
        let allowed: BTreeSet<String> = allowed.split(',').filter(|name| *name != "HEAD").map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

async fn start() -> (TestService, Rest) {
    panics::watch();
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    (service, rest)
}

#[tokio::test]
async fn examples_are_answered_as_documented() {
    let (_service, rest) = start().await;
    for operation in operations(&load()) {
        let mut seen = BTreeSet::new();
        let bodies: Vec<Option<&Value>> = match operation.bodies() {
            none if none.is_empty() => vec![None],
            bodies => bodies.into_iter().map(Some).collect(),
        };
        for (number, body) in bodies.into_iter().enumerate() {
            let scene = Scene::of(&rest, &operation, number).await;
            seen.extend(answered(&scene, &operation, body).await);
        }
        let documented = operation.answer_schema().map(shape::properties).unwrap_or_default();
        for (place, field) in documented {
            let shown = seen.contains(&place) || field["x-in-examples"] == false;
            assert!(shown, "the answer to no example has {}{place}", operation.name());
        }
    }
    panics::none_seen();
}

/// Calls the operation; the places of the fields of its answer.
async fn answered(scene: &Scene, operation: &Operation, body: Option<&Value>) -> Vec<String> {
    let path = scene.path(&operation.path) + &query(&example_parameters(operation));
    let body = body.map(|body| scene.body(body).to_string().into_bytes());
    let answer = scene.call(operation, &path, body).await;
    assert_eq!(answer.headers.get("x-dms-ignored"), None, "{}", operation.name());
    let answer = answer.ok(operation.success().0);
    let Some(schema) = operation.answer_schema() else {
        assert_eq!(answer, Json::Null, "{}", operation.name());
        return Vec::new();
    };
    assert_eq!(shape::faults(schema, &answer), [""; 0], "{}", operation.name());
    shape::properties(schema).into_iter().map(|(place, _)| place).filter(|at| answer.pointer(at).is_some()).collect()
}

#[tokio::test]
async fn bodies_outside_of_a_documented_limit_are_refused_with_the_documented_code() {
    let (_service, rest) = start().await;
    let mut tried = 0;
    for operation in operations(&load()) {
        let scene = Scene::of(&rest, &operation, 0).await;
        for wrong in wrong::bodies(&operation) {
            let answer = scene.call(&operation, &scene.path(&operation.path), Some(wrong.body)).await;
            refused(&answer, &wrong.code, &format!("{} {}", operation.name(), wrong.what));
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
    panics::none_seen();
}

#[track_caller]
fn refused(answer: &crate::support::rest::Answer, code: &str, what: &str) {
    let expected = (row(code).http, format!("DMS.{code}"));
    let (status, code, message) = answer.error();
    assert_eq!((status, code), expected, "{what}: {message}");
}

#[tokio::test]
async fn parameters_outside_of_a_documented_limit_are_refused_with_the_documented_code() {
    let (_service, rest) = start().await;
    for operation in operations(&load()) {
        let scene = Scene::of(&rest, &operation, 0).await;
        for parameter in operation.parameters.iter().filter(|parameter| parameter["in"] == "query") {
            wrong_parameter(&scene, &operation, parameter).await;
        }
        for parameter in operation.parameters.iter().filter(|parameter| parameter["in"] == "path") {
            wrong_part(&scene, &operation, parameter).await;
        }
    }
    let malformed = rest.at("v1.0", &escaped("a<b")).get("/queues").await;
    refused(&malformed, "10240005", "project_id");
    panics::none_seen();
}

async fn wrong_parameter(scene: &Scene, operation: &Operation, parameter: &Value) {
    let (name, schema) = (text(&parameter["name"]), &parameter["schema"]);
    // Any text can be in a URL; a type is about what it says.
    let of_items = schema.get("items").map(|items| wrong::wrong_values(items, None)).unwrap_or_default();
    let wrong = wrong::wrong_values(schema, None).into_iter().chain(of_items);
    for (kind, value) in wrong.filter(|(kind, value)| *kind != "type" || !value.is_i64()) {
        let pairs: Vec<_> = values(&value).into_iter().map(|value| (name.to_owned(), value)).collect();
        let answer = scene.call(operation, &(scene.path(&operation.path) + &query(&pairs)), None).await;
        match wrong::code(schema, kind, name).as_str() {
            "ignored" => drop(answer.ok(operation.success().0)),
            code => refused(&answer, code, &format!("{} {name} {kind} {value}", operation.name())),
        }
    }
}

async fn wrong_part(scene: &Scene, operation: &Operation, parameter: &Value) {
    let name = text(&parameter["name"]);
    let path = scene.path(&operation.path.replace(&format!("{{{name}}}"), &escaped("a<b")));
    let body = operation.bodies().first().map(|body| scene.body(body).to_string().into_bytes());
    let answer = scene.call(operation, &path, body).await;
    refused(&answer, &wrong::code(&parameter["schema"], "pattern", name), &format!("{} {name}", operation.name()));
}
