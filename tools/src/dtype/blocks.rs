//! ggml's block types: groups of weights that share scales, decoded to float32.
//!
//! Each function decodes one block, in the order of operations of ggml's `dequantize_row_*`
//! (`ggml-quants.c`), of which no product and sum is fused. `d` is a block's scale, `q` a weight's
//! integer.

use half::f16;

/// Weights in a block of the older types.
pub const BLOCK: usize = 32;
/// Weights in a block of the K types.
pub const SUPER_BLOCK: usize = 256;

/// Applies `block` to each `BYTES` of input and `ELEMENTS` of output.
pub fn decode<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    values: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let (blocks, rest) = bytes.as_chunks();
    let (chunks, rest_of_values) = values.as_chunks_mut();
    assert!(rest.is_empty() && rest_of_values.is_empty() && blocks.len() == chunks.len());
    blocks.iter().zip(chunks).for_each(|(bytes, values)| block(bytes, values));
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `d`, then 32 integers of 8 bits.
pub fn q8_0(block: &[u8; 34], values: &mut [f32; BLOCK]) {
    let d = half(block, 0);
    for (value, q) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(*q as i8) * d;
    }
}

/// `d`, then 32 integers of 4 bits, offset by 8: the lower halves of 16 bytes, then the upper.
pub fn q4_0(block: &[u8; 18], values: &mut [f32; BLOCK]) {
    let d = half(block, 0);
    nibbles(&block[2..], values, |_, q| f32::from(i16::from(q) - 8) * d);
}

/// As [`q4_0`], but with the block's minimum `m` instead of a fixed offset.
pub fn q4_1(block: &[u8; 20], values: &mut [f32; BLOCK]) {
    let (d, m) = (half(block, 0), half(block, 2));
    nibbles(&block[4..], values, |_, q| f32::from(q) * d + m);
}

/// `d`, the fifth bits of all 32 integers, their lower four as in [`q4_0`]; offset by 16.
pub fn q5_0(block: &[u8; 22], values: &mut [f32; BLOCK]) {
    let d = half(block, 0);
    let fifth = fifth_bits(&block[2..6]);
    nibbles(&block[6..], values, |i, q| f32::from(i16::from(q | fifth(i)) - 16) * d);
}

/// As [`q5_0`], but with the block's minimum `m` instead of a fixed offset.
pub fn q5_1(block: &[u8; 24], values: &mut [f32; BLOCK]) {
    let (d, m) = (half(block, 0), half(block, 2));
    let fifth = fifth_bits(&block[4..8]);
    nibbles(&block[8..], values, |i, q| f32::from(q | fifth(i)) * d + m);
}

/// Calls `weight` with the number and the four bits of each of 32 weights.
fn nibbles(bytes: &[u8], values: &mut [f32; BLOCK], weight: impl Fn(usize, u8) -> f32) {
    for (i, byte) in bytes[..BLOCK / 2].iter().enumerate() {
        values[i] = weight(i, byte & 0xf);
        values[i + BLOCK / 2] = weight(i + BLOCK / 2, byte >> 4);
    }
}

/// The fifth bit of weight `i`, in its place.
fn fifth_bits(bytes: &[u8]) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    move |i| ((bits >> i & 1) as u8) << 4
}

/// The values that four bits choose from in the IQ4 types: denser around zero, as weights are.
const IQ4_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// `d`, then 32 integers of 4 bits as in [`q4_0`], each the number of one of [`IQ4_VALUES`].
pub fn iq4_nl(block: &[u8; 18], values: &mut [f32; BLOCK]) {
    let d = half(block, 0);
    nibbles(&block[2..], values, |_, q| d * f32::from(IQ4_VALUES[usize::from(q)]));
}

/// `d`, the upper two bits of eight scales, their lower four, then eight parts of 32 weights as in
/// [`iq4_nl`]; scales are offset by 32.
pub fn iq4_xs(block: &[u8; 136], values: &mut [f32; SUPER_BLOCK]) {
    let d = half(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (part, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let low = i16::from(block[4 + part / 2] >> (part % 2 * 4) & 0xf);
        let scale = d * f32::from((low | ((high >> (2 * part) & 3) << 4) as i16) - 32);
        let bytes = &block[8 + part * 16..];
        nibbles(bytes, values, |_, q| scale * f32::from(IQ4_VALUES[usize::from(q)]));
    }
}

/// 16 scales in the lower halves of bytes and minima in the upper, the weights, `d` and `dmin`. Either
/// half of the block, 128 weights, has 32 bytes, each with the bits of weights `i`, `i + 32`, `i + 64`
/// and `i + 96`.
pub fn q2_k(block: &[u8; 84], values: &mut [f32; SUPER_BLOCK]) {
    let (d, d_min) = (half(block, 80), half(block, 82));
    for (part, values) in values.chunks_mut(16).enumerate() {
        let scale = d * f32::from(block[part] & 0xf);
        let minimum = d_min * f32::from(block[part] >> 4);
        for (i, value) in values.iter_mut().enumerate() {
            let q = two_bits(&block[16..80], part * 16 + i);
            *value = scale * f32::from(q) - minimum;
        }
    }
}

/// The third bits, bit `p` of byte `i` being that of weight `32 p + i`; the lower two as in [`q2_k`];
/// 16 scales of 6 bits, offset by 32; `d`. Weights are offset by 4.
pub fn q3_k(block: &[u8; 110], values: &mut [f32; SUPER_BLOCK]) {
    let d = half(block, 108);
    let scales = &block[96..108];
    for (part, values) in values.chunks_mut(16).enumerate() {
        // Lower four bits two to a byte, `part` and `part + 8`, then the upper two, four to a byte.
        let low = scales[part % 8] >> (part / 8 * 4) & 0xf;
        let high = scales[8 + part % 4] >> (part / 4 * 2) & 3;
        let scale = d * f32::from(i16::from(low | high << 4) - 32);
        for (i, value) in values.iter_mut().enumerate() {
            let i = part * 16 + i;
            let third = (block[i % 32] >> (i / 32) & 1) << 2;
            *value = scale * f32::from(i16::from(two_bits(&block[32..96], i) | third) - 4);
        }
    }
}

/// The two bits of weight `i` of 256 in 64 bytes, as [`q2_k`] describes.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
}

/// Scale and minimum, of 6 bits each, of the eight parts of a block of 4 or 5 bits.
fn scales_and_minima(packed: &[u8]) -> [(f32, f32); 8] {
    std::array::from_fn(|i| {
        let (scale, minimum) = if i < 4 {
            (packed[i] & 63, packed[i + 4] & 63)
        } else {
            // Four bits in a byte of their own, two above those of the first four parts.
            let low = packed[i + 4];
            ((low & 0xf) | (packed[i - 4] >> 6) << 4, (low >> 4) | (packed[i] >> 6) << 4)
        };
        (f32::from(scale), f32::from(minimum))
    })
}

/// `d` and `dmin`, scales and minima of eight parts of 32 weights, then the weights: of each 32
/// bytes the lower halves are one part, the upper the next.
pub fn q4_k(block: &[u8; 144], values: &mut [f32; SUPER_BLOCK]) {
    k_parts(block, &block[16..], |_, _| 0, values);
}

/// As [`q4_k`], with fifth bits between: bit `p` of byte `i` is that of weight `i` in part `p`.
pub fn q5_k(block: &[u8; 176], values: &mut [f32; SUPER_BLOCK]) {
    let high = &block[16..48];
    k_parts(block, &block[48..], |part, i| (high[i] >> part & 1) << 4, values);
}

fn k_parts(
    block: &[u8],
    low: &[u8],
    high: impl Fn(usize, usize) -> u8,
    values: &mut [f32; SUPER_BLOCK],
) {
    let (d, d_min) = (half(block, 0), half(block, 2));
    for (part, (scale, minimum)) in scales_and_minima(&block[4..16]).into_iter().enumerate() {
        let (scale, minimum) = (d * scale, d_min * minimum);
        let (bytes, shift) = (&low[part / 2 * 32..], part % 2 * 4);
        for (i, value) in values[part * 32..part * 32 + 32].iter_mut().enumerate() {
            let q = (bytes[i] >> shift & 0xf) | high(part, i);
            *value = scale * f32::from(q) - minimum;
        }
    }
}

/// Lower four bits, upper two bits, 16 scales of 8 bits, `d`. Either half of the block, 128 weights,
/// has 64 bytes of lower bits, whose lower halves are its first 64 weights, and 32 bytes of upper
/// bits, each with those of weights `i`, `i + 32`, `i + 64` and `i + 96`; offset by 32.
pub fn q6_k(block: &[u8; 210], values: &mut [f32; SUPER_BLOCK]) {
    let d = half(block, 208);
    for (i, value) in values.iter_mut().enumerate() {
        let (second_half, at) = (i / 128, i % 128);
        let low = block[second_half * 64 + at % 64] >> (at / 64 * 4) & 0xf;
        let high = block[128 + second_half * 32 + at % 32] >> (at / 32 * 2) & 3;
        let scale = f32::from(block[192 + i / 16] as i8);
        *value = d * scale * f32::from(i16::from(low | high << 4) - 32);
    }
}
