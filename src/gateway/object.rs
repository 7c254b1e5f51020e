//! JSON objects taken apart without a tree. Values stay the sender's own text until a handler asks for one, so that the
//! error can name the field.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::body::Plane;
use super::ignored::Ignored;
use crate::domain::limits::{ACK_ENTRIES, SEND_MESSAGES};
use crate::domain::{Error, ErrorKind, Result};

/// More than any other list may have.
const LIST_MAX: usize = 100;
/// Fields of one object, known or not. A body has room for two hundred thousand.
const FIELDS_MAX: usize = 1_000;

/// What editors of some systems put in front of a text in UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A JSON object whose values are still text. Of a repeated key the last value counts.
#[derive(Debug)]
pub(super) struct Object<'a> {
    place: Place,
    /// The first [`FIELDS_MAX`].
    fields: Vec<Field<'a>>,
    fields_count: usize,
}

#[derive(Debug)]
struct Field<'a> {
    name: Cow<'a, [u8]>,
    value: &'a RawValue,
    read: Cell<bool>,
}

/// Where in the body an object is: the beginning of the names of its fields.
#[derive(Debug, Clone, Copy)]
enum Place {
    Root,
    Field(&'static str),
    Item(&'static str, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(name) => write!(f, "{name}."),
            Self::Item(name, index) => write!(f, "{name}[{index}]."),
        }
    }
}

impl<'a> Object<'a> {
    /// The body as an object.
    pub(super) fn parse(body: &'a [u8], plane: Plane) -> Result<Self> {
        let not_json = |reason: &dyn fmt::Display| Error::new(plane.not_json(), format!("body: not JSON: {reason}"));
        let text = std::str::from_utf8(body).map_err(|error| not_json(&error))?;
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let root: Self = serde_json::from_str(text).map_err(|_| match serde_json::from_str::<&RawValue>(text) {
            Err(syntax) => not_json(&syntax),
            Ok(value) => Error::field(plane.bad_field(), "body", shown(value), "a JSON object"),
        })?;
        root.bounded("body", plane.bad_field())
    }

    fn bounded(self, field: &str, kind: ErrorKind) -> Result<Self> {
        if self.fields_count <= FIELDS_MAX {
            return Ok(self);
        }
        let allowed = format!("an object of at most {FIELDS_MAX} fields");
        Err(Error::field(kind, field, format!("{} fields", self.fields_count), &allowed))
    }

    /// The text of a value, `null` included.
    pub(super) fn raw(&self, key: &str) -> Option<&'a RawValue> {
        let field = self.field(key)?;
        field.read.set(true);
        Some(field.value)
    }

    fn field(&self, key: &str) -> Option<&Field<'a>> {
        self.fields.iter().rev().find(|field| *field.name == *key.as_bytes())
    }

    /// A key that was read, and does not matter beside the others.
    pub(super) fn pass_over(&self, key: &str) {
        self.field(key).into_iter().for_each(|field| field.read.set(false));
    }

    /// Tells of the keys that nobody has read.
    pub(super) fn tell_unread(&self, ignored: &Ignored) {
        let unread = self.fields.iter().filter(|field| !field.read.get());
        unread.for_each(|field| ignored.key(self.place, &field.name));
    }

    /// A value of a type, `None` when it is absent or `null`; `kind` and `allowed` speak of any other type.
    pub(super) fn read<T: Deserialize<'a>>(&self, key: &str, kind: ErrorKind, allowed: &str) -> Result<Option<T>> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|_| self.wrong(key, kind, shown(raw), allowed))
    }

    /// A value of a type that must be there.
    pub(super) fn require<T: Deserialize<'a>>(&self, key: &str, kind: ErrorKind, allowed: &str) -> Result<T> {
        self.read(key, kind, allowed)?.ok_or_else(|| self.missing(key, kind, allowed))
    }

    /// An object that must be there.
    pub(super) fn object(&self, key: &'static str, kind: ErrorKind, allowed: &str) -> Result<Self> {
        Self { place: Place::Field(key), ..self.require(key, kind, allowed)? }.bounded(key, kind)
    }

    /// An array of objects that must be there.
    pub(super) fn items(&self, key: &'static str, kind: ErrorKind, allowed: &str) -> Result<Vec<Self>> {
        self.items_if_any(key, kind, allowed)?.ok_or_else(|| self.missing(key, kind, allowed))
    }

    /// An array of objects.
    pub(super) fn items_if_any(&self, key: &'static str, kind: ErrorKind, allowed: &str) -> Result<Option<Vec<Self>>> {
        let Some(items) = self.first::<Self>(key, kind, allowed)? else { return Ok(None) };
        let numbered =
            |(index, item)| Self { place: Place::Item(key, index), ..item }.bounded(&format!("{key}[{index}]"), kind);
        items.into_iter().enumerate().map(numbered).collect::<Result<_>>().map(Some)
    }

    /// An array of texts.
    pub(super) fn texts(&self, key: &str, kind: ErrorKind, allowed: &str) -> Result<Vec<String>> {
        Ok(self.first(key, kind, allowed)?.unwrap_or_default())
    }

    /// As many of a list as it may have, and one more; `None` when it is absent or `null`.
    fn first<T: Deserialize<'a>>(&self, key: &str, kind: ErrorKind, allowed: &str) -> Result<Option<Vec<T>>> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        first(raw, items_max(key) + 1).map_err(|_| self.wrong(key, kind, shown(raw), allowed))
    }

    /// The error for a value that is not allowed.
    pub(super) fn wrong(&self, key: &str, kind: ErrorKind, value: impl fmt::Display, allowed: &str) -> Error {
        Error::field(kind, &format!("{}{key}", self.place), value, allowed)
    }

    /// The error for a value that is not there.
    pub(super) fn missing(&self, key: &str, kind: ErrorKind, allowed: &str) -> Error {
        Error::missing(kind, &format!("{}{key}", self.place), allowed)
    }
}

/// How many items a list of this name may have. One more is read, for the service to refuse; a body has room for a hundred thousand.
fn items_max(key: &str) -> usize {
    match key {
        "messages" => *SEND_MESSAGES.end(),
        "message" => *ACK_ENTRIES.end(),
        _ => LIST_MAX,
    }
}

/// The first items of a list, at most `max`; `None` for `null`. What is behind them is known to be JSON, for `list` was read as such, and
/// not looked at.
fn first<'a, T: Deserialize<'a>>(list: &'a RawValue, max: usize) -> serde_json::Result<Option<Vec<T>>> {
    let mut items = Vec::new();
    let read = serde_json::Deserializer::from_str(list.get()).deserialize_option(Reader { items: &mut items, max });
    match read {
        Ok(there) => Ok(there.then_some(items)),
        Err(_) if items.len() == max => Ok(Some(items)),
        Err(error) => Err(error),
    }
}

/// Reads items until there are enough, which ends it with an error.
struct Reader<'r, T> {
    items: &'r mut Vec<T>,
    max: usize,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<'_, T> {
    /// Whether there is a list.
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_none<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        while let Some(item) = list.next_element()? {
            self.items.push(item);
            if self.items.len() == self.max {
                return Err(A::Error::custom("enough"));
            }
        }
        Ok(true)
    }
}

/// A value as an error may show it: nothing of what an array or an object holds, and a string in quotes but without the escapes of JSON,
/// for the error has its own.
pub(super) fn shown(value: &RawValue) -> Cow<'_, str> {
    match value.get().as_bytes().first() {
        Some(b'{') => "{...}".into(),
        Some(b'[') => "[...]".into(),
        // One with a lone surrogate is no text.
        Some(b'"') => match serde_json::from_str::<String>(value.get()) {
            Ok(text) => format!("\"{text}\"").into(),
            Err(_) => value.get().into(),
        },
        _ => value.get().into(),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut fields_count) = (Vec::new(), 0);
        while let Some((Key(name), value)) = map.next_entry()? {
            fields_count += 1;
            if fields_count <= FIELDS_MAX {
                fields.push(Field { name, value, read: Cell::new(false) });
            }
        }
        Ok(Object { place: Place::Root, fields, fields_count })
    }
}

/// A key as bytes: one that is no valid text (a lone surrogate) is just an unknown key.
struct Key<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_bytes<E>(self, key: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(body: &str, key: &'static str) -> Result<usize> {
        let root = Object::parse(body.as_bytes(), Plane::Data)?;
        root.items(key, ErrorKind::MessageFields, "an array of objects").map(|items| items.len())
    }

    #[test]
    fn a_list_is_read_to_one_more_than_it_may_have() {
        let list = |key: &str, len: usize| format!(r#"{{"{key}":[{}]}}"#, vec![r#"{"body":1}"#; len].join(","));
        for (key, len, expected) in [
            ("messages", 0, 0),
            ("messages", 10, 10),
            ("messages", 11, 11),
            ("messages", 90_000, 11),
            ("message", 1000, 1000),
            ("message", 90_000, 1001),
            ("tags", 90_000, 101),
        ] {
            assert_eq!(count(&list(key, len), key).unwrap(), expected, "{key} {len}");
        }
        for wrong in ["7", "{}", "[7]", "[{},7]", "\"x\"", "null"] {
            assert!(count(&format!(r#"{{"messages":{wrong}}}"#), "messages").is_err(), "{wrong}");
        }
        // What is behind them must still be JSON.
        assert!(count(&(list("messages", 20).trim_end_matches("]}").to_owned() + ",]}"), "messages").is_err());
    }

    #[test]
    fn an_object_has_so_many_fields() {
        let object = |count: usize| format!("{{{}}}", vec![r#""a":0"#; count].join(","));
        for (count, allowed) in [(FIELDS_MAX, true), (FIELDS_MAX + 1, false), (150_000, false)] {
            assert_eq!(Object::parse(object(count).as_bytes(), Plane::Data).is_ok(), allowed, "{count}");
            let list = format!(r#"{{"messages":[{{}},{}]}}"#, object(count));
            let message = Object::parse(list.as_bytes(), Plane::Data)
                .and_then(|root| root.items("messages", ErrorKind::MessageFields, "").map(drop))
                .err()
                .map(|error| error.message().to_owned());
            let refused = format!("messages[1]: '{count} fields' is not an object of at most 1000 fields");
            assert_eq!(message, (!allowed).then_some(refused));
        }
    }

    #[test]
    fn a_list_of_texts_is_read_to_one_more_than_it_may_have() {
        let texts = |list: &str| {
            let body = format!(r#"{{"tags":{list}}}"#);
            let root = Object::parse(body.as_bytes(), Plane::Data)?;
            root.texts("tags", ErrorKind::MessageFields, "an array of strings").map(|texts| texts.len())
        };
        let many = format!("[{}]", vec![r#""""#; 300_000].join(","));
        for (list, count) in [("[]", 0), ("null", 0), (r#"["a","b"]"#, 2), (many.as_str(), 101)] {
            assert_eq!(texts(list).unwrap(), count);
        }
        for wrong in ["7", "{}", "[7]", r#"["a",null]"#] {
            assert!(texts(wrong).is_err(), "{wrong}");
        }
    }
}
