//! A reader of JSON for headers of files.
//!
//! It takes the whole of RFC 8259 and nothing else, as `serde_json` does, which the tests compare it with. An object
//! is looked over once, for where its members are, and then asked for them by name. The first error is noted; what is
//! read after it is any value, and the errors that follow from it are not noted. So all that does not depend on the
//! type that is read is compiled once, and a field is one call: reading a header takes a tenth of the code that it
//! took with `serde` (`docs/embedding.md`, "Size").

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::fmt;

use crate::decimal;
use crate::terminal::quoted;

/// What is wrong with JSON, or with what it says, and at which byte that was found.
#[derive(Clone, Debug)]
pub struct JsonError(String);

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for JsonError {}

/// What can be read from JSON.
pub trait Json: Sized {
    /// Reads a value.
    fn read(reader: &mut Reader) -> Self;

    /// What a member is that an object lacks, if it may.
    fn absent() -> Option<Self> {
        None
    }
}

/// Reads a value, behind which nothing may follow.
///
/// # Errors
/// What is wrong.
pub fn read<T: Json>(text: &str) -> Result<T, JsonError> {
    let source = Text::new(text);
    let mut reader = source.reader();
    let value = T::read(&mut reader);
    reader.end();
    source.check().map(|()| value)
}

/// Lets a structure be read from an object that has its fields; those behind `or_default` may be missing.
macro_rules! members {
    ($type:ident { $($field:ident),* $(,)? } $(or_default { $($other:ident),* $(,)? })?) => {
        impl $crate::format::json::Json for $type {
            fn read(reader: &mut $crate::format::json::Reader) -> Self {
                let object = reader.object();
                Self {
                    $($field: object.member(stringify!($field)),)*
                    $($($other: object.member_or_default(stringify!($other)),)*)?
                }
            }
        }
    };
}

/// Lets the variants of an enumeration be read and written by their names.
macro_rules! names {
    ($type:ident { $($variant:ident = $name:literal),* $(,)? }) => {
        impl $crate::format::json::Json for $type {
            fn read(reader: &mut $crate::format::json::Reader) -> Self {
                [$(Self::$variant),*][reader.choice(&[$($name),*])]
            }
        }

        impl $type {
            /// The name used in files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}

pub(crate) use {members, names};

/// A text, and the first error that was found in it.
pub struct Text<'t> {
    text: &'t str,
    error: OnceCell<JsonError>,
}

impl<'t> Text<'t> {
    /// Nothing read yet.
    pub fn new(text: &'t str) -> Self {
        Self { text, error: OnceCell::new() }
    }

    /// From the text's beginning.
    pub fn reader(&self) -> Reader<'_> {
        Reader { source: self, at: 0 }
    }

    /// The object that is all of the text.
    pub fn object(&self) -> Object<'_> {
        let mut reader = self.reader();
        let object = reader.object();
        reader.end();
        object
    }

    /// Whether all is well so far.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self) -> Result<(), JsonError> {
        self.error.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}

/// Reads one value after another from a text.
#[derive(Clone, Copy)]
pub struct Reader<'t> {
    source: &'t Text<'t>,
    at: usize,
}

/// A value, or the beginning of one.
enum Token<'t> {
    /// Or an error was found.
    Null,
    Bool(bool),
    Number(&'t str),
    /// What is between the quotation marks, which is well-formed.
    Text(&'t str),
    Array,
    Object,
}

impl<'t> Reader<'t> {
    /// Notes an error here.
    #[cold]
    #[inline(never)]
    pub fn fail(&self, what: &dyn fmt::Display) {
        self.source.error.get_or_init(|| JsonError(format!("{what} at byte {}", self.at)));
    }

    fn has_failed(&self) -> bool {
        self.source.error.get().is_some()
    }

    /// Notes that a value, which was just read, is of another type than is expected.
    #[cold]
    #[inline(never)]
    fn is_not(&self, found: &Token, expected: &str) {
        let found = match found {
            Token::Null => "null",
            Token::Bool(_) => "a boolean",
            Token::Number(_) => "a number",
            Token::Text(_) => "a string",
            Token::Array => "an array",
            Token::Object => "an object",
        };
        self.fail(&format_args!("invalid type: {found}, expected {expected}"));
    }

    /// Notes that a name occurs twice.
    #[cold]
    pub fn twice(&self, name: &str) {
        self.fail(&format_args!("{} occurs twice", quoted(name)));
    }

    /// Notes that a choice has no such name.
    #[cold]
    pub fn unknown(&self, name: &str) {
        self.fail(&format_args!("unknown variant {}", quoted(name)));
    }

    fn text(&self) -> &'t str {
        self.source.text
    }

    fn rest(&self) -> &'t [u8] {
        self.text().as_bytes().get(self.at..).unwrap_or_default()
    }

    /// The next byte that is no white space; 0, which no JSON has, at the end.
    #[inline(never)]
    fn peek(&mut self) -> u8 {
        let rest = self.rest();
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'));
        self.at += blank.count();
        self.here()
    }

    /// The byte here; 0 at the end.
    fn here(&self) -> u8 {
        self.rest().first().copied().unwrap_or(0)
    }

    /// Takes the next byte behind white space if it is this one.
    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    /// What the text ends with.
    pub fn end(&mut self) {
        if self.peek() != 0 || self.at < self.text().len() {
            self.fail(&"trailing characters");
        }
    }

    /// The next value, or the beginning of an array or object.
    #[inline(never)]
    fn token(&mut self) -> Token<'t> {
        if self.has_failed() {
            return Token::Null;
        }
        let first = self.peek();
        for (word, token) in [
            ("null", Token::Null),
            ("true", Token::Bool(true)),
            ("false", Token::Bool(false)),
            ("[", Token::Array),
            ("{", Token::Object),
        ] {
            if self.rest().starts_with(word.as_bytes()) {
                self.at += word.len();
                return token;
            }
        }
        match first {
            b'"' => return Token::Text(self.string()),
            b'-' | b'0'..=b'9' => return Token::Number(self.number()),
            0 if self.at == self.text().len() => self.fail(&"unexpected end"),
            _ => self.fail(&"expected a value"),
        }
        Token::Null
    }

    /// The digits here.
    #[inline(never)]
    fn digits(&mut self) {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 {
            self.fail(&"expected a digit");
        }
    }

    fn number(&mut self) -> &'t str {
        let start = self.at;
        self.at += usize::from(self.here() == b'-');
        match self.here() {
            b'0' => self.at += 1,
            _ => self.digits(),
        }
        if self.here() == b'.' {
            self.at += 1;
            self.digits();
        }
        if matches!(self.here(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.here(), b'+' | b'-'));
            self.digits();
        }
        if self.here().is_ascii_digit() {
            self.fail(&"a number begins with 0");
        }
        self.since(start)
    }

    /// The text from a place to here.
    fn since(&self, start: usize) -> &'t str {
        self.text().get(start..self.at).unwrap_or_default()
    }

    /// The string here, which begins with a quotation mark, as it is written.
    fn string(&mut self) -> &'t str {
        self.at += 1;
        let start = self.at;
        while !self.has_failed() {
            let rest = self.rest();
            let special = |&byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let Some(length) = rest.iter().position(special) else {
                self.at = self.text().len();
                self.fail(&"a string has no end");
                break;
            };
            self.at += length + 1;
            match rest[length] {
                b'"' => return &self.text()[start..self.at - 1],
                b'\\' => {
                    self.escaped();
                }
                _ => self.fail(&"a control character in a string"),
            }
        }
        ""
    }

    /// The character that an escape stands for, behind its backslash.
    fn escaped(&mut self) -> char {
        let byte = self.here();
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut point = self.unit();
                if point & 0xfc00 == 0xd800 && self.rest().starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.unit().wrapping_sub(0xdc00);
                    point =
                        if low < 0x400 { 0x1_0000 + ((point & 0x3ff) << 10 | low) } else { point };
                }
                char::from_u32(point).unwrap_or_else(|| {
                    self.fail(&"half of a surrogate pair");
                    ' '
                })
            }
            _ => {
                // The text may end here, and a character has more bytes than one.
                self.at -= 1;
                self.fail(&"an unknown escape");
                ' '
            }
        }
    }

    /// Four hexadecimal digits.
    #[inline(never)]
    fn unit(&mut self) -> u32 {
        let digits = self.rest().first_chunk::<4>();
        let add = |unit, digit: &u8| Some(unit << 4 | char::from(*digit).to_digit(16)?);
        match digits.and_then(|digits| digits.iter().try_fold(0, add)) {
            Some(unit) => {
                self.at += 4;
                unit
            }
            None => {
                self.fail(&"expected four hexadecimal digits");
                0
            }
        }
    }

    /// The place of the next member, its name and the colon taken; `None` behind the last one.
    #[inline(never)]
    fn key(&mut self, is_first: &mut bool) -> Option<u32> {
        if self.has_failed() || self.takes(b'}') {
            return None;
        }
        if !core::mem::take(is_first) && !self.takes(b',') {
            self.fail(&"expected `,` or `}`");
        }
        if self.peek() != b'"' {
            self.fail(&"a key is no string");
        }
        let at = self.at;
        self.string();
        if !self.takes(b':') {
            self.fail(&"expected `:`");
        }
        // No header is as long as that.
        at.try_into().ok()
    }

    /// Whether there is another element; the end of the array is taken, too.
    #[inline(never)]
    fn has_element(&mut self, is_first: &mut bool) -> bool {
        if self.has_failed() || self.takes(b']') {
            return false;
        }
        if !core::mem::take(is_first) && !self.takes(b',') {
            self.fail(&"expected `,` or `]`");
        }
        true
    }

    /// The text of the next value, which is well-formed; however deeply it is nested.
    #[inline(never)]
    pub fn skip(&mut self) -> &'t str {
        self.peek();
        let start = self.at;
        // For each array or object that is open, whether it is an object.
        let mut open = Vec::new();
        loop {
            let mut is_first = true;
            match self.token() {
                Token::Array => open.push(false),
                Token::Object => open.push(true),
                _ => is_first = false,
            }
            // Whatever ends here, up to the next value.
            loop {
                let Some(&is_object) = open.last() else {
                    return self.since(start);
                };
                let goes_on = match is_object {
                    true => self.key(&mut is_first).is_some(),
                    false => self.has_element(&mut is_first),
                };
                if goes_on {
                    break;
                }
                open.pop();
                is_first = false;
            }
        }
    }

    /// A string.
    #[inline(never)]
    fn words(&mut self) -> Cow<'t, str> {
        match self.token() {
            Token::Text(text) => unescaped(text),
            other => {
                self.is_not(&other, "a string");
                Cow::Borrowed("")
            }
        }
    }

    /// A number as it is written.
    #[inline(never)]
    fn digits_of(&mut self) -> &'t str {
        match self.token() {
            Token::Number(text) => text,
            other => {
                self.is_not(&other, "a number");
                "0"
            }
        }
    }

    /// A whole number in a range, the negative ones by how far they may be below 0. `-0` is none, as 7.0 is none.
    #[inline(never)]
    fn whole(&mut self, below: u64, most: u64) -> u64 {
        let text = self.digits_of();
        let digits = text.strip_prefix('-');
        let add = |number: u64, byte: u8| match byte {
            b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        };
        let number = digits.unwrap_or(text).bytes().try_fold(0, add);
        let allowed = if digits.is_some() { 1..=below } else { 0..=most };
        match number.filter(|number| allowed.contains(number)) {
            Some(number) if digits.is_some() => number.wrapping_neg(),
            Some(number) => number,
            None => {
                self.fail(&"not a whole number in range");
                0
            }
        }
    }

    /// The place of a string among names.
    #[inline(never)]
    pub fn choice(&mut self, names: &[&str]) -> usize {
        let text = self.words();
        names.iter().position(|name| *name == text).unwrap_or_else(|| {
            self.unknown(&text);
            0
        })
    }

    /// An object's members, their values only looked over.
    #[inline(never)]
    pub fn object(&mut self) -> Object<'t> {
        let (mut members, mut is_first) = (Vec::new(), true);
        match self.token() {
            Token::Object => {
                while let Some(at) = self.key(&mut is_first) {
                    members.push(at);
                    self.skip();
                }
            }
            other => self.is_not(&other, "an object"),
        }
        Object { members, end: *self }
    }

    /// A name, and what belongs to it: `"name"`, or `{"name": ...}`.
    pub fn variant(&mut self) -> (Cow<'t, str>, Option<Reader<'t>>) {
        if self.peek() == b'"' {
            return (self.words(), None);
        }
        let object = self.object();
        match object.members[..] {
            [at] => {
                let (name, content) = object.member_at(at);
                (name, Some(content))
            }
            _ => {
                self.fail(&"expected one variant");
                (Cow::Borrowed(""), None)
            }
        }
    }
}

/// What a string means, whose escapes are well-formed.
#[inline(never)]
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let source = Text::new(text);
    let (mut owned, mut reader) = (String::with_capacity(text.len()), source.reader());
    while let Some(length) = text[reader.at..].find('\\') {
        owned.push_str(&text[reader.at..][..length]);
        reader.at += length + 1;
        owned.push(reader.escaped());
    }
    owned.push_str(&text[reader.at..]);
    Cow::Owned(owned)
}

/// The most elements of an array: those of a configuration with as many layers as there may be.
const MOST_ELEMENTS: usize = 1 << 12;

/// The members of an object.
pub struct Object<'t> {
    /// Where the name of each is: a member may have five bytes, which more than a place would outweigh.
    members: Vec<u32>,
    /// Behind the object.
    end: Reader<'t>,
}

impl<'t> Object<'t> {
    /// Behind the object, where errors are noted that concern all of it.
    pub fn end(&self) -> Reader<'t> {
        self.end
    }

    /// All members in their order.
    pub fn members(&self) -> impl Iterator<Item = (Cow<'t, str>, Reader<'t>)> {
        self.members.iter().map(|&at| self.member_at(at))
    }

    #[inline(never)]
    fn member_at(&self, at: u32) -> (Cow<'t, str>, Reader<'t>) {
        let mut reader = Reader { at: at as usize, ..self.end };
        let name = unescaped(reader.string());
        reader.takes(b':');
        reader.peek();
        (name, reader)
    }

    /// Where the value of a member is, if there is one of the name. That there are two is an error.
    #[inline(never)]
    pub fn find(&self, name: &str) -> Option<Reader<'t>> {
        let mut found = self.members().filter(|(member, _)| member == name);
        let first = found.next();
        if let Some((_, second)) = found.next() {
            second.twice(name);
        }
        first.map(|(_, reader)| reader)
    }

    /// A member that must be there, unless its type is an optional one.
    #[inline(never)]
    pub fn member<T: Json>(&self, name: &str) -> T {
        self.find(name).map(|mut reader| T::read(&mut reader)).or_else(T::absent).unwrap_or_else(
            || {
                self.end.fail(&format_args!("missing field {}", quoted(name)));
                T::read(&mut self.end.clone())
            },
        )
    }

    /// A member that need not be there.
    pub fn member_or_default<T: Json + Default>(&self, name: &str) -> T {
        self.find(name).map_or_else(T::default, |mut reader| T::read(&mut reader))
    }

    /// As [`Text::check`].
    ///
    /// # Errors
    /// What is not well.
    pub fn check(&self) -> Result<(), JsonError> {
        self.end.source.check()
    }
}

impl Json for bool {
    fn read(reader: &mut Reader) -> Self {
        match reader.token() {
            Token::Bool(value) => value,
            other => {
                reader.is_not(&other, "a boolean");
                false
            }
        }
    }
}

impl Json for String {
    fn read(reader: &mut Reader) -> Self {
        reader.words().into_owned()
    }
}

macro_rules! floats {
    ($($type:ident)*) => {
        $(
            /// To the nearest of the type's, not by way of another.
            impl Json for $type {
                fn read(reader: &mut Reader) -> Self {
                    let float = decimal::$type(reader.digits_of());
                    float.filter(|float| float.is_finite()).unwrap_or_else(|| {
                        reader.fail(&"a number is out of range");
                        0.0
                    })
                }
            }
        )*
    };
}

floats! { f32 f64 }

macro_rules! whole_numbers {
    ($($type:ident)*) => {
        $(
            impl Json for $type {
                fn read(reader: &mut Reader) -> Self {
                    reader.whole((Self::MIN as i64).unsigned_abs(), Self::MAX as u64) as Self
                }
            }
        )*
    };
}

whole_numbers! { u8 u32 u64 usize i32 }

impl<T: Json> Json for Option<T> {
    fn read(reader: &mut Reader) -> Self {
        match reader.peek() {
            b'n' => {
                reader.token();
                None
            }
            _ => Some(T::read(reader)),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Json> Json for Vec<T> {
    fn read(reader: &mut Reader) -> Self {
        let (mut elements, mut is_first) = (Self::new(), true);
        match reader.token() {
            Token::Array => {
                while reader.has_element(&mut is_first) {
                    if elements.len() == MOST_ELEMENTS {
                        reader.fail(&"an array has too many elements");
                    }
                    elements.push(T::read(reader));
                }
            }
            other => reader.is_not(&other, "an array"),
        }
        elements
    }
}

impl Json for [usize; 2] {
    fn read(reader: &mut Reader) -> Self {
        match Vec::<usize>::read(reader)[..] {
            [first, second] => [first, second],
            _ => {
                reader.fail(&"expected two numbers");
                [0; 2]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// All kinds of types that a header has.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Everything {
        number: u32,
        small: Option<u8>,
        float: f32,
        double: f64,
        text: String,
        yes: bool,
        choice: Choice,
        kind: Kind,
        pair: [usize; 2],
        #[serde(default)]
        list: Vec<Choice>,
        #[serde(default)]
        names: Vec<f32>,
    }

    members!(Everything { number, small, float, double, text, yes, choice, kind, pair } or_default { list, names });

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Plain,
        Full { length: Option<i32> },
    }

    impl Json for Choice {
        fn read(reader: &mut Reader) -> Self {
            match reader.variant() {
                (name, Some(mut reader)) if name == "full" => {
                    Self::Full { length: reader.object().member("length") }
                }
                (name, None) if name == "plain" => Self::Plain,
                (name, _) => {
                    reader.unknown(&name);
                    Self::Plain
                }
            }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        One,
        TheOther,
    }

    names!(Kind { One = "one", TheOther = "the_other" });

    const SOUND: &str = r#" { "number": 7, "small": null, "float": 0.1, "double": -1.5e-3, "unknown": [{"a": []}, 2],
        "text": "\u00e9\n\ud83d\ude00 ok\/", "choice": {"full": {"length": null}}, "kind": "the_other",
        "pair": [1, 2], "list": ["plain", {"full": {"length": 3}}, "plain"], "names": [1, 0.5], "yes": true } "#;

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
        let source = Text::new(text);
        let mut reader = source.reader();
        reader.skip();
        reader.end();
        source.check().is_ok()
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
            ("the_other", "one"),
            ("the_other", "The_other"),
            ("the_other", "the\\u005fother"),
            ("\"the_other\"", "1"),
            ("\"choice\": {", "\"choice\": {\"another\": 0,"),
            ("[1, 2]", "[1]"),
            ("[1, 2]", "[1, 2, 3]"),
            ("[1, 2]", "[1 2]"),
            ("[1, 2]", "[1, 2,]"),
            ("[1, 2]", "[,1, 2]"),
            ("{\"length\": 3}", "{\"length\": 2147483648}"),
            ("{\"length\": 3}", "{\"length\": -2147483648}"),
            ("{\"length\": 3}", "{\"length\": -2147483649}"),
            ("{\"length\": 3}", "{\"length\": -18446744073709551615}"),
            ("{\"length\": 3}", "{\"length\": 3, \"length\": 3}"),
            ("{\"length\": 3}", "{\"length\": 3, \"other\": 3, \"other\": 3}"),
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
        assert_eq!(error("7 "), "invalid type: a number, expected an object at byte 1");
        assert_eq!(error(r#""none""#), "unknown variant \"none\" at byte 6");
        assert_eq!(error(r#"{"full": tru"#), "expected a value at byte 9");
        assert_eq!(error(r#"{"full": "#), "unexpected end at byte 9");
        assert_eq!(
            error(r#"{"full": {"length": "1"}}"#),
            "invalid type: a string, expected a number at byte 23"
        );
        assert_eq!(
            error(r#"{"full": {"length": 1, "length": 1}}"#),
            "\"length\" occurs twice at byte 33"
        );
        assert_eq!(error(r#""plain" 1"#), "trailing characters at byte 8");
        let number = read::<u8>("256").unwrap_err().to_string();
        assert_eq!(number, "not a whole number in range at byte 3");
        let pair = read::<[usize; 2]>("[1]").unwrap_err().to_string();
        assert_eq!(pair, "expected two numbers at byte 3");
        let missing = read::<Everything>("{}").unwrap_err().to_string();
        assert_eq!(missing, "missing field \"number\" at byte 2");
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
