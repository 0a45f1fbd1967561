//! CRC-32 as in zlib and PNG, which files of models and saved sessions have.
//!
//! With the processor's multiplication without carries on x86 (Gopal et al., Fast CRC Computation for Generic
//! Polynomials Using PCLMULQDQ Instruction, 2009), with its instructions for this checksum on 64-bit Arm, and by
//! tables elsewhere, which the feature `tables` makes larger. The library for this, `crc32fast`, has tables of 16 KB
//! besides.

/// The polynomial, its lowest power in the highest bit.
const POLYNOMIAL: u32 = 0xEDB8_8320;

/// Bits that a table takes at once: a byte's, or half of them, which takes twice as long and 64 bytes of table.
const BITS: usize = if cfg!(feature = "tables") { 8 } else { 4 };

/// Bytes that the tables take at once. Where the processor does the most of it, one table does.
const STEP: usize = if cfg!(feature = "tables")
    && !cfg!(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64"))
{
    4
} else {
    1
};

/// What bits become, if so many bytes follow them in their step.
static TABLES: [[u32; 1 << BITS]; STEP] = tables();

const fn tables() -> [[u32; 1 << BITS]; STEP] {
    let mut tables = [[0; 1 << BITS]; STEP];
    let mut bits = 0;
    while bits < 1 << BITS {
        let (mut sum, mut behind) = (bits as u32, 0);
        while behind < STEP {
            let mut bit = 0;
            while bit < BITS {
                sum = sum >> 1 ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 };
                bit += 1;
            }
            tables[behind][bits] = sum;
            behind += 1;
        }
        bits += 1;
    }
    tables
}

/// The checksum of bytes that come in pieces.
#[derive(Clone)]
pub struct Checksum {
    /// The remainder so far.
    sum: u32,
}

impl Checksum {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self { sum: !0 }
    }

    /// Adds bytes behind those before.
    pub fn update(&mut self, bytes: &[u8]) {
        let (sum, rest) = accelerated(self.sum, bytes);
        self.sum = by_tables(sum, rest);
    }

    /// The checksum of all bytes until now.
    pub fn finish(&self) -> u32 {
        !self.sum
    }

    /// The checksum of these bytes.
    pub fn of(bytes: &[u8]) -> u32 {
        let mut checksum = Self::new();
        checksum.update(bytes);
        checksum.finish()
    }
}

fn by_tables(mut sum: u32, bytes: &[u8]) -> u32 {
    let (steps, rest) = if STEP > 1 { bytes.as_chunks::<STEP>() } else { (&[][..], bytes) };
    for step in steps {
        let mut next = 0;
        for (i, &byte) in step.iter().enumerate() {
            let byte = if i < 4 { byte ^ (sum >> (8 * i)) as u8 } else { byte };
            next ^= TABLES[STEP - 1 - i][usize::from(byte)];
        }
        // What of the remainder no byte has met.
        sum = next ^ sum.checked_shr(8 * STEP as u32).unwrap_or(0);
    }
    for &byte in rest {
        sum ^= u32::from(byte);
        for _ in 0..8 / BITS {
            sum = sum >> BITS ^ TABLES[0][sum as usize % (1 << BITS)];
        }
    }
    sum
}

/// The remainder after as many bytes as the processor has instructions for, and the rest of them.
#[cfg(all(feature = "std", any(target_arch = "x86", target_arch = "x86_64")))]
fn accelerated(sum: u32, bytes: &[u8]) -> (u32, &[u8]) {
    let (blocks, rest) = bytes.as_chunks();
    if blocks.len() < 4
        || !is_x86_feature_detected!("pclmulqdq")
        || !is_x86_feature_detected!("sse4.1")
    {
        return (sum, bytes);
    }
    // SAFETY: the processor has the instructions.
    (unsafe { folding::fold(sum, blocks) }, rest)
}

#[cfg(all(feature = "std", any(target_arch = "x86", target_arch = "x86_64")))]
mod folding {
    #[cfg(target_arch = "x86")]
    use core::arch::x86::*;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::*;

    // Powers of x modulo the polynomial, bits reversed, as the paper names them: what 512 and 128 bits are
    // folded by, and what the last 64 are.
    const K1: i64 = 0x1_5444_2bd4;
    const K2: i64 = 0x1_c6e4_1596;
    const K3: i64 = 0x1_7519_97d0;
    const K4: i64 = 0x0_ccaa_009e;
    const K5: i64 = 0x1_63cd_6124;
    /// The polynomial with all its bits, and the quotient of x^64 by it.
    const P: i64 = 0x1_db71_0641;
    const MU: i64 = 0x1_f701_1641;

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(block: &[u8; 16]) -> __m128i {
        let (low, high) = block.split_at(8);
        let half = |half: &[u8]| half.try_into().map_or(0, i64::from_le_bytes);
        _mm_set_epi64x(half(high), half(low))
    }

    /// The remainder of `a` times a power of x, plus `b`, in 128 bits.
    #[inline]
    #[target_feature(enable = "pclmulqdq,sse2")]
    fn folded(a: __m128i, b: __m128i, power: __m128i) -> __m128i {
        let low = _mm_clmulepi64_si128::<0x00>(a, power);
        let high = _mm_clmulepi64_si128::<0x11>(a, power);
        _mm_xor_si128(_mm_xor_si128(low, high), b)
    }

    /// The remainder after blocks, four at least.
    #[target_feature(enable = "pclmulqdq,sse4.1")]
    pub fn fold(sum: u32, blocks: &[[u8; 16]]) -> u32 {
        let (fours, rest) = blocks.as_chunks::<4>();
        let (first, fours) = fours.split_first().expect("four blocks");
        let mut four = [_mm_setzero_si128(); 4];
        for (x, block) in four.iter_mut().zip(first) {
            *x = load(block);
        }
        four[0] = _mm_xor_si128(four[0], _mm_cvtsi32_si128(sum as i32));
        let by_512 = _mm_set_epi64x(K2, K1);
        for blocks in fours {
            for (x, block) in four.iter_mut().zip(blocks) {
                *x = folded(*x, load(block), by_512);
            }
        }
        let by_128 = _mm_set_epi64x(K4, K3);
        let [mut x, second, third, fourth] = four;
        for next in [second, third, fourth] {
            x = folded(x, next, by_128);
        }
        for block in rest {
            x = folded(x, load(block), by_128);
        }
        // To 96 bits, to 64, and by a division without a division (Barrett's) to 32.
        let low = _mm_set_epi32(0, 0, 0, !0);
        let x = _mm_xor_si128(_mm_clmulepi64_si128::<0x10>(x, by_128), _mm_srli_si128::<8>(x));
        let part = _mm_clmulepi64_si128::<0x00>(_mm_and_si128(x, low), _mm_set_epi64x(0, K5));
        let x = _mm_xor_si128(part, _mm_srli_si128::<4>(x));
        let division = _mm_set_epi64x(MU, P);
        let quotient = _mm_clmulepi64_si128::<0x10>(_mm_and_si128(x, low), division);
        let product = _mm_clmulepi64_si128::<0x00>(_mm_and_si128(quotient, low), division);
        _mm_extract_epi32::<1>(_mm_xor_si128(x, product)) as u32
    }
}

/// As above.
#[cfg(all(feature = "std", target_arch = "aarch64"))]
fn accelerated(mut sum: u32, bytes: &[u8]) -> (u32, &[u8]) {
    #[target_feature(enable = "crc")]
    fn update(sum: &mut u32, words: &[[u8; 8]]) {
        for word in words {
            *sum = core::arch::aarch64::__crc32d(*sum, u64::from_le_bytes(*word));
        }
    }

    if !std::arch::is_aarch64_feature_detected!("crc") {
        return (sum, bytes);
    }
    let (words, rest) = bytes.as_chunks();
    // SAFETY: the processor has the instruction.
    unsafe { update(&mut sum, words) };
    (sum, rest)
}

/// As above: none, or nobody to ask for it.
#[cfg(not(all(
    feature = "std",
    any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")
)))]
fn accelerated(sum: u32, bytes: &[u8]) -> (u32, &[u8]) {
    (sum, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_any_length_and_in_any_pieces_are_those_of_crc32fast() {
        assert_eq!(Checksum::of(b"123456789"), 0xCBF4_3926);
        let mut state = 1_u32;
        let bytes: Vec<u8> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        for length in (0..400).chain([1000, 4095, 4096, 5000]) {
            let bytes = &bytes[..length];
            let want = crc32fast::hash(bytes);
            assert_eq!(Checksum::of(bytes), want, "{length} bytes");
            assert_eq!(!by_tables(!0, bytes), want, "{length} bytes by tables");
            for piece in [1, 3, 17, 64, 100] {
                let mut checksum = Checksum::new();
                bytes.chunks(piece).for_each(|piece| checksum.update(piece));
                assert_eq!(checksum.finish(), want, "{length} bytes in pieces of {piece}");
            }
        }
    }
}
