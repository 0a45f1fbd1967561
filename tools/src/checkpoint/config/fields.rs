//! The fields of a `config.json`, with errors that say which one is wrong.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::known;
use crate::checkpoint::error::{Error, Result};
use crate::json::Object;

// Generous next to any real model, and small enough that no product of two of them overflows.
pub const MAX_VOCAB: usize = 1 << 24;
pub const MAX_POSITIONS: usize = 1 << 24;
pub const MAX_WIDTH: usize = 1 << 20;
pub const MAX_LAYERS: usize = 1 << 12;
/// Limit of a multiplier, to either side of 1.
pub const MAX_SCALE: f64 = 1e6;
/// The numbers that multipliers may be.
pub const SCALES: RangeInclusive<f64> = 1.0 / MAX_SCALE..=MAX_SCALE;

/// The file's fields. `null` counts as missing.
pub struct Fields<'a> {
    path: &'a Path,
    object: Object<'a>,
    /// What the names of fields begin with in messages: those of an object in an object.
    within: String,
    /// The fields that were asked for: those that this program knows.
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    /// The fields of `object`; `path` serves the messages.
    pub fn new(path: &'a Path, object: Object<'a>) -> Self {
        Self { path, object, within: String::new(), asked: RefCell::default() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.path
    }

    fn text_of(&self, field: &str) -> Option<&'a str> {
        self.asked.borrow_mut().insert(field.to_owned());
        self.object.text(field)
    }

    /// A value of any type.
    pub fn get(&self, field: &str) -> Option<Value> {
        self.text_of(field)?;
        self.object.value(field)
    }

    /// Whether the file has the field, be it as `null`.
    pub fn has(&self, field: &str) -> bool {
        self.object.keys().any(|key| key == field)
    }

    /// The fields of an object in this one.
    pub fn object(&self, field: &str) -> Result<Option<Self>> {
        let Some(text) = self.text_of(field) else { return Ok(None) };
        let object = Object::of(text).ok_or_else(|| self.wrong(field, "an object"))?;
        let within = format!("{}{field}.", self.within);
        Ok(Some(Self { path: self.path, object, within, asked: RefCell::default() }))
    }

    /// What the error says of a field.
    pub fn error(&self, field: &str, problem: impl Into<String>) -> Error {
        let field = format!("{}{field}", self.within);
        Error::ConfigField { path: self.path.to_owned(), field, problem: problem.into() }
    }

    fn wrong(&self, field: &str, what: &str) -> Error {
        let value = self.get(field).unwrap_or(Value::Null);
        self.error(field, format!("is {value}, but must be {what}"))
    }

    /// A list of values of one type.
    pub fn list<T: Deserialize<'a>>(&self, field: &str, what: &str) -> Result<Option<Vec<T>>> {
        let Some(text) = self.text_of(field) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|_| self.wrong(field, what))
    }

    /// A whole number.
    pub fn optional_count(
        &self,
        field: &str,
        allowed: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count.filter(|count| allowed.contains(count)) {
            Some(count) => Ok(Some(count)),
            None => {
                let (low, high) = (allowed.start(), allowed.end());
                let problem = format!("is {value}, but must be a whole number in {low}..={high}");
                Err(self.error(field, problem))
            }
        }
    }

    /// A whole number that must be there.
    pub fn count(&self, field: &str, allowed: RangeInclusive<usize>) -> Result<usize> {
        self.optional_count(field, allowed)?.ok_or_else(|| {
            self.error(field, "is missing: take config.json from the original model")
        })
    }

    /// A truth value.
    pub fn flag(&self, field: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(field, "true or false"))
    }

    /// A string.
    pub fn text(&self, field: &str) -> Result<Option<String>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.error(field, format!("is {value}, but must be a string"))),
        }
    }

    /// A number.
    pub fn number(&self, field: &str, allowed: RangeInclusive<f64>) -> Result<Option<f64>> {
        self.get(field).map(|value| self.in_range(field, &value, allowed)).transpose()
    }

    /// The number that `value` is.
    pub fn in_range(
        &self,
        field: &str,
        value: &Value,
        allowed: RangeInclusive<f64>,
    ) -> Result<f64> {
        value.as_f64().filter(|number| allowed.contains(number)).ok_or_else(|| {
            let (low, high) = (allowed.start(), allowed.end());
            self.error(field, format!("is {value}, but must be a number in {low}..={high}"))
        })
    }

    /// What is added to a variance.
    pub fn epsilon(&self, field: &str) -> Result<Option<f32>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let epsilon = value.as_f64().map(|epsilon| epsilon as f32);
        match epsilon.filter(|epsilon| (f32::MIN_POSITIVE..1.0).contains(epsilon)) {
            Some(epsilon) => Ok(Some(epsilon)),
            None => Err(self.wrong(field, "a number above 0 and below 1")),
        }
    }

    /// A token's id.
    pub fn token(&self, field: &str, vocab_size: usize) -> Result<Option<u32>> {
        Ok(self.optional_count(field, 0..=vocab_size - 1)?.map(|id| id as u32))
    }

    /// A token's id, of several the first.
    pub fn first_token(&self, field: &str, vocab_size: usize) -> Result<Option<u32>> {
        match self.get(field) {
            Some(Value::Array(ids)) => {
                let first =
                    ids.first().and_then(Value::as_u64).filter(|id| *id < vocab_size as u64);
                let what = || format!("a token, or a list of tokens, below {vocab_size}");
                first.map(|id| Some(id as u32)).ok_or_else(|| self.wrong(field, &what()))
            }
            _ => self.token(field, vocab_size),
        }
    }

    /// Refuses a field that nothing asked for, unless it is known to change no logit or its value says that
    /// it asks for nothing.
    pub fn refuse_unknown(&self) -> Result<()> {
        let asked = self.asked.borrow();
        for key in self.object.keys().filter(|key| !asked.contains(*key)) {
            let Some(value) = self.object.value(key) else { continue };
            if !known::is_harmless(key) && !known::asks_for_nothing(key, &value) {
                let problem = format!(
                    "is {value}, which this program does not know: it may change what the model \
                     computes; if it only concerns training or serving, remove it from the file"
                );
                return Err(self.error(key, problem));
            }
        }
        Ok(())
    }
}
