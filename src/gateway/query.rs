//! Query parameters: an empty value counts as absent, unknown keys are ignored and named in the answer.

use std::cell::Cell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::error::Failure;
use super::ignored::Ignored;
use crate::domain::{Error, ErrorKind, Result};

/// Parameters of one request, known or not. A long poll keeps them; a URL has room for thirty thousand.
const PARAMETERS_MAX: usize = 100;

/// The parameters of one request, decoded, in their order. When it is dropped, it tells which nobody read.
#[derive(Debug)]
pub(super) struct Query {
    parameters: Vec<Parameter>,
    /// One was refused: whether the others would have been read is not known.
    refused: Cell<bool>,
    ignored: Ignored,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    value: String,
    read: Cell<bool>,
}

impl Drop for Query {
    fn drop(&mut self) {
        let unread = self.parameters.iter().filter(|parameter| !self.refused.get() && !parameter.read.get());
        unread.for_each(|parameter| self.ignored.parameter(&parameter.name));
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let count = parts.uri.query().map_or(0, |query| 1 + query.bytes().filter(|byte| *byte == b'&').count());
        if count > PARAMETERS_MAX {
            let allowed = format!("at most {PARAMETERS_MAX} parameters");
            return Err(Error::field(ErrorKind::UrlParameters, "url", format!("{count} parameters"), &allowed).into());
        }
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let pairs = pairs.map_err(|rejection| Error::new(ErrorKind::UrlParameters, rejection.body_text()))?;
        let ignored = parts.extensions.get::<Ignored>().cloned().unwrap_or_default();
        ignored.query_is_read();
        let parameters = pairs.0.into_iter().map(|(name, value)| Parameter { name, value, read: Cell::new(false) });
        Ok(Self { parameters: parameters.collect(), refused: Cell::new(false), ignored })
    }
}

impl Query {
    /// All values of a repeatable parameter.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.named(key).inspect(|parameter| parameter.read.set(true)).map(|parameter| parameter.value.as_str())
    }

    /// The value of a parameter; the first one when it is repeated.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let parameter = self.named(key).next()?;
        parameter.read.set(true);
        Some(&parameter.value)
    }

    /// Those of this name that have a value; one without is as if it were not there.
    fn named<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Parameter> {
        let named = self.parameters.iter().filter(move |parameter| parameter.name == key);
        named
            .inspect(|parameter| parameter.read.set(parameter.value.is_empty() || parameter.read.get()))
            .filter(|parameter| !parameter.value.is_empty())
    }

    /// A boolean in any case; SDKs send `True` as well as `true`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) => Err(self.refuse(ErrorKind::UrlParameters, key, value, "true or false")),
        }
    }

    /// An integer in a range; anything else has an error code of its own.
    pub(super) fn integer<N>(&self, key: &str, range: RangeInclusive<N>, kind: ErrorKind) -> Result<Option<N>>
    where
        N: FromStr + PartialOrd + Display,
    {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.parse().ok().filter(|number| range.contains(number));
        let allowed = || format!("an integer from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| self.refuse(kind, key, value, &allowed()))
    }

    fn refuse(&self, kind: ErrorKind, key: &str, value: &str, allowed: &str) -> Error {
        self.refused.set(true);
        Error::field(kind, key, value, allowed)
    }

    /// `page_size` and `current_page`: used only when both are valid, that is 1 or more.
    pub(super) fn page(&self) -> Option<(i32, i32)> {
        let page = (self.positive("page_size")?, self.positive("current_page")?);
        // Only now they are of use.
        let _read = (self.get("page_size"), self.get("current_page"));
        Some(page)
    }

    fn positive(&self, key: &str) -> Option<i32> {
        let number: i64 = self.named(key).next()?.value.parse().ok()?;
        // A page behind the last one is empty, however far behind.
        (number >= 1).then(|| i32::try_from(number).unwrap_or(i32::MAX))
    }
}
