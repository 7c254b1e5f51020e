//! That the rules can be broken: small sources that do.

use crate::source::Source;
use crate::{circles, imports, paths, rules};

fn source(file: &str, text: &str) -> Source {
    Source { file: file.to_owned(), text: text.to_owned() }
}

fn faults(file: &str, text: &str) -> Vec<String> {
    imports::forbidden_in_service(&source(file, text))
}

#[test]
fn an_import_in_a_group_over_several_lines_is_found() {
    let text = "//! About crate::store.\nuse crate::{\n    domain::{Error, ids::QueueId},\n    store::{\n        self, Store,\n    },\n};\n";
    let found = faults("src/gateway/sample.rs", text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("src/gateway/sample.rs:5: crate::store: "), "{found:?}");
    assert!(found[1].starts_with("src/gateway/sample.rs:5: crate::store::Store: "), "{found:?}");
    assert_eq!(faults("src/broker/sample.rs", text), Vec::<String>::new());
}

#[test]
fn a_path_in_code_in_a_macro_or_relative_is_found() {
    for text in [
        "fn run() { crate::store::log::append(); }",
        "fn run() { debug!(at = %crate::store::now(), \"late\"); }",
        "use super::super::store::Store;",
        "mod tests { use super::super::super::store; }",
        "pub(in crate::store) struct Row;",
        "impl<T> From<crate::store::Row> for T {}",
    ] {
        assert_eq!(faults("src/gateway/sample.rs", text).len(), 1, "{text}");
    }
    for text in
        ["/// Not crate::store.\nfn run() {}", "const TEXT: &str = \"crate::store::Store\";", "use super::store;"]
    {
        assert_eq!(faults("src/gateway/sample.rs", text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_crate_is_found_however_it_is_imported() {
    for text in [
        "use sqlx;",
        "use sqlx as db;",
        "use {std::fmt, sqlx::PgPool};",
        "use ::sqlx::Row;",
        "fn run() -> sqlx::Result<()> {}",
    ] {
        assert_eq!(faults("src/api/sample.rs", text).len(), 1, "{text}");
        assert_eq!(faults("src/store/sample.rs", text), Vec::<String>::new(), "{text}");
    }
    assert_eq!(faults("src/app/sample.rs", "use dms_client::v1;").len(), 1);
    assert_eq!(faults("src/main.rs", "fn main() { sqlx::migrate(); }").len(), 1);
}

#[test]
fn a_file_may_know_less_than_its_folder() {
    assert_eq!(faults("src/observe/spans.rs", "use crate::{domain::trace, memory::Memory};").len(), 1);
    assert_eq!(faults("src/observe/log_limit.rs", "use super::spans;").len(), 1);
    assert_eq!(faults("src/observe/log_limit.rs", "mod tests { use super::*; }"), Vec::<String>::new());
    assert_eq!(faults("src/net/tls.rs", "use crate::reload::{Source, http_get};").len(), 1);
}

#[test]
fn the_lab_is_held_too() {
    let member = |file: &str, text: &str| imports::forbidden_in_member(&source(file, text)).len();
    assert_eq!(member("lab/src/chaos/checker/fifo.rs", "use {crate::chaos::history, rand::Rng};"), 1);
    assert_eq!(member("lab/src/bench/load.rs", "use crate::{chaos::history, harness};"), 1);
    assert_eq!(member("lab/src/bench/load.rs", "use sqlx::PgPool;"), 1);
    assert_eq!(member("lab/src/sql/peers.rs", "use sqlx::PgPool;"), 0);
    assert_eq!(member("client/src/lib.rs", "use dms::domain;"), 1);
    let manifest = "[dependencies]\ndms-client.workspace = true\ndms = { path = \"..\" }\ndms.workspace = true\n[dependencies.dms]\n";
    assert_eq!(rules::dependencies_on_service(manifest).len(), 3);
}

#[test]
fn a_statement_a_clock_a_setting_and_a_project_are_found() {
    let broken = |file: &str, text: &str| rules::broken_in_service(&source(file, text)).len();
    assert_eq!(broken("src/broker/sample.rs", "use std::{fmt, time::{Duration, SystemTime}};"), 1);
    assert_eq!(broken("src/net/sample.rs", "use std::time::SystemTime;"), 0);
    assert_eq!(broken("src/app/sample.rs", "fn run() { std::env::var_os(\"X\"); }"), 1);
    assert_eq!(broken("src/config/sample.rs", "fn run() { std::env::var(\"X\"); }"), 0);
    assert_eq!(broken("src/doctor/sample.rs", "const READ: &str = \"SELECT a\\\n  FROM t\";"), 1);
    assert_eq!(broken("src/store/sample.rs", "const READ: &str = \"SELECT a FROM t\";"), 0);
    assert_eq!(broken("src/api/sample.rs", "fn run(r: R) { ProjectId::parse(r.name); let p = r.project_id; }"), 2);
    assert_eq!(broken("src/api/access.rs", "fn run(r: R) { ProjectId::parse(r.project_id); }"), 0);
    assert_eq!(broken("src/api/sample.rs", "fn run() { ProjectId::parse(\"demo\"); R { project_id: 1 } }"), 0);
    for text in ["SELECT pg_sleep(1)", "INSERT INTO t", "UPDATE t SET a = 1", "DELETE FROM t", "CREATE TABLE t"] {
        assert!(rules::is_sql(text), "{text}");
    }
    assert!(!rules::is_sql("select one of several, UPDATE the page"));
}

#[test]
fn a_long_file_is_found() {
    assert!(rules::too_long(&source("src/sample.rs", &"\n".repeat(401))).is_some());
    assert!(rules::too_long(&source("src/sample.rs", &"\n".repeat(400))).is_none());
}

#[test]
fn a_circle_of_modules_is_found() {
    let sources = [
        source("src/broker/mod.rs", "use self::send::run; use self::ack;"),
        source("src/broker/send/mod.rs", "use super::{Broker, lane::Queue};"),
        source("src/broker/send/flush.rs", "fn run() { super::super::ack::run() }"),
        source("src/broker/lane.rs", "use crate::domain::Error;"),
        source("src/broker/ack.rs", "use crate::broker::{\n    lane,\n    send::{self, Send},\n};"),
    ];
    assert_eq!(circles::circles(&circles::of_folder("broker", &sources)), [["ack", "send"]]);
}

#[test]
fn files_are_modules() {
    for (file, module) in [
        ("main.rs", ""),
        ("store/mod.rs", "store"),
        ("store/log/segments.rs", "store::log::segments"),
        ("auth/jwt_tests.rs", "auth::jwt::tests"),
        ("net/tests.rs", "net::tests"),
    ] {
        assert_eq!(paths::module_of(file).join("::"), module);
    }
}
