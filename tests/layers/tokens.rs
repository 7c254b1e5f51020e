//! The tokens of a source file.

use std::str::FromStr as _;

use proc_macro2::{TokenStream, TokenTree};

pub(crate) fn of(source: &str) -> TokenStream {
    TokenStream::from_str(source).unwrap()
}

/// How many of the tokens that come next are a comment of documentation, which is an attribute.
pub(crate) fn documentation(tokens: &[TokenTree]) -> usize {
    if !is_mark(tokens.first(), '#') {
        return 0;
    }
    let group = 1 + usize::from(is_mark(tokens.get(1), '!'));
    match tokens.get(group) {
        Some(TokenTree::Group(inside)) if is_word(inside.stream().into_iter().next().as_ref(), "doc") => group + 1,
        _ => 0,
    }
}

/// Looks at the tokens from each one on, inside of brackets too, to the end of the brackets that it is in.
pub(crate) fn from_each(tokens: TokenStream, look: &mut impl FnMut(&[TokenTree])) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let comment = documentation(&tokens[at..]);
        if comment == 0 {
            look(&tokens[at..]);
            if let TokenTree::Group(group) = token {
                from_each(group.stream(), look);
            }
        }
        at += comment.max(1);
    }
}

/// The literals that are text, with their lines.
pub(crate) fn texts(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    from_each(of(source), &mut |tokens| {
        if let Some(TokenTree::Literal(literal)) = tokens.first() {
            let text = literal.to_string();
            if text.contains('"') {
                found.push((line_of(tokens), text));
            }
        }
    });
    found
}

pub(crate) fn line_of(tokens: &[TokenTree]) -> usize {
    tokens.first().map_or(0, |token| token.span().start().line)
}

pub(crate) fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(found)) if found.as_char() == mark)
}

pub(crate) fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(found)) if found == word)
}
