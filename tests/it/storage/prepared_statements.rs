//! Every statement of `src/store`, prepared against the schema: what Postgres makes of it is what the code binds and reads. And no statement
//! stands where this test does not see it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dms::store::sql::Statement;
use sqlx::postgres::{PgConnection, PgTypeInfo};
use sqlx::{Column as _, Either, Executor as _, SqlSafeStr as _, Statement as _, TypeInfo as _};

use crate::support::postgres::TestDatabase;

/// What is asked otherwise, for it has names of tables, roles or databases in it, or has to work where nothing can be prepared.
const EXEMPT: [(&str, &str); 8] = [
    ("schema/database.rs", "sqlx::raw_sql(AssertSqlSafe(statement))"),
    ("schema/entry.rs", "sqlx::raw_sql(question)"),
    ("schema/relocation/found.rs", "sqlx::query_as(AssertSqlSafe(sql))"),
    ("schema/relocation/mod.rs", "sqlx::query(AssertSqlSafe(copy))"),
    ("schema/relocation/mod.rs", "sqlx::query(AssertSqlSafe(delete))"),
    ("schema/relocation/mod.rs", "sqlx::query_scalar(AssertSqlSafe(left))"),
    ("session/connect/session.rs", "sqlx::raw_sql(AssertSqlSafe(self.statements.clone()))"),
    ("session/connect/session.rs", "sqlx::raw_sql(question)"),
];

#[tokio::test]
async fn statements_are_what_the_code_takes_them_for() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    let mut wrong = Vec::new();
    for statement in dms::store::statements() {
        for what in compare(&mut sql, &statement).await {
            wrong.push(format!("{}::{}: {what}", statement.module, statement.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What Postgres says otherwise.
async fn compare(sql: &mut PgConnection, statement: &Statement) -> Vec<String> {
    let bound: Vec<PgTypeInfo> = statement.parameters.iter().map(|(_, bound)| bound.clone()).collect();
    // Postgres says which types it expects, unless anything would do: then as the code has it.
    let prepared = match sql.prepare(statement.text.into_sql_str()).await {
        Err(error) if is_indeterminate(&error) => sql.prepare_with(statement.text.into_sql_str(), &bound).await,
        prepared => prepared,
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return vec![error.to_string()],
    };
    let Some(Either::Left(expected)) = prepared.parameters() else { return vec!["no parameters are told".to_owned()] };
    let mut wrong = compare_parameters(statement, expected);
    let columns = prepared.columns();
    // Many are asked for what they do, and return something all the same.
    if !statement.columns.is_empty() && columns.len() != statement.columns.len() {
        wrong.push(format!("{} columns are returned and {} are read", columns.len(), statement.columns.len()));
    }
    for (index, read) in statement.columns.iter().enumerate() {
        let found = match read.name {
            Some(name) => columns.iter().find(|column| column.name() == name),
            None => columns.get(index),
        };
        match found {
            None => wrong.push(format!("the column {:?} is not returned", read.name)),
            Some(column) if !(read.fits)(column.type_info()) => {
                wrong.push(format!("{} is {} and read as {}", column.name(), column.type_info().name(), read.read_as));
            }
            Some(_) => {}
        }
    }
    wrong
}

fn compare_parameters(statement: &Statement, expected: &[PgTypeInfo]) -> Vec<String> {
    let mut wrong = Vec::new();
    if expected.len() != statement.parameters.len() {
        wrong.push(format!("it has {} parameters and {} are bound", expected.len(), statement.parameters.len()));
    }
    for (index, ((name, bound), expected)) in statement.parameters.iter().zip(expected).enumerate() {
        if bound.oid() != expected.oid() {
            wrong.push(format!("{name} is {} and bound as {bound:?}", expected.name()));
        }
        if !uses(statement.text, index + 1) {
            wrong.push(format!("{name} is bound and not used"));
        }
    }
    wrong
}

fn uses(text: &str, number: usize) -> bool {
    text.split('$').skip(1).any(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse() == Ok(number)
    })
}

fn is_indeterminate(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "42P18" || code == "42P08")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The code of a file of the store without comments and tests, with its path below `src/store`.
fn code() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let code = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
        let code = lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        (path.strip_prefix(&root).unwrap().display().to_string(), code)
    };
    sources(&root).into_iter().map(code).collect()
}

#[test]
fn every_statement_is_in_a_list() {
    let listed: BTreeSet<(String, String)> = dms::store::statements()
        .into_iter()
        .map(|statement| (statement.module.replace("dms::store::", "").replace("::", "/"), statement.name.to_owned()))
        .collect();
    let mut declared = BTreeSet::new();
    for (path, text) in code() {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
        for part in text.split("static ").skip(1) {
            let (name, rest) = part.split_once(':').unwrap_or_default();
            if rest.trim_start().starts_with("Sql<") {
                declared.insert((module.clone(), name.to_owned()));
            }
        }
    }
    assert_eq!(declared, listed);
}

#[test]
fn nothing_is_asked_but_by_statements() {
    for (path, mut text) in code().into_iter().filter(|(path, _)| !path.starts_with("sql/")) {
        for (_, call) in EXEMPT.iter().filter(|(file, _)| *file == path) {
            assert!(text.contains(call), "{path}: {call} is not there any more");
            text = text.replace(call, "");
        }
        for forbidden in
            ["sqlx::query", "query_as(", "query_scalar(", "raw_sql", "QueryBuilder", "AssertSqlSafe(", ".execute(\""]
        {
            assert!(!text.contains(forbidden), "{path}: {forbidden} stands outside of src/store/sql");
        }
    }
}
