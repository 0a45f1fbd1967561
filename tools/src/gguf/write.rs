//! Writing what stands before the tensors' data.

use super::layout::{DEFAULT_ALIGNMENT, MAGIC, VERSIONS, ValueType};

/// What the table of tensors says of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorHead<'a> {
    /// Its name.
    pub name: &'a str,
    /// The shape, row-major: the file has it the other way round.
    pub shape: Vec<usize>,
    /// ggml's number of the type.
    pub kind: u32,
    /// Where its data begins, from the beginning of all data: a multiple of [`DEFAULT_ALIGNMENT`].
    pub offset: usize,
}

/// The metadata entries of a file to be.
#[derive(Clone, Debug, Default)]
pub struct Header {
    entries: u64,
    bytes: Vec<u8>,
}

impl Header {
    fn entry(&mut self, key: &str, kind: ValueType) {
        self.entries += 1;
        text(&mut self.bytes, key);
        self.bytes.extend((kind as u32).to_le_bytes());
    }

    /// Adds a string.
    pub fn text(&mut self, key: &str, value: &str) {
        self.entry(key, ValueType::String);
        text(&mut self.bytes, value);
    }

    /// Adds an integer without a sign.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.entry(key, ValueType::U32);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds a binary32 number.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.entry(key, ValueType::F32);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds a truth value.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.entry(key, ValueType::Bool);
        self.bytes.push(value.into());
    }

    fn array(&mut self, key: &str, kind: ValueType, length: usize) {
        self.entry(key, ValueType::Array);
        self.bytes.extend((kind as u32).to_le_bytes());
        self.bytes.extend((length as u64).to_le_bytes());
    }

    /// Adds an array of strings.
    pub fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, ValueType::String, values.len());
        values.iter().for_each(|value| text(&mut self.bytes, value));
    }

    /// Adds an array of integers.
    pub fn i32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = i32>) {
        self.array(key, ValueType::I32, values.len());
        self.bytes.extend(values.flat_map(i32::to_le_bytes));
    }

    /// Adds an array of binary32 numbers.
    pub fn f32s(&mut self, key: &str, values: &[f32]) {
        self.array(key, ValueType::F32, values.len());
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Adds an array of binary64 numbers.
    pub fn f64s(&mut self, key: &str, values: &[f64]) {
        self.array(key, ValueType::F64, values.len());
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// All that stands before the data, padding included.
    pub fn finish(self, tensors: &[TensorHead]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSIONS.end().to_le_bytes());
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend(self.entries.to_le_bytes());
        bytes.extend(self.bytes);
        for tensor in tensors {
            text(&mut bytes, tensor.name);
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            bytes.extend(
                tensor.shape.iter().rev().flat_map(|extent| (*extent as u64).to_le_bytes()),
            );
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend((tensor.offset as u64).to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
        bytes
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.bytes());
}
