//! The parser: from bytes that may be anything to tables in which every range lies in the file.
//!
//! It copies nothing but keys and the table of tensors, so that a file costs no more memory than
//! it has bytes, whatever it claims.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use cerebellum::terminal::quoted;

use super::invalid::Invalid;
use super::keys;
use super::layout::{DEFAULT_ALIGNMENT, MAGIC, VERSIONS, ValueType};
use crate::dtype::Dtype;

type Result<T, E = Invalid> = std::result::Result<T, E>;

// ggml's own limits, but for the last.
const MAX_KEY_BYTES: u64 = 65_535;
const MAX_NAME_BYTES: u64 = 63;
const MAX_DIMENSIONS: u32 = 4;
const MAX_ALIGNMENT: u64 = 1 << 20;

/// The least bytes that a metadata entry takes: an empty key, its type, a value of one byte.
const MIN_ENTRY_BYTES: usize = 8 + 4 + 1;
/// The least bytes that a tensor's entry takes: an empty name, no dimensions, type and offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// A parsed file; strings and arrays are read from its bytes when asked for.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    entries: BTreeMap<&'a str, Value<'a>>,
    tensors: Vec<TensorEntry>,
}

/// A metadata value. Integers of every width become `Int`, floats `Float`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any integer; those of u64 beyond i64 are capped at its largest.
    Int(i64),
    /// A float of either width.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string.
    Text(&'a str),
    /// An array of one type.
    Array(Array<'a>),
}

/// For messages: of an array only how many values it has.
impl Display for Value<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{}", quoted(value)),
            Self::Array(array) => write!(f, "an array of {}", array.count),
        }
    }
}

/// An array of metadata, checked to lie in the file; arrays of arrays are not supported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    count: usize,
    bytes: &'a [u8],
}

/// A tensor as the file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// The shape, row-major: the file has it the other way round.
    pub shape: Vec<usize>,
    /// The type, or the format's name for one that is not decoded.
    pub dtype: std::result::Result<Dtype, String>,
    /// Where its bytes lie in the file; empty if the type is not decoded.
    pub bytes: Range<usize>,
}

impl<'a> Gguf<'a> {
    /// Parses a file's bytes.
    ///
    /// # Errors
    /// [`Invalid`]. What is returned has tensors that lie in the file, aligned and apart.
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor { file, at: 0 };
        if cursor.take(4, "a magic")? != MAGIC {
            return Err(Invalid::Magic);
        }
        let version = cursor.u32("a version")?;
        if VERSIONS.contains(&version.swap_bytes()) {
            return Err(Invalid::BigEndian);
        }
        if !VERSIONS.contains(&version) {
            return Err(Invalid::Version(version));
        }
        let tensors = cursor.u64("a count")?;
        let entries = cursor.u64("a count")?;
        let entries = cursor.entries(entries)?;
        let alignment = alignment(entries.get(keys::ALIGNMENT))?;
        let tensors = cursor.tensors(tensors)?;
        let data = cursor.at.next_multiple_of(alignment);
        let tensors = tensors.into_iter().map(|raw| raw.place(data, alignment, file.len()));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        check_apart(&tensors)?;
        Ok(Self { entries, tensors })
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.entries.get(key).copied()
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().copied()
    }

    /// All tensors, in the order of the file's table.
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.tensors
    }
}

impl<'a> Array<'a> {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its values.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        let Self { kind, count, bytes } = *self;
        let mut cursor = Cursor { file: bytes, at: 0 };
        (0..count).map(move |_| cursor.value(kind, "").expect("checked by `parse`"))
    }
}

fn alignment(value: Option<&Value>) -> Result<usize> {
    let problem = |problem: String| Invalid::Entry { key: keys::ALIGNMENT.to_owned(), problem };
    match value {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Int(alignment)) => match u64::try_from(*alignment) {
            Ok(n) if n.is_power_of_two() && n <= MAX_ALIGNMENT => Ok(n as usize),
            _ => Err(problem(format!("is {alignment}, but must be a power of two"))),
        },
        Some(_) => Err(problem("is no integer".to_owned())),
    }
}

/// A tensor's entry before its place is known.
struct RawTensor {
    name: String,
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

impl RawTensor {
    fn place(self, data: usize, alignment: usize, file_len: usize) -> Result<TensorEntry> {
        let error = |problem: String| Invalid::Tensor { tensor: self.name.clone(), problem };
        let elements = self.shape.iter().try_fold(1usize, |n, extent| n.checked_mul(*extent));
        let elements = elements.ok_or_else(|| error(format!("has shape {:?}", self.shape)))?;
        let dtype = dtype(self.kind);
        let Ok(known) = dtype else {
            return Ok(TensorEntry { name: self.name, shape: self.shape, dtype, bytes: 0..0 });
        };
        let row = self.shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(known.block_elements()) {
            let (name, block) = (known.name(), known.block_elements());
            return Err(error(format!("has rows of {row}, no multiple of {name}'s {block}")));
        }
        if !self.offset.is_multiple_of(alignment as u64) {
            let offset = self.offset;
            return Err(error(format!("begins at {offset}, no multiple of {alignment}")));
        }
        let start = usize::try_from(self.offset).ok().and_then(|offset| offset.checked_add(data));
        let length = known.bytes(elements);
        let range = start.zip(length).and_then(|(start, len)| Some(start..start.checked_add(len)?));
        match range {
            Some(bytes) if bytes.end <= file_len => {
                Ok(TensorEntry { name: self.name, shape: self.shape, dtype, bytes })
            }
            _ => Err(error("reaches beyond the end of the file, which may be truncated".into())),
        }
    }
}

/// Every tensor has bytes, and a name, of its own.
fn check_apart(tensors: &[TensorEntry]) -> Result<()> {
    let mut names = BTreeSet::new();
    for tensor in tensors {
        if !names.insert(&tensor.name) {
            let (tensor, problem) = (tensor.name.clone(), "is there twice".to_owned());
            return Err(Invalid::Tensor { tensor, problem });
        }
    }
    let mut by_place: Vec<&TensorEntry> =
        tensors.iter().filter(|tensor| !tensor.bytes.is_empty()).collect();
    by_place.sort_by_key(|tensor| tensor.bytes.start);
    for pair in by_place.windows(2) {
        if pair[0].bytes.end > pair[1].bytes.start {
            let problem = format!("overlaps tensor {}", quoted(&pair[0].name));
            return Err(Invalid::Tensor { tensor: pair[1].name.clone(), problem });
        }
    }
    Ok(())
}

/// Names of types that are not decoded, for messages: with Q4_2 and others that ggml has given up.
const OTHER_TYPES: [(u32, &str); 27] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// The type with ggml's number (`enum ggml_type`).
fn dtype(number: u32) -> std::result::Result<Dtype, String> {
    Dtype::from_ggml(number).ok_or_else(|| {
        match OTHER_TYPES.iter().find(|(other, _)| *other == number) {
            Some((_, name)) => format!("{name} (ggml type {number})"),
            None => format!("ggml type {number}"),
        }
    })
}

struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length);
        let bytes = end.and_then(|end| self.file.get(self.at..end));
        let bytes = bytes.ok_or(Invalid::Truncated { at: self.at, what })?;
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        Ok(self.take(N, what)?.try_into().expect("as many bytes as were asked for"))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of things that take at least `size` bytes each, and so cannot be many.
    fn plausible(&self, count: u64, size: usize, what: &'static str) -> Result<usize> {
        let room = (self.file.len() - self.at) / size;
        match usize::try_from(count) {
            Ok(count) if count <= room => Ok(count),
            _ => Err(Invalid::Count { what, count }),
        }
    }

    fn text(&mut self, limit: u64, what: &'static str) -> Result<&'a str> {
        let at = self.at;
        let length = self.u64(what)?;
        let length = usize::try_from(length.min(limit.saturating_add(1))).unwrap_or(usize::MAX);
        let bytes = self.take(length, what)?;
        let text = std::str::from_utf8(bytes).ok().filter(|_| length as u64 <= limit);
        text.ok_or(Invalid::Truncated { at, what })
    }

    fn entries(&mut self, count: u64) -> Result<BTreeMap<&'a str, Value<'a>>> {
        let count = self.plausible(count, MIN_ENTRY_BYTES, "metadata entries")?;
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let key = self.text(MAX_KEY_BYTES, "the key of a metadata entry")?;
            let error =
                |problem: &str| Invalid::Entry { key: key.to_owned(), problem: problem.to_owned() };
            let number = self.u32("the type of a metadata entry")?;
            let kind = ValueType::from_number(number)
                .ok_or_else(|| error(&format!("has type {number}, which is not known")))?;
            let value = match kind {
                ValueType::Array => self.value_array(key)?,
                kind => self.value(kind, "a metadata value")?,
            };
            if entries.insert(key, value).is_some() {
                return Err(error("is there twice"));
            }
        }
        Ok(entries)
    }

    fn value(&mut self, kind: ValueType, what: &'static str) -> Result<Value<'a>> {
        Ok(match kind {
            ValueType::U8 => Value::Int(u8::from_le_bytes(self.array(what)?).into()),
            ValueType::I8 => Value::Int(i8::from_le_bytes(self.array(what)?).into()),
            ValueType::U16 => Value::Int(u16::from_le_bytes(self.array(what)?).into()),
            ValueType::I16 => Value::Int(i16::from_le_bytes(self.array(what)?).into()),
            ValueType::U32 => Value::Int(self.u32(what)?.into()),
            ValueType::I32 => Value::Int(i32::from_le_bytes(self.array(what)?).into()),
            ValueType::U64 => Value::Int(self.u64(what)?.try_into().unwrap_or(i64::MAX)),
            ValueType::I64 => Value::Int(i64::from_le_bytes(self.array(what)?)),
            ValueType::F32 => Value::Float(f32::from_le_bytes(self.array(what)?).into()),
            ValueType::F64 => Value::Float(f64::from_le_bytes(self.array(what)?)),
            ValueType::Bool => Value::Bool(self.array::<1>(what)? != [0]),
            ValueType::String => Value::Text(self.text(u64::MAX, what)?),
            ValueType::Array => unreachable!("arrays hold no arrays, which `value_array` checks"),
        })
    }

    /// Goes over an array once, so that it can be read later without errors.
    fn value_array(&mut self, key: &str) -> Result<Value<'a>> {
        let error = |problem: String| Invalid::Entry { key: key.to_owned(), problem };
        let number = self.u32("the type of an array")?;
        let kind = match ValueType::from_number(number) {
            Some(ValueType::Array) => return Err(error("holds arrays in an array".to_owned())),
            Some(kind) => kind,
            None => return Err(error(format!("has elements of unknown type {number}"))),
        };
        let count = self.u64("the length of an array")?;
        let count = self.plausible(count, kind.size().unwrap_or(8), "elements of an array")?;
        let first = self.at;
        for _ in 0..count {
            self.value(kind, "an element of an array")?;
        }
        let bytes = &self.file[first..self.at];
        Ok(Value::Array(Array { kind, count, bytes }))
    }

    fn tensors(&mut self, count: u64) -> Result<Vec<RawTensor>> {
        let count = self.plausible(count, MIN_TENSOR_BYTES, "tensors")?;
        (0..count).map(|_| self.tensor()).collect()
    }

    fn tensor(&mut self) -> Result<RawTensor> {
        let name = self.text(MAX_NAME_BYTES, "the name of a tensor")?.to_owned();
        let error = |problem: String| Invalid::Tensor { tensor: name.clone(), problem };
        let dimensions = self.u32("a tensor's number of dimensions")?;
        if dimensions > MAX_DIMENSIONS {
            return Err(error(format!("has {dimensions} dimensions, more than {MAX_DIMENSIONS}")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let extent = self.u64("a tensor's shape")?;
            match usize::try_from(extent) {
                Ok(extent) if extent > 0 => shape.push(extent),
                _ => return Err(error(format!("has a dimension of {extent}"))),
            }
        }
        // The file's first dimension is the one that lies together.
        shape.reverse();
        let kind = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        Ok(RawTensor { name, shape, kind, offset })
    }
}
