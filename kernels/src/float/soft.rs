//! `a * b + c` with integers, for processors without the instruction.
//!
//! The product of two significands of 24 bits is exact in 48. It and the third number are put near the top of 64
//! bits. What the smaller of the two then loses at its lower end leaves a one in its last bit, which is enough to
//! round the sum as if all of it were there: either nothing is lost, or the sum has at least 59 bits.

/// Not zero: `bits * 2^exponent`.
struct Number {
    is_negative: bool,
    bits: u64,
    exponent: i32,
}

/// `a * b + c`, rounded once.
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    if !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        // The product is not rounded.
        return a * b + c;
    }
    if !c.is_finite() {
        // The product might overflow to the other infinity.
        return c;
    }
    if c == 0.0 {
        // The sum would lose the sign of a product that is rounded to zero.
        return a * b;
    }
    let (a, b, c) = (Number::of(a), Number::of(b), Number::of(c));
    let product = Number {
        is_negative: a.is_negative != b.is_negative,
        bits: (a.bits * b.bits) << 14,
        exponent: a.exponent + b.exponent - 14,
    };
    add(product, Number { bits: c.bits << 37, exponent: c.exponent - 37, ..c })
}

/// The sum of two numbers of 61 or 62 bits each, rounded.
fn add(x: Number, y: Number) -> f32 {
    let (large, small) = if x.exponent >= y.exponent { (x, y) } else { (y, x) };
    let small_bits = shift_right(small.bits, large.exponent.abs_diff(small.exponent));
    if large.is_negative == small.is_negative {
        return Number { bits: large.bits + small_bits, ..large }.round();
    }
    let bits = large.bits.abs_diff(small_bits);
    if bits == 0 {
        return 0.0;
    }
    Number { bits, is_negative: large.is_negative != (large.bits < small_bits), ..large }.round()
}

/// Divides by `2^by`; a rest that is lost makes the last bit a one.
fn shift_right(bits: u64, by: u32) -> u64 {
    if by > 63 {
        return u64::from(bits != 0);
    }
    let shifted = bits >> by;
    shifted | u64::from(shifted << by != bits)
}

impl Number {
    /// A finite number that is not zero, its significand of 24 bits.
    fn of(x: f32) -> Self {
        let magnitude = x.to_bits() & 0x7fff_ffff;
        let (fraction, exponent) = (magnitude & 0x007f_ffff, (magnitude >> 23) as i32);
        let (bits, exponent) = if exponent > 0 {
            (fraction | 0x0080_0000, exponent)
        } else {
            let missing = fraction.leading_zeros() - 8;
            (fraction << missing, 1 - missing as i32)
        };
        Self {
            is_negative: x.is_sign_negative(),
            bits: u64::from(bits),
            exponent: exponent - 127 - 23,
        }
    }

    /// The nearest binary32, ties to even.
    fn round(self) -> f32 {
        let zeros = self.bits.leading_zeros();
        // The highest bit is the hidden one, or below it in a subnormal number.
        let biased = self.exponent + 63 - zeros as i32 + 127;
        if biased > 254 {
            return if self.is_negative { f32::NEG_INFINITY } else { f32::INFINITY };
        }
        let (bits, biased) = if biased < 1 {
            (shift_right(self.bits << zeros, biased.abs_diff(1)), 1)
        } else {
            (self.bits << zeros, biased as u32)
        };
        let (digits, rest) = ((bits >> 40) as u32, bits << 24);
        let half = 1 << 63;
        let up = rest > half || rest == half && digits & 1 == 1;
        // A hidden bit, and a carry out of the significand, go on into the exponent.
        let magnitude = ((biased - 1) << 23) + digits + u32::from(up);
        f32::from_bits(magnitude | u32::from(self.is_negative) << 31)
    }
}

#[cfg(test)]
mod tests {
    use super::fma;

    #[track_caller]
    fn compare(a: f32, b: f32, c: f32) {
        let (got, want) = (fma(a, b, c), a.mul_add(b, c));
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(same, "fma({a:e}, {b:e}, {c:e}) is {got:e}, not {want:e}");
    }

    #[test]
    fn all_that_is_special_meets_all_else() {
        let tiny = f32::from_bits(1);
        let magnitudes = [
            0.0,
            tiny,
            f32::MIN_POSITIVE - tiny,
            f32::MIN_POSITIVE,
            f32::EPSILON,
            1.0 - f32::EPSILON / 2.0,
            1.0,
            1.0 + f32::EPSILON,
            3.0,
            2.0_f32.powi(64),
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
        ];
        let all: Vec<f32> = magnitudes.iter().flat_map(|&x| [x, -x]).collect();
        for &a in &all {
            for &b in &all {
                all.iter().for_each(|&c| compare(a, b, c));
            }
        }
    }

    /// Any operands, near ones, and few bits, so that sums end half-way or cancel.
    #[test]
    fn rounds_once_as_the_standard_library_does() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        };
        let near = |bits: u32, range: u32| {
            bits & 0x807f_ffff | (127 - range / 2 + bits % 97 % range) << 23
        };
        let count = if cfg!(miri) { 2_000 } else { 400_000 };
        for case in 0..count {
            let operands = [random(), random(), random()];
            let [a, b, c] = match case % 5 {
                0 => operands,
                1 => operands.map(|bits| near(bits, 60)),
                2 => operands.map(|bits| near(bits, 60) & 0xffff_f000),
                3 => operands.map(|bits| near(bits, 4) & 0xffff_8000),
                // Sums around the least normal number.
                _ => {
                    let [a, b, c] = operands;
                    let down = |bits: u32, by: u32| (near(bits, 40) & 0xffff_f000) - (by << 23);
                    [down(a, 60), down(b, 60), (c & 0x8000_0000) | (c % 0x0180_0000)]
                }
            };
            let [a, b, c] = [a, b, c].map(f32::from_bits);
            compare(a, b, c);
            compare(a, b, -(a * b));
        }
    }
}
