//! The header: bounded parsing of JSON that nobody vouches for.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use safetensors::tensor::TensorInfo;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::value::RawValue;

use super::json::{self, JsonError};
use super::layout::Listed;
use super::{
    Config, FileLayout, FormatError, MAX_CHAT_BYTES, MAX_END_TOKENS, MAX_HEADER_BYTES,
    MAX_PROVENANCE_BYTES, MAX_TEMPLATE_NAME_BYTES, MAX_TEMPLATES_BYTES, METADATA_KEY, MatrixInfo,
    VERSION, checksum,
};
use crate::fp_env::FpEnv;

/// Where a model came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Hash of the checkpoint, with the algorithm's name before a colon.
    pub digest: String,
    /// Bytes of the checkpoint's weights.
    pub bytes: u64,
}

/// Any JSON, kept as its text: a device has no use for it, and parsed it may take seventy times its length.
#[derive(Clone, Debug, PartialEq)]
pub struct Provenance(Box<str>);

impl Provenance {
    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What the text says; what is nested too deeply to parse (128 levels), or has numbers that no float64
    /// holds, as a string.
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_str(self.text()).unwrap_or_else(|_| self.text().into())
    }
}

impl From<serde_json::Value> for Provenance {
    fn from(value: serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

impl Default for Provenance {
    fn default() -> Self {
        Self("null".into())
    }
}

impl Serialize for Provenance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_json(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Provenance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded(deserializer, "quantizer", MAX_PROVENANCE_BYTES).map(Self)
    }
}

/// A [`ChatFormat`](super::ChatFormat) as its text, which is read when it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatJson(Box<str>);

impl ChatJson {
    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<&super::ChatFormat> for ChatJson {
    fn from(format: &super::ChatFormat) -> Self {
        Self(serde_json::to_string(format).expect("texts are written as JSON").into())
    }
}

impl Serialize for ChatJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_json(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for ChatJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded(deserializer, "chat", MAX_CHAT_BYTES).map(Self)
    }
}

/// Writes JSON as it is.
fn serialize_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(text.to_owned()).map_err(ser::Error::custom)?.serialize(serializer)
}

/// The JSON of the metadata key `cerebellum`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The format's version.
    pub version: u32,
    /// The model's shape.
    pub config: Config,
    /// Scheme and shape of each matrix, by name.
    #[serde(deserialize_with = "unique")]
    pub tensors: BTreeMap<String, MatrixInfo>,
    /// Where the weights came from.
    #[serde(default)]
    pub source: Option<Source>,
    /// The quantizer's version and options, for information.
    #[serde(default)]
    pub quantizer: Provenance,
    /// Templates by name (`docs/templates.md`). Their content is judged when one is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "templates")]
    pub templates: BTreeMap<String, String>,
    /// How the model is put conversations. Its content is judged when it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatJson>,
    /// Tokens that end a text, besides the configuration's end-of-text token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub end_tokens: Vec<u32>,
}

impl Header {
    fn check_end_tokens(&self) -> Result<(), FormatError> {
        let wrong = |detail| Err(FormatError::config("end_tokens", detail));
        if self.end_tokens.len() > MAX_END_TOKENS {
            return wrong(format!("more than {MAX_END_TOKENS}"));
        }
        match self.end_tokens.iter().find(|&&it| it as usize >= self.config.vocab_size) {
            Some(token) => wrong(format!("{token} is past the vocabulary")),
            None => Ok(()),
        }
    }
}

/// Reads and validates the header of a whole file: afterwards every place in the returned layout
/// lies within `file`, and the payload may hold anything.
pub fn read_header(file: &[u8]) -> Result<(Header, FileLayout), FormatError> {
    let last = file.last_chunk::<4>().copied().unwrap_or_default();
    let (header, layout) = read_front(file, last, file.len() as u64)?;
    super::verify::check_table(file, &layout)?;
    Ok((header, layout))
}

/// As [`read_header`], from a file's beginning, its last bytes, and its length: all but the table of the
/// tensors' checksums.
pub(super) fn read_front(
    front: &[u8],
    last: [u8; 4],
    file_bytes: u64,
) -> Result<(Header, FileLayout), FormatError> {
    // Numbers are parsed by arithmetic.
    let _env = FpEnv::set_default();
    let json = framed_json(front, last, file_bytes)?;
    let (metadata, listed) = parse(json)?;
    let header = parse_metadata(&metadata)?;
    header.config.validate()?;
    header.check_end_tokens()?;
    let tokenizer_bytes = listed.get(super::TOKENIZER).map(single_dimension).transpose()?;
    let layout = FileLayout::new(&header.config, &header.tensors, tokenizer_bytes)?;
    layout.check_listed(&listed)?;
    let expected = (8 + json.len()) as u64 + layout.data_bytes() as u64;
    if expected != file_bytes {
        return Err(FormatError::Length { expected, found: file_bytes });
    }
    Ok((header, layout.based_at(8 + json.len())))
}

/// How many bytes of a file [`read_front`] needs, given its first ones.
#[cfg(feature = "std")]
pub(super) fn front_bytes(first: &[u8]) -> u64 {
    let length = first.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    8 + if length > MAX_HEADER_BYTES as u64 { 0 } else { length }
}

/// The JSON bytes, after everything that can be checked before parsing them.
fn framed_json(front: &[u8], last: [u8; 4], file_bytes: u64) -> Result<&[u8], FormatError> {
    let Some((length, rest)) = front.split_first_chunk::<8>() else {
        return Err(FormatError::NotAModel("shorter than its first field"));
    };
    let length = u64::from_le_bytes(*length);
    if length == 0 || length > MAX_HEADER_BYTES as u64 {
        return Err(FormatError::NotAModel("the header's length is out of bounds"));
    }
    let length = length as usize;
    if !(8 + length).is_multiple_of(crate::quant::TILE_ALIGN) {
        return Err(FormatError::NotAModel("the data does not begin on a 64-byte boundary"));
    }
    let Some(json) = rest.get(..length) else {
        return Err(FormatError::NotAModel("shorter than its header"));
    };
    if file_bytes < (8 + length + last.len()) as u64 {
        return Err(FormatError::NotAModel("no data after its header"));
    }
    if u32::from_le_bytes(last) != checksum(&front[..8 + length]) {
        return Err(FormatError::HeaderChecksum);
    }
    Ok(json)
}

fn parse_metadata(metadata: &str) -> Result<Header, FormatError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let wrong = |e: JsonError| FormatError::Json(format!("{METADATA_KEY}: {e}"));
    // The version first: a later one may differ in all else.
    let Version { version } = json::read(metadata).map_err(wrong)?;
    if version != VERSION {
        return Err(FormatError::Version { found: version });
    }
    json::read(metadata).map_err(wrong)
}

fn single_dimension(info: &TensorInfo) -> Result<usize, FormatError> {
    match info.shape[..] {
        [n] => Ok(n),
        _ => Err(FormatError::tensor(super::TOKENIZER, "must have one dimension")),
    }
}

/// The top level of a safetensors header, refusing a name that occurs twice (see [`UniqueMap`]).
fn parse(json: &[u8]) -> Result<(String, Listed), FormatError> {
    struct TopLevel;

    impl<'de> Visitor<'de> for TopLevel {
        type Value = (String, Listed);

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            write!(f, "a safetensors header")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut metadata, mut listed) = (None, Listed::new());
            while let Some(name) = map.next_key::<String>()? {
                let twice = if name == "__metadata__" {
                    metadata.replace(map.next_value::<UniqueMap<String>>()?).is_some()
                } else {
                    listed.insert(name.clone(), map.next_value()?).is_some()
                };
                if twice {
                    return Err(de::Error::custom(format!("{name:?} occurs twice")));
                }
            }
            let UniqueMap(mut entries) = metadata.unwrap_or_default();
            let only = entries.remove(METADATA_KEY).filter(|_| entries.is_empty());
            let other = || {
                let detail =
                    format!("__metadata__ must have the key {METADATA_KEY:?} and no other");
                de::Error::custom(detail)
            };
            Ok((only.ok_or_else(other)?, listed))
        }
    }

    let json = core::str::from_utf8(json).map_err(|e| FormatError::Json(e.to_string()))?;
    json::read_with(json, |reader| reader.deserialize_map(TopLevel))
        .map_err(|e| FormatError::Json(e.to_string()))
}

/// A JSON object in which no name occurs twice. A map alone would silently keep one of the values,
/// and which one differs from parser to parser: a file could be one model to this reader and another
/// to a tool that is to judge it.
struct UniqueMap<V>(BTreeMap<String, V>);

impl<V> Default for UniqueMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = UniqueMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    match entries.entry(name) {
                        Entry::Vacant(place) => place.insert(map.next_value()?),
                        Entry::Occupied(first) => {
                            let detail = format!("{:?} occurs twice", first.key());
                            return Err(de::Error::custom(detail));
                        }
                    };
                }
                Ok(UniqueMap(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

fn unique<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, MatrixInfo>, D::Error> {
    Ok(UniqueMap::deserialize(deserializer)?.0)
}

/// The text of a part of the header, if it is not too long.
fn bounded<'de, D: Deserializer<'de>>(
    deserializer: D,
    part: &str,
    most: usize,
) -> Result<Box<str>, D::Error> {
    let text = json::raw(deserializer)?;
    if text.len() > most {
        return Err(de::Error::custom(format!("{part}: longer than {most} bytes")));
    }
    Ok(text)
}

fn templates<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let text = bounded(deserializer, "templates", MAX_TEMPLATES_BYTES)?;
    let UniqueMap(templates) = json::read(&text).map_err(de::Error::custom)?;
    match templates.keys().find(|name: &&String| !is_template_name(name)) {
        Some(name) => Err(de::Error::custom(format!("{name:?} is no name of a template"))),
        None => Ok(templates),
    }
}

/// Whether a template may have this name: lower-case letters, digits and hyphens, not too many.
pub fn is_template_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_TEMPLATE_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}
