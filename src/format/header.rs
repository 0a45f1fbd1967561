//! The header: bounded parsing of JSON that nobody vouches for.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Serialize, Serializer, ser};
use serde_json::value::RawValue;

use super::json::{Json, Object, Reader, Text, members};
use super::{
    ByName, Config, FileLayout, FormatError, MAX_CHAT_BYTES, MAX_END_TOKENS, MAX_HEADER_BYTES,
    MAX_PROVENANCE_BYTES, MAX_TEMPLATE_NAME_BYTES, MAX_TEMPLATES_BYTES, METADATA_KEY, MatrixInfo,
    VERSION, checksum, opening_bytes,
};
use crate::error::Error;
use crate::fp_env::FpEnv;
use crate::memory;
use crate::terminal;

/// The key of a safetensors header that lists no tensor.
pub(super) const METADATA: &str = "__metadata__";

/// Where a model came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Source {
    /// Hash of the checkpoint, with the algorithm's name before a colon.
    pub digest: String,
    /// Bytes of the checkpoint's weights.
    pub bytes: u64,
}

members!(Source { digest, bytes });

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

impl Json for Provenance {
    fn read(reader: &mut Reader) -> Self {
        Self(bounded(reader, "quantizer", MAX_PROVENANCE_BYTES).into())
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

impl Json for ChatJson {
    fn read(reader: &mut Reader) -> Self {
        Self(bounded(reader, "chat", MAX_CHAT_BYTES).into())
    }
}

/// Writes JSON as it is.
fn serialize_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(text.to_owned()).map_err(ser::Error::custom)?.serialize(serializer)
}

/// The JSON of the metadata key `cerebellum`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Header {
    /// The format's version.
    pub version: u32,
    /// The model's shape.
    pub config: Config,
    /// Scheme and shape of each matrix, by name.
    pub tensors: ByName<MatrixInfo>,
    /// Where the weights came from.
    pub source: Option<Source>,
    /// The quantizer's version and options, for information.
    pub quantizer: Provenance,
    /// Templates by name (`docs/templates.md`). Their content is judged when one is asked for.
    #[serde(skip_serializing_if = "ByName::is_empty")]
    pub templates: ByName<String>,
    /// How the model is put conversations. Its content is judged when it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatJson>,
    /// Tokens that end a text, besides the configuration's end-of-text token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub end_tokens: Vec<u32>,
}

impl Header {
    /// Reads the JSON of the metadata key `cerebellum`. What the configuration says is not checked.
    ///
    /// # Errors
    /// [`FormatError::Json`], [`FormatError::Version`].
    pub fn parse(json: &str) -> Result<Self, FormatError> {
        let source = Text::new(json);
        let check =
            || source.check().map_err(|e| FormatError::Json(format!("{METADATA_KEY}: {e}")));
        let object = source.object();
        // The version first: a later one may differ in all else.
        let found = object.member("version");
        check()?;
        if found != VERSION {
            return Err(FormatError::Version { found });
        }
        let header = Self {
            version: VERSION,
            config: object.member("config"),
            tensors: object.member("tensors"),
            source: object.member("source"),
            quantizer: object.member_or_default("quantizer"),
            templates: object.find("templates").map(templates).unwrap_or_default(),
            chat: object.member("chat"),
            end_tokens: object.member_or_default("end_tokens"),
        };
        check().map(|()| header)
    }

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
    // What is compared with 0 may be subnormal.
    let _env = FpEnv::set_default();
    let json = framed_json(front, last, file_bytes)?;
    let text = core::str::from_utf8(json).map_err(|e| FormatError::Json(e.to_string()))?;
    let source = Text::new(text);
    let listed = source.object();
    let metadata = metadata(&listed);
    source.check()?;
    let header = Header::parse(&metadata)?;
    drop(metadata);
    header.config.validate()?;
    header.check_end_tokens()?;
    let tokenizer_bytes = tokenizer_bytes(&listed)?;
    let layout = FileLayout::new(&header.config, &header.tensors, tokenizer_bytes)?;
    layout.check_listed(&listed)?;
    let expected = (8 + json.len()) as u64 + layout.data_bytes() as u64;
    if expected != file_bytes {
        return Err(FormatError::Length { expected, found: file_bytes });
    }
    Ok((header, layout.based_at(8 + json.len())))
}

/// Length of the header, given a file's first bytes; 0 if it is out of bounds.
fn header_bytes(first: &[u8]) -> usize {
    let length = first.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if length > MAX_HEADER_BYTES as u64 { 0 } else { length as usize }
}

/// How many bytes of a file [`read_front`] needs, given its first ones.
#[cfg(feature = "std")]
pub(super) fn front_bytes(first: &[u8]) -> u64 {
    8 + header_bytes(first) as u64
}

/// Fails unless there is the memory that opening a file takes, whose beginning is given: from here on it is allocated
/// in small pieces, of which none may be refused.
pub(super) fn probe_opening(first: &[u8]) -> Result<(), Error> {
    memory::probe(opening_bytes(header_bytes(first), size_of::<usize>()))
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

/// The JSON of [`Header`], in a safetensors header.
fn metadata(listed: &Object) -> String {
    let members: Vec<_> = match listed.find(METADATA) {
        Some(mut reader) => reader.object().members().collect(),
        None => Vec::new(),
    };
    match &members[..] {
        [(name, reader)] if name == METADATA_KEY => String::read(&mut reader.clone()),
        _ => {
            let only = format_args!("{METADATA} must have the key \"{METADATA_KEY}\" and no other");
            listed.end().fail(&only);
            String::new()
        }
    }
}

/// The size of the tokenizer's tables, as a safetensors header lists them.
fn tokenizer_bytes(listed: &Object) -> Result<Option<usize>, FormatError> {
    let Some(mut reader) = listed.find(super::TOKENIZER) else { return Ok(None) };
    let shape: Vec<usize> = reader.object().member("shape");
    listed.check()?;
    match shape[..] {
        [bytes] => Ok(Some(bytes)),
        _ => Err(FormatError::tensor(super::TOKENIZER, "must have one dimension")),
    }
}

/// The text of a part of the header, if it is not too long.
fn bounded<'t>(reader: &mut Reader<'t>, part: &str, most: usize) -> &'t str {
    let text = reader.skip();
    if text.len() > most {
        reader.fail(&format_args!("{part}: longer than {most} bytes"));
    }
    text
}

fn templates(mut reader: Reader) -> ByName<String> {
    bounded(&mut reader.clone(), "templates", MAX_TEMPLATES_BYTES);
    let templates = ByName::read(&mut reader);
    if let Some(name) = templates.keys().find(|name: &&String| !is_template_name(name)) {
        reader.fail(&format_args!("{} is no name of a template", terminal::quoted(name)));
    }
    templates
}

/// Whether a template may have this name: lower-case letters, digits and hyphens, not too many.
pub fn is_template_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_TEMPLATE_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}
