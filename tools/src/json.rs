//! JSON files from outside: read so that memory stays in proportion to what is used of them.
//!
//! `serde_json::Value` takes up to seventy times the text it is made from. So files are parsed into the
//! types that are needed, and where any value may stand, into an `Object`, which keeps its values as text.

use std::collections::BTreeMap;

use cerebellum::terminal::name;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;
use serde_json::{Error, Result, Value};

/// A longer value is not parsed for a message that would show it.
const MAX_SHOWN_BYTES: usize = 1 << 10;

/// Parses a file's bytes. A byte order mark, which some editors put before UTF-8, is passed over.
///
/// # Errors
/// What the parser objects to.
pub fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(without_mark(bytes))
}

/// A file's bytes without the byte order mark of UTF-8.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

/// An object whose values are parsed when they are asked for. Of a key that comes twice the last one
/// counts; null is the same as nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Object<'a>(#[serde(borrow)] BTreeMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    /// The object that `text` is; `None` if it is anything else.
    pub fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Its keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The text of a value.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(|value| value.get()).filter(|text| *text != "null")
    }

    /// A value, parsed as what is wanted of it.
    pub fn get<T: Deserialize<'a>>(&self, key: &str) -> Result<Option<T>> {
        self.text(key).map(serde_json::from_str).transpose()
    }

    /// As [`get`](Self::get), of a value that must be there.
    pub fn require<T: Deserialize<'a>>(&self, key: &'static str) -> Result<T> {
        self.get(key)?.ok_or_else(|| Error::missing_field(key))
    }

    /// A value of any type, to be judged or shown; one that is too long for that as a string that begins
    /// and ends like its text.
    pub fn value(&self, key: &str) -> Option<Value> {
        let text = self.text(key)?;
        let shown = || Value::String(name(text).to_string());
        match text.len() <= MAX_SHOWN_BYTES {
            true => Some(serde_json::from_str(text).unwrap_or_else(|_| shown())),
            false => Some(shown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_passed_over_once() {
        assert_eq!(parse::<u32>("\u{feff}7".as_bytes()).unwrap(), 7);
        assert!(parse::<u32>("\u{feff}\u{feff}7".as_bytes()).is_err());
    }

    #[test]
    fn values_are_parsed_when_asked_for() {
        let long = format!("[{}]", "0,".repeat(1000) + "0");
        let json = format!(r#"{{"a":null,"b":1,"b":2,"c":{long}}}"#);
        let object = Object::of(&json).unwrap();
        assert_eq!((object.text("a"), object.value("a")), (None, None));
        assert_eq!(object.get::<u32>("b").unwrap(), Some(2));
        assert!(object.get::<bool>("b").is_err() && object.require::<u32>("a").is_err());
        let shown = object.value("c").unwrap();
        assert!(
            shown.as_str().unwrap().starts_with("[0,0,") && shown.as_str().unwrap().contains('…')
        );
        assert!(Object::of("[]").is_none());
    }
}
