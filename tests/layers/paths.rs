//! The paths that a source file names: of `use` trees, grouped and over several lines too, and in code and macros. Comments name none.

use proc_macro2::{TokenStream, TokenTree};

use crate::tokens::{self, is_mark};

/// A path as a file names it, with what it is relative to filled in: `crate` is always the first segment of one of its own crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub line: usize,
    pub segments: Vec<String>,
}

impl Named {
    /// What comes behind `crate`.
    pub(crate) fn inside(&self) -> Option<&[String]> {
        self.segments.split_first().and_then(|(root, rest)| (root == "crate").then_some(rest))
    }

    pub(crate) fn crate_name(&self) -> &str {
        &self.segments[0]
    }
}

/// The paths in a source that is the module of this name, such as `["store", "log"]`.
pub(crate) fn of(source: &str, module: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    walk(tokens::of(source), module, &mut found);
    found
}

/// The module that a file below `src` is; `x_tests.rs` is the module of tests in `x.rs`.
pub(crate) fn module_of(file: &str) -> Vec<String> {
    let mut module: Vec<_> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let last = module.pop().unwrap_or_default();
    match (last.as_str(), last.strip_suffix("_tests")) {
        ("mod", _) => {}
        ("lib" | "main", _) if module.is_empty() => {}
        (_, Some(tested)) => module.extend([tested.to_owned(), "tests".to_owned()]),
        _ => module.push(last),
    }
    module
}

fn walk(tokens: TokenStream, module: &[String], found: &mut Vec<Named>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let rest = &tokens[at..];
        at += match token {
            TokenTree::Punct(_) => tokens::documentation(rest).max(1),
            TokenTree::Ident(word) if word == "use" => imported(rest, module, found),
            TokenTree::Ident(word) if word == "mod" => inline_module(rest, module, found),
            TokenTree::Ident(_) => path(rest, module, found),
            TokenTree::Group(group) => {
                walk(group.stream(), module, found);
                1
            }
            _ => 1,
        };
    }
}

fn inline_module(tokens: &[TokenTree], module: &[String], found: &mut Vec<Named>) -> usize {
    if let [_, TokenTree::Ident(name), TokenTree::Group(body), ..] = tokens {
        let inner: Vec<_> = module.iter().cloned().chain([name.to_string()]).collect();
        walk(body.stream(), &inner, found);
        return 3;
    }
    1
}

/// `use` up to its semicolon; of `impl Trait + use<'a>` nothing.
fn imported(tokens: &[TokenTree], module: &[String], found: &mut Vec<Named>) -> usize {
    let Some(end) = tokens.iter().position(|token| is_mark(Some(token), ';')) else { return 1 };
    if is_mark(tokens.get(1), '<') {
        return 1;
    }
    tree(&tokens[1..end], &[], module, found);
    end
}

/// A tree of imports, behind what all of it begins with.
fn tree(tokens: &[TokenTree], before: &[String], module: &[String], found: &mut Vec<Named>) {
    for branch in tokens.split(|token| is_mark(Some(token), ',')).filter(|branch| !branch.is_empty()) {
        let (mut segments, line) = (before.to_vec(), branch[0].span().start().line);
        for token in branch {
            match token {
                TokenTree::Ident(word) if word == "as" => break,
                TokenTree::Ident(word) if word == "self" && !segments.is_empty() => {}
                TokenTree::Ident(word) => segments.push(word.to_string()),
                TokenTree::Group(group) => tree(&Vec::from_iter(group.stream()), &segments, module, found),
                _ => {}
            }
        }
        if !matches!(branch.last(), Some(TokenTree::Group(_))) {
            found.push(Named { line, segments: absolute(segments, module) });
        }
    }
}

/// A path in code. One word alone is none: what it stands for was imported, or is in the same module.
fn path(tokens: &[TokenTree], module: &[String], found: &mut Vec<Named>) -> usize {
    let (mut segments, mut length) = (Vec::new(), 0);
    while let Some(TokenTree::Ident(word)) = tokens.get(length) {
        segments.push(word.to_string());
        length += 1;
        match is_mark(tokens.get(length), ':') && is_mark(tokens.get(length + 1), ':') {
            true if matches!(tokens.get(length + 2), Some(TokenTree::Ident(_))) => length += 2,
            _ => break,
        }
    }
    if segments.len() > 1 {
        let line = tokens[0].span().start().line;
        found.push(Named { line, segments: absolute(segments, module) });
    }
    length
}

fn absolute(segments: Vec<String>, module: &[String]) -> Vec<String> {
    let ups = segments.iter().take_while(|segment| *segment == "super").count();
    let relative = ups > 0 || segments.first().is_some_and(|first| first == "self");
    if !relative {
        return segments;
    }
    let behind = segments.into_iter().skip_while(|segment| segment == "super" || segment == "self");
    let base = &module[..module.len().saturating_sub(ups)];
    ["crate".to_owned()].into_iter().chain(base.iter().cloned()).chain(behind).collect()
}
