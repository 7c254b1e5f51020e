//! The layering rule, held against the sources: imports point one way, SQL stays in `store`, files stay small. See docs/architecture.md.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod circles;
mod imports;
mod paths;
mod rules;
mod samples;
mod source;
mod tokens;

use std::fs;

use crate::imports::LAYERS;

const MEMBERS: [&str; 3] = ["client", "lab", "postgres"];

fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn folders_of_the_service_import_what_is_below_them() {
    none(source::below(&["src"]).iter().flat_map(imports::forbidden_in_service).collect());
}

#[test]
fn every_folder_is_in_the_table_and_knows_only_those_above_it_there() {
    let mut folders = fs::read_dir(source::root().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let unlisted = folders.find(|path| path.is_dir() && !LAYERS.iter().any(|layer| path.ends_with(layer.folder)));
    assert_eq!(unlisted, None);
    for (at, layer) in LAYERS.iter().enumerate() {
        let above: Vec<_> = LAYERS[..at].iter().map(|layer| layer.folder).collect();
        assert!(layer.knows.iter().all(|other| above.contains(other)), "{}", layer.folder);
    }
}

#[test]
fn the_lab_knows_the_service_by_its_api() {
    let sources = source::below(&MEMBERS);
    none(
        sources.iter().filter(|source| source.file.contains("/src/")).flat_map(imports::forbidden_in_member).collect(),
    );
    let manifest = |member: &str| fs::read_to_string(source::root().join(member).join("Cargo.toml")).unwrap();
    none(MEMBERS.iter().flat_map(|member| rules::dependencies_on_service(&manifest(member))).collect());
}

#[test]
fn statements_clocks_settings_and_projects_are_where_they_belong() {
    none(source::below(&["src"]).iter().flat_map(rules::broken_in_service).collect());
}

#[test]
fn files_are_small() {
    let sources = source::below(&["src", "client", "lab", "postgres", "tests/layers"]);
    assert!(sources.len() > 300);
    none(sources.iter().filter_map(rules::too_long).collect());
}

/// Circles that are there. Lanes and what they tell share `Core`, which knows all of them; a connection knows its calls, and they it.
const KNOWN_CIRCLES: [&str; 2] =
    ["net: call, connection", "broker: ack, batching, consume, core, metadata, replicas, send, upkeep"];

#[test]
fn modules_of_a_folder_have_no_new_circle() {
    let sources = source::below(&["src"]);
    let circles = |folder| circles::circles(&circles::of_folder(folder, &sources));
    let said = |folder| circles(folder).into_iter().map(move |circle| format!("{folder}: {}", circle.join(", ")));
    let found: Vec<_> = LAYERS.iter().flat_map(|layer| said(layer.folder)).collect();
    assert_eq!(found, KNOWN_CIRCLES);
}
