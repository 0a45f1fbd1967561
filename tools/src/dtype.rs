//! The types that weights are stored in: a table of one row a type, and the decoders of the plain ones.
//!
//! Those of ggml's block types are in `dtype/blocks.rs`. To add a type, write its decoder, add a variant and
//! a row, and a tensor of it to `tests/data/gguf/blocks.gguf`.

mod blocks;

use half::f16;
use half::slice::HalfFloatSliceExt;

/// A type that weights may be stored in. Types of ggml (`Q…`, `IQ…`) store weights in blocks that share
/// scales; a row is a whole number of blocks. The number of weights in a block that share one scale is
/// said of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// 8 bits and, for 32 weights, a scale.
    Q8_0,
    /// 4 bits and, for 32 weights, a scale.
    Q4_0,
    /// 4 bits and, for 32 weights, a scale and a minimum.
    Q4_1,
    /// 5 bits and, for 32 weights, a scale.
    Q5_0,
    /// 5 bits and, for 32 weights, a scale and a minimum.
    Q5_1,
    /// ggml's Q2_K: 2 bits, blocks of 256 with scales and minima of 4 bits for 16 weights each.
    Q2K,
    /// ggml's Q3_K: 3 bits, blocks of 256 with scales of 6 bits for 16 weights each.
    Q3K,
    /// ggml's Q4_K: 4 bits, blocks of 256 with scales and minima of 6 bits for 32 weights each.
    Q4K,
    /// ggml's Q5_K: as Q4_K, with 5 bits.
    Q5K,
    /// ggml's Q6_K: 6 bits, blocks of 256 with scales of 8 bits for 16 weights each.
    Q6K,
    /// ggml's IQ4_NL: 4 bits, which choose one of 16 values, and, for 32 weights, a scale.
    Iq4Nl,
    /// ggml's IQ4_XS: as IQ4_NL, blocks of 256 with scales of 6 bits for 32 weights each.
    Iq4Xs,
}

/// What there is to know of a type.
struct Row {
    dtype: Dtype,
    /// In safetensors files or ggml.
    name: &'static str,
    /// In GGUF files: ggml's `enum ggml_type`.
    number: u32,
    /// Weights in a block; 1 for the plain types.
    elements: usize,
    /// Bytes of a block.
    bytes: usize,
    /// From whole blocks to as many weights as they hold.
    decode: fn(&[u8], &mut [f32]),
}

const fn row(
    dtype: Dtype,
    name: &'static str,
    number: u32,
    elements: usize,
    bytes: usize,
    decode: fn(&[u8], &mut [f32]),
) -> Row {
    Row { dtype, name, number, elements, bytes, decode }
}

#[rustfmt::skip]
static TABLE: [Row; 15] = [
    //         type, name, ggml's number, weights and bytes in a block, decoder
    row(Dtype::F32,   "F32",     0,   1,   4, decode_f32),
    row(Dtype::F16,   "F16",     1,   1,   2, decode_f16),
    row(Dtype::Bf16,  "BF16",   30,   1,   2, decode_bf16),
    row(Dtype::Q8_0,  "Q8_0",    8,  32,  34, |from, to| blocks::decode(from, to, blocks::q8_0)),
    row(Dtype::Q4_0,  "Q4_0",    2,  32,  18, |from, to| blocks::decode(from, to, blocks::q4_0)),
    row(Dtype::Q4_1,  "Q4_1",    3,  32,  20, |from, to| blocks::decode(from, to, blocks::q4_1)),
    row(Dtype::Q5_0,  "Q5_0",    6,  32,  22, |from, to| blocks::decode(from, to, blocks::q5_0)),
    row(Dtype::Q5_1,  "Q5_1",    7,  32,  24, |from, to| blocks::decode(from, to, blocks::q5_1)),
    row(Dtype::Q2K,   "Q2_K",   10, 256,  84, |from, to| blocks::decode(from, to, blocks::q2_k)),
    row(Dtype::Q3K,   "Q3_K",   11, 256, 110, |from, to| blocks::decode(from, to, blocks::q3_k)),
    row(Dtype::Q4K,   "Q4_K",   12, 256, 144, |from, to| blocks::decode(from, to, blocks::q4_k)),
    row(Dtype::Q5K,   "Q5_K",   13, 256, 176, |from, to| blocks::decode(from, to, blocks::q5_k)),
    row(Dtype::Q6K,   "Q6_K",   14, 256, 210, |from, to| blocks::decode(from, to, blocks::q6_k)),
    row(Dtype::Iq4Nl, "IQ4_NL", 20,  32,  18, |from, to| blocks::decode(from, to, blocks::iq4_nl)),
    row(Dtype::Iq4Xs, "IQ4_XS", 23, 256, 136, |from, to| blocks::decode(from, to, blocks::iq4_xs)),
];

// Each row stands at its type's place.
const _: () = {
    let mut place = 0;
    while place < TABLE.len() {
        assert!(TABLE[place].dtype as usize == place);
        place += 1;
    }
};

impl Dtype {
    /// All types, the plain ones first.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        TABLE.iter().map(|row| row.dtype)
    }

    /// The type of a number in GGUF files (`enum ggml_type`), if it is decoded.
    pub fn from_ggml(number: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.number == number).map(|row| row.dtype)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its number in GGUF files (`enum ggml_type`).
    pub fn ggml(self) -> u32 {
        self.row().number
    }

    /// The name in safetensors files or ggml's, which the digest includes too.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Weights in a block; 1 for the plain types.
    pub fn block_elements(self) -> usize {
        self.row().elements
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.row().bytes
    }

    /// Bytes of this many elements; `None` if they are no whole number of blocks, or if that overflows.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        let blocks = elements / self.block_elements();
        blocks
            .checked_mul(self.block_bytes())
            .filter(|_| elements.is_multiple_of(self.block_elements()))
    }

    /// Decodes `values.len()` elements from little-endian `bytes`, which may have any value and alignment.
    ///
    /// # Panics
    /// If `bytes` has another length than [`Dtype::bytes`] says for `values`.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(Some(bytes.len()), self.bytes(values.len()), "whole blocks");
        (self.row().decode)(bytes, values);
    }
}

fn decode_f32(bytes: &[u8], values: &mut [f32]) {
    for (value, element) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_le_bytes(*element);
    }
}

fn decode_bf16(bytes: &[u8], values: &mut [f32]) {
    for (value, element) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(*element)) << 16);
    }
}

/// `half` converts whole slices with the processor's own instruction, but wants aligned input; a
/// file promises no alignment, so a small aligned buffer stands between.
fn decode_f16(bytes: &[u8], values: &mut [f32]) {
    let mut aligned = [f16::ZERO; 64];
    for (bytes, values) in bytes.chunks(2 * aligned.len()).zip(values.chunks_mut(aligned.len())) {
        let aligned = &mut aligned[..values.len()];
        for (element, bytes) in aligned.iter_mut().zip(bytes.as_chunks().0) {
            *element = f16::from_le_bytes(*bytes);
        }
        aligned.convert_to_f32_slice(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the `half` crate's conversion of single values: every 16-bit pattern.
    #[test]
    fn sixteen_bit_types_decode_exactly() {
        let patterns: Vec<u16> = (0..=u16::MAX).collect();
        // One byte of offset, to leave alignment behind.
        let bytes: Vec<u8> =
            std::iter::once(0).chain(patterns.iter().flat_map(|bits| bits.to_le_bytes())).collect();
        let mut values = vec![0.0; patterns.len()];
        Dtype::F16.decode(&bytes[1..], &mut values);
        for (bits, value) in patterns.iter().zip(&values) {
            let expected = f16::from_bits(*bits).to_f32();
            assert!(value.to_bits() == expected.to_bits() || expected.is_nan(), "{bits:#x}");
        }
        Dtype::Bf16.decode(&bytes[1..], &mut values);
        for (bits, value) in patterns.iter().zip(&values) {
            let expected = half::bf16::from_bits(*bits).to_f32();
            assert!(value.to_bits() == expected.to_bits() || expected.is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn lengths_around_the_buffer_decode() {
        for length in [0, 1, 63, 64, 65, 130] {
            let bytes: Vec<u8> =
                (0..length).flat_map(|i| f16::from_f32(i as f32).to_le_bytes()).collect();
            let mut values = vec![-1.0; length];
            Dtype::F16.decode(&bytes, &mut values);
            assert!(values.iter().enumerate().all(|(i, value)| *value == i as f32), "{length}");
        }
    }

    /// Blocks share nothing: each decodes by itself as among others, and any bytes may stand in it.
    #[test]
    fn any_bytes_decode() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for dtype in Dtype::all() {
            let (size, elements) = (dtype.block_bytes(), dtype.block_elements());
            let fixed = [0, 0x7c, 0x80, 0xff].into_iter().flat_map(|byte| vec![byte; size]);
            let bytes: Vec<u8> = fixed.chain((0..100 * size).map(|_| random())).collect();
            let mut whole = vec![0.0; 104 * elements];
            dtype.decode(&bytes, &mut whole);
            for (bytes, values) in bytes.chunks(size).zip(whole.chunks(elements)) {
                let mut alone = vec![0.0; elements];
                dtype.decode(bytes, &mut alone);
                let same =
                    |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(alone.iter().zip(values).all(same), "{}", dtype.name());
            }
            assert!(whole[..elements].iter().all(|value| *value == 0.0), "{}", dtype.name());
            assert!(!whole[3 * elements].is_finite(), "{}", dtype.name());
        }
    }

    #[test]
    fn sizes_are_of_whole_blocks() {
        for dtype in Dtype::all() {
            let (size, elements) = (dtype.block_bytes(), dtype.block_elements());
            assert_eq!(dtype.bytes(3 * elements), Some(3 * size));
            assert_eq!(dtype.bytes(0), Some(0));
            if elements > 1 {
                assert_eq!(dtype.bytes(3 * elements - 1), None);
            }
            let most = usize::MAX / elements * elements;
            assert_eq!(dtype.bytes(most).is_none(), size > elements, "{}", dtype.name());
            assert_eq!(Dtype::from_ggml(dtype.ggml()), Some(dtype));
        }
        assert_eq!(Dtype::from_ggml(4), None);
    }
}
