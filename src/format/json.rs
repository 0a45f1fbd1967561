//! A reader of JSON for headers of files.
//!
//! It takes the whole of RFC 8259 and nothing else, as `serde_json` does, which the tests compare it with.
//! Here all that does not depend on the type that is read is compiled once, and numbers are parsed by the
//! standard library: reading a header takes a third of the code (`docs/embedding.md`, "Size").

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::value::{CowStrDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::decimal;

/// What is wrong with JSON, or with what it says.
///
/// Behind a pointer, so that results are small, which shrinks all the code that hands them on.
#[derive(Debug)]
pub struct JsonError(Box<Message>);

#[derive(Debug)]
struct Message(String);

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0.0)
    }
}

impl core::error::Error for JsonError {}

impl de::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::unexpected("type", found, expected)
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::unexpected("value", found, expected)
    }
}

impl JsonError {
    fn new(message: String) -> Self {
        Self(Box::new(Message(message)))
    }

    /// Says less of the value than the default does, for which the code to write floats would be in the
    /// program.
    #[cold]
    #[inline(never)]
    fn unexpected(what: &str, found: Unexpected, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) => "a string",
            Unexpected::Seq => "an array",
            Unexpected::Map => "an object",
            _ => "null",
        };
        Self::new(format!("invalid {what}: {found}, expected {expected}"))
    }
}

type Result<T> = core::result::Result<T, JsonError>;

/// Reads a value, behind which nothing may follow.
///
/// # Errors
/// What is wrong, and at which byte that was found.
pub fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T> {
    read_with(text, |reader| T::deserialize(reader))
}

/// The same for a value that is not read by its type alone.
///
/// # Errors
/// As [`read`].
pub fn read_with<'de, T>(
    text: &'de str,
    value: impl FnOnce(&mut Reader<'de>) -> Result<T>,
) -> Result<T> {
    let mut reader = Reader { text, at: 0 };
    let result = value(&mut reader).and_then(|value| reader.end().map(|()| value));
    result.map_err(|error| reader.located(&error))
}

/// A value as its text, white space at its ends left out.
///
/// With another deserializer than [`Reader`], as tools and tests have, it is that one's own text of a value.
///
/// # Errors
/// That the value is not well-formed.
pub fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Box<str>, D::Error> {
    struct Raw;

    impl<'de> Visitor<'de> for Raw {
        type Value = Box<str>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("any JSON")
        }

        fn visit_borrowed_str<E>(self, text: &'de str) -> core::result::Result<Box<str>, E> {
            Ok(text.into())
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(
            self,
            other: D,
        ) -> core::result::Result<Box<str>, D::Error> {
            let value = Box::<serde_json::value::RawValue>::deserialize(other)?;
            Ok(value.get().into())
        }
    }

    deserializer.deserialize_newtype_struct(RAW, Raw)
}

/// The name of the type for which [`Reader`] hands out a value's text.
const RAW: &str = "cerebellum::raw";

/// Reads one value after another from a text.
pub struct Reader<'de> {
    text: &'de str,
    at: usize,
}

/// A value, or the beginning of one.
enum Token<'de> {
    Null,
    Bool(bool),
    Number(&'de str),
    Text(Cow<'de, str>),
    Array,
    Object,
}

impl Token<'_> {
    /// That the value is of another type than is expected.
    #[cold]
    fn is_not(&self, expected: &dyn Expected) -> JsonError {
        let found = match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Number(_) => Unexpected::Float(0.0),
            Self::Text(_) => Unexpected::Str(""),
            Self::Array => Unexpected::Seq,
            Self::Object => Unexpected::Map,
        };
        de::Error::invalid_type(found, expected)
    }
}

impl<'de> Reader<'de> {
    /// The next byte that is no white space; 0, which no JSON has, at the end.
    #[inline(never)]
    fn peek(&mut self) -> u8 {
        let rest = &self.text.as_bytes()[self.at..];
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'));
        self.at += blank.count();
        self.here()
    }

    /// The byte here; 0 at the end.
    fn here(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    /// Takes the next byte behind white space if it is this one.
    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        match self.takes(byte) {
            true => Ok(()),
            false => Err(wrong(match byte {
                b':' => "expected `:`",
                b']' => "expected `,` or `]`",
                _ => "expected `,` or `}`",
            })),
        }
    }

    fn end(&mut self) -> Result<()> {
        match self.peek() == 0 && self.at == self.text.len() {
            true => Ok(()),
            false => Err(wrong("trailing characters")),
        }
    }

    #[cold]
    fn located(&self, error: &JsonError) -> JsonError {
        JsonError::new(format!("{error} at byte {}", self.at))
    }

    /// The next value, or the beginning of an array or object.
    #[inline(never)]
    fn token(&mut self) -> Result<Token<'de>> {
        let first = self.peek();
        for (word, token) in [
            ("null", Token::Null),
            ("true", Token::Bool(true)),
            ("false", Token::Bool(false)),
            ("[", Token::Array),
            ("{", Token::Object),
        ] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(token);
            }
        }
        match first {
            b'"' => self.string().map(Token::Text),
            b'-' | b'0'..=b'9' => self.number().map(Token::Number),
            0 if self.at == self.text.len() => Err(wrong("unexpected end")),
            _ => Err(wrong("expected a value")),
        }
    }

    /// The digits here.
    fn digits(&mut self) -> Result<()> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(wrong("expected a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<&'de str> {
        let start = self.at;
        self.at += usize::from(self.here() == b'-');
        match self.here() {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.here() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.here(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.here(), b'+' | b'-'));
            self.digits()?;
        }
        match self.here() {
            b'0'..=b'9' => Err(wrong("a number begins with 0")),
            _ => Ok(&self.text[start..self.at]),
        }
    }

    /// The string here, which begins with a quotation mark.
    fn string(&mut self) -> Result<Cow<'de, str>> {
        self.at += 1;
        let mut owned = String::new();
        loop {
            let rest = &self.text[self.at..];
            let special = |&byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let Some(length) = rest.as_bytes().iter().position(special) else {
                self.at = self.text.len();
                return Err(wrong("a string has no end"));
            };
            let plain = &rest[..length];
            self.at += length + 1;
            match rest.as_bytes()[length] {
                b'"' if owned.is_empty() => return Ok(Cow::Borrowed(plain)),
                b'"' => {
                    owned.push_str(plain);
                    return Ok(Cow::Owned(owned));
                }
                b'\\' => {
                    owned.push_str(plain);
                    owned.push(self.escaped()?);
                }
                _ => return Err(wrong("a control character in a string")),
            }
        }
    }

    /// The character that an escape stands for, behind its backslash.
    fn escaped(&mut self) -> Result<char> {
        let byte = self.here();
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut point = self.unit()?;
                if point & 0xfc00 == 0xd800 && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    let low = self.unit()?.wrapping_sub(0xdc00);
                    point =
                        if low < 0x400 { 0x1_0000 + ((point & 0x3ff) << 10 | low) } else { point };
                }
                char::from_u32(point).ok_or_else(|| wrong("half of a surrogate pair"))?
            }
            _ => {
                // The text may end here, and a character has more bytes than one.
                self.at -= 1;
                return Err(wrong("an unknown escape"));
            }
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += if unit.is_some() { 4 } else { 0 };
        unit.ok_or_else(|| wrong("expected four hexadecimal digits"))
    }

    /// The key of the next member, its colon taken; `None` behind the last one.
    #[inline(never)]
    fn key(&mut self, is_first: &mut bool) -> Result<Option<Cow<'de, str>>> {
        if self.takes(b'}') {
            return Ok(None);
        }
        if !core::mem::take(is_first) {
            self.expect(b',')?;
        }
        if self.peek() != b'"' {
            return Err(wrong("a key is no string"));
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    /// Whether there is another element; the end of the array stays.
    #[inline(never)]
    fn has_element(&mut self, is_first: &mut bool) -> Result<bool> {
        if self.peek() == b']' {
            return Ok(false);
        }
        if !core::mem::take(is_first) && !self.takes(b',') {
            return Err(wrong("expected `,` or `]`"));
        }
        Ok(true)
    }

    /// The text of the next value, which is well-formed; however deeply it is nested.
    #[inline(never)]
    fn skip(&mut self) -> Result<&'de str> {
        self.peek();
        let start = self.at;
        // For each array or object that is open, whether it is an object.
        let mut open = Vec::new();
        loop {
            let mut is_first = true;
            match self.token()? {
                Token::Array => open.push(false),
                Token::Object => open.push(true),
                _ => is_first = false,
            }
            // Whatever ends here, up to the next value.
            loop {
                let Some(&is_object) = open.last() else {
                    return Ok(&self.text[start..self.at]);
                };
                let goes_on = match is_object {
                    true => self.key(&mut is_first)?.is_some(),
                    false => {
                        self.has_element(&mut is_first)? || {
                            self.at += 1;
                            false
                        }
                    }
                };
                if goes_on {
                    break;
                }
                open.pop();
                is_first = false;
            }
        }
    }

    #[inline(never)]
    fn boolean(&mut self, expected: &dyn Expected) -> Result<bool> {
        match self.token()? {
            Token::Bool(value) => Ok(value),
            other => Err(other.is_not(expected)),
        }
    }

    #[inline(never)]
    fn text(&mut self, expected: &dyn Expected) -> Result<String> {
        match self.token()? {
            Token::Text(text) => Ok(text.into_owned()),
            other => Err(other.is_not(expected)),
        }
    }

    #[inline(never)]
    fn digits_of(&mut self, expected: &dyn Expected) -> Result<&'de str> {
        match self.token()? {
            Token::Number(text) => Ok(text),
            other => Err(other.is_not(expected)),
        }
    }

    /// A whole number of up to 64 bits, with or without a sign. `-0` is none, as 7.0 is none.
    #[inline(never)]
    fn whole(&mut self, expected: &dyn Expected) -> Result<i128> {
        let text = self.digits_of(expected)?;
        let range = i128::from(i64::MIN)..=i128::from(u64::MAX);
        let whole = text.parse().ok().filter(|whole| range.contains(whole) && text != "-0");
        whole.ok_or_else(|| de::Error::invalid_type(Unexpected::Float(0.0), expected))
    }

    /// A number that the type holds, to the nearest.
    fn float<T: Copy>(
        &mut self,
        expected: &dyn Expected,
        read: fn(&str) -> Option<T>,
        is_finite: fn(T) -> bool,
    ) -> Result<T> {
        let float = read(self.digits_of(expected)?);
        float.filter(|&float| is_finite(float)).ok_or_else(|| wrong("a number is out of range"))
    }

    /// Takes the beginning of an array or object.
    #[inline(never)]
    fn open(&mut self, is_object: bool, expected: &dyn Expected) -> Result<()> {
        match (self.token()?, is_object) {
            (Token::Array, false) | (Token::Object, true) => Ok(()),
            (other, _) => Err(other.is_not(expected)),
        }
    }
}

#[cold]
#[inline(never)]
fn wrong(what: &str) -> JsonError {
    JsonError::new(what.to_owned())
}

macro_rules! whole_numbers {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
                let whole = self.whole(&visitor)?;
                match u64::try_from(whole) {
                    Ok(whole) => visitor.visit_u64(whole),
                    Err(_) => visitor.visit_i64(whole as i64),
                }
            }
        )*
    };
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = JsonError;

    /// Only for types that are read some other way: nothing in a header is of any type.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        Err(self.token()?.is_not(&visitor))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = self.boolean(&visitor)?;
        visitor.visit_bool(value)
    }

    whole_numbers! {
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
    }

    /// To the nearest float32, not by way of float64.
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = self.float(&visitor, decimal::f32, f32::is_finite)?;
        visitor.visit_f32(value)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = self.float(&visitor, decimal::f64, f64::is_finite)?;
        visitor.visit_f64(value)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let text = self.text(&visitor)?;
        visitor.visit_string(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.peek();
        if self.text[self.at..].starts_with("null") {
            self.at += 4;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.token()? {
            Token::Null => visitor.visit_unit(),
            other => Err(other.is_not(&visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        debug_assert_eq!(name, RAW, "the only such type");
        visitor.visit_borrowed_str(self.skip()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.open(false, &visitor)?;
        let value = visitor.visit_seq(Members { reader: self, is_first: true })?;
        self.expect(b']')?;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    /// The visitor takes members until there is none, and the object's end, too, is taken then.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.open(true, &visitor)?;
        visitor.visit_map(Members { reader: self, is_first: true })
    }

    /// Of an object only: that an array of the fields in their order would do, too, no format says.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    /// The variant's name, or an object that has it and its content.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.token()? {
            Token::Text(name) => {
                let name: StrDeserializer<JsonError> = (*name).into_deserializer();
                visitor.visit_enum(name)
            }
            Token::Object => {
                let value = visitor.visit_enum(Variant(self))?;
                self.expect(b'}')?;
                Ok(value)
            }
            other => Err(other.is_not(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.skip()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit_struct tuple_struct identifier
    }
}

/// The elements of an array, or the members of an object.
struct Members<'a, 'de> {
    reader: &'a mut Reader<'de>,
    is_first: bool,
}

impl<'de> SeqAccess<'de> for Members<'_, 'de> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        match self.reader.has_element(&mut self.is_first)? {
            true => seed.deserialize(&mut *self.reader).map(Some),
            false => Ok(None),
        }
    }
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        match self.reader.key(&mut self.is_first)? {
            Some(key) => {
                let key: CowStrDeserializer<JsonError> = key.into_deserializer();
                seed.deserialize(key).map(Some)
            }
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(&mut *self.reader)
    }
}

/// The one member of an object: a variant's name and its content.
struct Variant<'a, 'de>(&'a mut Reader<'de>);

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = JsonError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self)> {
        let name = self.0.key(&mut true)?.ok_or_else(|| wrong("expected a variant"))?;
        let name: CowStrDeserializer<JsonError> = name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = JsonError;

    fn unit_variant(self) -> Result<()> {
        Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.0.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.0.deserialize_map(visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// All kinds of types that a header has.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Everything {
        number: u32,
        small: Option<u8>,
        float: f32,
        double: f64,
        text: String,
        choice: Choice,
        pair: (usize, usize),
        #[serde(default)]
        list: Vec<Choice>,
        #[serde(default)]
        names: BTreeMap<String, bool>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Plain,
        Full { length: Option<i64> },
        One(bool),
    }

    const SOUND: &str = r#" { "number": 7, "small": null, "float": 0.1, "double": -1.5e-3, "unknown": [{"a": []}, 2],
        "text": "\u00e9\n\ud83d\ude00 ok\/", "choice": {"full": {"length": null}}, "pair": [1, 2],
        "list": ["plain", {"one": true}, {"plain": null}], "names": {"a b": true, "": false} } "#;

    fn compare(text: &str) {
        let (ours, theirs) = (read::<Everything>(text), serde_json::from_str::<Everything>(text));
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours, theirs, "{text}");
                assert_eq!(ours.float.to_bits(), theirs.float.to_bits(), "{text}");
                assert_eq!(ours.double.to_bits(), theirs.double.to_bits(), "{text}");
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!("{text}: {ours:?}, serde_json {theirs:?}"),
        }
    }

    fn well_formed(text: &str) -> bool {
        read_with(text, |reader| reader.skip().map(drop)).is_ok()
    }

    fn compare_form(text: &str) {
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        assert_eq!(well_formed(text), theirs, "{text:?}");
    }

    #[test]
    fn every_type_as_serde_json_reads_it() {
        assert!(read::<Everything>(SOUND).is_ok(), "{:?}", read::<Everything>(SOUND));
        compare(SOUND);
        for (from, to) in [
            ("7", "7.0"),
            ("7", "-7"),
            ("7", "-0"),
            ("7", "4294967296"),
            ("7", "99999999999999999999"),
            ("7", "\"7\""),
            ("7", "07"),
            ("7", "+7"),
            ("null", "256"),
            ("null", "255"),
            ("null", "nul"),
            ("null", "nullx"),
            ("0.1", "1"),
            ("0.1", "-0"),
            ("0.1", "16777217"),
            ("0.1", "1e39"),
            ("0.1", "1e-50"),
            ("0.1", "7.038531e-26"),
            ("0.1", "340282356779733661637539395458142568447"),
            ("0.1", "340282356779733661637539395458142568448"),
            ("0.1", "1."),
            ("0.1", ".1"),
            ("0.1", "1e"),
            ("0.1", "NaN"),
            ("-1.5e-3", "2.2250738585072011e-308"),
            ("-1.5e-3", "1e309"),
            ("-1.5e-3", "9007199254740993"),
            ("\\n", "\n"),
            ("\\n", "\\x"),
            ("\\n", "\\"),
            ("\\n", "é\u{1F600}"),
            ("\\n", "\\é"),
            ("\\u00e9", "\\u00e"),
            ("\\u00e9", "\\u+123"),
            ("\\u00e9", "\\u00e\u{e9}"),
            ("\\ude00", ""),
            ("\\ude00", "\\u0041"),
            ("\\ud83d", ""),
            ("{\"full\": {\"length\": null}}", "\"plain\""),
            ("{\"full\": {\"length\": null}}", "\"full\""),
            ("{\"full\": {\"length\": null}}", "{}"),
            ("{\"length\": null}}", "{\"length\": -3}}"),
            ("{\"length\": null}}", "{}, \"plain\": null}"),
            ("\"choice\": {", "\"choice\": {\"another\": 0,"),
            ("[1, 2]", "[1]"),
            ("[1, 2]", "[1, 2, 3]"),
            ("[1, 2]", "[1 2]"),
            ("[1, 2]", "[1, 2,]"),
            ("[1, 2]", "[,1, 2]"),
            ("{\"one\": true}", "{\"one\": 1}"),
            ("true", "truex"),
            (" } ", "} x"),
            (" } ", ", } "),
            (" } ", "\u{a0}} "),
            (" } ", "\0} "),
            (" } ", ", \"number\": 8} "),
            ("\"number\"", "number"),
            ("\"number\"", "\"numbers\""),
        ] {
            let changed = SOUND.replacen(from, to, 1);
            assert_ne!(changed, SOUND, "{from}");
            compare(&changed);
        }
    }

    #[test]
    fn an_error_says_what_and_where() {
        let error = |text| read::<Choice>(text).unwrap_err().to_string();
        assert_eq!(error("7 "), "invalid type: a number, expected enum Choice at byte 1");
        assert_eq!(
            error(r#""none""#),
            "unknown variant `none`, expected one of `plain`, `full`, `one` at byte 6"
        );
        assert_eq!(error(r#"{"one": tru"#), "expected a value at byte 8");
        assert_eq!(error(r#"{"one": "#), "unexpected end at byte 8");
        assert_eq!(error(r#""plain" 1"#), "trailing characters at byte 8");
        let number = read::<u8>("256").unwrap_err().to_string();
        assert_eq!(number, "invalid value: a number, expected u8 at byte 3");
    }

    #[test]
    fn what_is_skipped_is_well_formed() {
        for text in [
            "",
            " ",
            "[]",
            "{}",
            "[[],{}]",
            "[[] 1]",
            "[{} 1]",
            "{\"a\":[] \"b\":1}",
            "[1 2]",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{,\"a\":1}",
            "{\"a\" 1}",
            "{\"a\"}",
            "{1:1}",
            "]",
            "}",
            "[}",
            "{]",
            "[1}",
            "{\"a\":1]",
            "[[1,[2,[3]]],4]",
            "[[1,[2,[3]],4]",
            "nullnull",
            "null null",
            "01",
            "-",
            "-0.0e+0",
            "1.e1",
            "\"",
            "\"\\\"",
            "\"\t\"",
            "\u{feff}1",
        ] {
            compare_form(text);
        }
        let deep = |open: &str, close: &str| open.repeat(100_000) + "1" + &close.repeat(100_000);
        assert!(well_formed(&deep("[", "]")));
        assert!(well_formed(&deep("{\"\":", "}")));
        assert!(!well_formed(&deep("[", "}")));
    }

    proptest! {
        #[test]
        fn changed_texts_are_read_as_serde_json_reads_them(
            at in 0..SOUND.len(), removed in 0..3_usize, put in "[\\[\\]{}:,\"\\\\0-9a-f.eEu+ -]{0,2}",
        ) {
            prop_assume!(SOUND.is_char_boundary(at) && SOUND.is_char_boundary((at + removed).min(SOUND.len())));
            let changed = [&SOUND[..at], &put, &SOUND[(at + removed).min(SOUND.len())..]].concat();
            compare(&changed);
            // Half of a surrogate pair is not looked at there.
            if !changed.contains("\\ud") || changed.contains("n\\ud83d\\ude00") {
                compare_form(&changed);
            }
        }

        #[test]
        fn floats_have_the_bits_that_serde_json_gives_them(single: u32, double: u64) {
            let (single, double) = (f32::from_bits(single), f64::from_bits(double));
            prop_assume!(single.is_finite() && double.is_finite());
            prop_assert_eq!(read::<f32>(&format!("{single:e}")).unwrap().to_bits(), single.to_bits());
            prop_assert_eq!(read::<f64>(&format!("{double:?}")).unwrap().to_bits(), double.to_bits());
            let theirs: f32 = serde_json::from_str(&format!("{double:e}")).unwrap_or(f32::INFINITY);
            let ours = read::<f32>(&format!("{double:e}")).unwrap_or(f32::INFINITY);
            prop_assert_eq!(ours.to_bits(), theirs.to_bits());
        }
    }
}
