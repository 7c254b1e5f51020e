//! Rules of the source beside its imports.

use proc_macro2::{Delimiter, TokenTree};

use crate::paths;
use crate::source::Source;
use crate::tokens::{self, is_mark, is_word};

const LINES_MAX: usize = 400;

/// What is wrong in a file of the service.
pub(crate) fn broken_in_service(source: &Source) -> Vec<String> {
    let named = source.file.trim_start_matches("src/");
    let found = paths::of(&source.text, &paths::module_of(named));
    let mut faults = Vec::new();
    for path in &found {
        let ends_with = |ends: &[&str]| ends.iter().any(|end| path.segments.join("::").ends_with(end));
        let mut say = |why: &str| faults.push(format!("{}:{}: {why}", source.file, path.line));
        if decides(source) && (ends_with(&["Utc::now", "OffsetDateTime::now"]) || names(path, "SystemTime")) {
            say("decisions go by Postgres's clock");
        }
        if !source.is_in("src/config") && ends_with(&["env::var", "env::var_os", "env::vars", "env::vars_os"]) {
            say("only config reads settings from the environment");
        }
    }
    if !source.is_in("src/store") {
        let sql = tokens::texts(&source.text).into_iter().filter(|(_, text)| is_sql(text));
        faults.extend(sql.map(|(line, _)| format!("{}:{line}: SQL is for store only", source.file)));
    }
    if takes_projects(source) {
        let lines = projects(&source.text).into_iter();
        faults
            .extend(lines.map(|line| format!("{}:{line}: the project of a request comes from access.rs", source.file)));
    }
    faults
}

pub(crate) fn too_long(source: &Source) -> Option<String> {
    let lines = source.text.lines().count();
    (lines > LINES_MAX).then(|| format!("{}: {lines} lines, at most {LINES_MAX} are allowed", source.file))
}

fn names(path: &paths::Named, word: &str) -> bool {
    path.segments.iter().any(|segment| segment == word)
}

fn decides(source: &Source) -> bool {
    ["src/domain", "src/store", "src/broker", "src/api", "src/gateway"].iter().any(|place| source.is_in(place))
}

/// Whether a text is a statement. Words of messages to callers are not in capitals.
pub(crate) fn is_sql(text: &str) -> bool {
    let behind = |start: &str| text.split(start).skip(1).map(str::to_owned).collect::<Vec<_>>();
    let begins_with_call = |rest: &String| {
        let name = rest.trim_start_matches(|letter: char| letter.is_ascii_lowercase() || letter == '_');
        name.len() < rest.len() && name.starts_with('(')
    };
    let sets = |rest: &String| rest.split_once(" SET").is_some_and(|(table, _)| !table.contains(' '));
    ["INSERT INTO", "DELETE FROM", "CREATE TABLE"].iter().any(|start| text.contains(start))
        || behind("SELECT ").iter().any(|rest| rest.contains(" FROM") || begins_with_call(rest))
        || behind("UPDATE ").iter().any(sets)
}

/// Whoever has the project of a request has been let in: only one file takes it out of a request.
fn takes_projects(source: &Source) -> bool {
    source.is_in("src/api") && !source.is_in("src/api/access.rs") && !source.file.ends_with("_tests.rs")
}

/// Lines with `value.project_id`, or with `ProjectId::parse` of what is no literal.
pub(crate) fn projects(source: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    tokens::from_each(tokens::of(source), &mut |rest| {
        let field = matches!(rest, [TokenTree::Ident(_), dot, name, ..]
            if is_mark(Some(dot), '.') && is_word(Some(name), "project_id"));
        if field || parses(rest) {
            lines.push(tokens::line_of(rest));
        }
    });
    lines
}

fn parses(rest: &[TokenTree]) -> bool {
    let [kind, first, second, function, TokenTree::Group(arguments), ..] = rest else { return false };
    let called = is_word(Some(kind), "ProjectId")
        && [first, second].iter().all(|mark| is_mark(Some(mark), ':'))
        && is_word(Some(function), "parse")
        && arguments.delimiter() == Delimiter::Parenthesis;
    called && !matches!(arguments.stream().into_iter().next(), Some(TokenTree::Literal(_)))
}

/// Lines of a manifest of another member that make it depend on the service.
pub(crate) fn dependencies_on_service(manifest: &str) -> Vec<String> {
    let depends = |line: &&str| {
        let rest = line.strip_prefix("dms").map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with(['=', '.'])) || line.contains("dependencies.dms]")
    };
    manifest.lines().filter(depends).map(str::to_owned).collect()
}
