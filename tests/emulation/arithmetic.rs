//! The operations of binary32 that `docs/numbers.md` allows, computed in binary64 and rounded.
//!
//! For add, subtract, multiply, divide and square root, rounding twice is innocuous: 53 bits are more
//! than twice 24 plus 2 (Figueroa, *When is double rounding innocuous?*, 1995). A fused multiply-add
//! is not among them and rounds its first sum to odd (Boldo and Melquiond, *Emulation of FMA and
//! correctly rounded sums*, 2008).

/// The nearest binary32, ties to even.
fn round(x: f64) -> f32 {
    x as f32
}

pub fn add(a: f32, b: f32) -> f32 {
    round(f64::from(a) + f64::from(b))
}

pub fn sub(a: f32, b: f32) -> f32 {
    round(f64::from(a) - f64::from(b))
}

pub fn mul(a: f32, b: f32) -> f32 {
    round(f64::from(a) * f64::from(b))
}

pub fn div(a: f32, b: f32) -> f32 {
    round(f64::from(a) / f64::from(b))
}

pub fn sqrt(a: f32) -> f32 {
    round(f64::from(a).sqrt())
}

/// `a * b + c` with one rounding.
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b); // exact: 24 + 24 bits
    let c = f64::from(c);
    let sum = product + c;
    // Knuth's TwoSum: `sum + error` is the exact sum.
    let c_part = sum - product;
    let error = (product - (sum - c_part)) + (c - c_part);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return round(sum);
    }
    // Of the two binary64 numbers around the exact sum, the odd one.
    let away_from_zero = (error > 0.0) == (sum > 0.0);
    let bits = sum.to_bits();
    round(f64::from_bits(if away_from_zero { bits + 1 } else { bits - 1 }))
}

/// A product chain `start + a[0] b[0] + a[1] b[1] + ...`, fused, in ascending order.
pub fn fma_chain(terms: impl IntoIterator<Item = (f32, f32)>) -> f32 {
    terms.into_iter().fold(0.0, |acc, (a, b)| fma(a, b, acc))
}

/// The virtual vector's sum (section 1): `step(lane, term)` for each term, then the fixed tree.
pub fn sum16<T>(terms: impl IntoIterator<Item = T>, step: impl Fn(f32, T) -> f32) -> f32 {
    let mut a = [0f32; 16];
    for (i, term) in terms.into_iter().enumerate() {
        a[i % 16] = step(a[i % 16], term);
    }
    for i in 0..8 {
        a[i] = add(a[i], a[i + 8]);
    }
    for i in 0..4 {
        a[i] = add(a[i], a[i + 4]);
    }
    for i in 0..2 {
        a[i] = add(a[i], a[i + 2]);
    }
    add(a[0], a[1])
}

/// The value of a float16.
pub fn float16(bits: u16) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    assert_ne!(exponent, 31, "no finite float16");
    let magnitude = match exponent {
        0 => mantissa * f64::powi(2.0, -24),
        _ => (1024.0 + mantissa) * f64::powi(2.0, exponent - 25),
    };
    round(if bits >> 15 == 1 { -magnitude } else { magnitude })
}

/// `x` as a cache of float16 keeps it: nearest even, magnitudes over 65504 become 65504.
pub fn to_float16(x: f32) -> f32 {
    let magnitude = f64::from(x.abs()).min(65504.0);
    if magnitude == 0.0 {
        return x;
    }
    let exponent = (magnitude.to_bits() >> 52) as i32 - 1023;
    let quantum = f64::powi(2.0, exponent.max(-14) - 10);
    round((magnitude / quantum).round_ties_even() * quantum).copysign(x)
}

/// Against the processor's own operations, and the `half` crate, on operands of all magnitudes.
#[test]
fn every_operation_rounds_once() {
    // Marsaglia's xorshift64.
    let mut state = 88172645463325252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let mut finite = |spread: u32| {
        // An exponent within `spread` of 1, so that sums cancel and ties occur.
        let (bits, exponent) = (next(), 127 - spread + next() % (2 * spread + 1));
        let mantissa = if bits & 1 == 0 { bits >> 9 } else { bits >> 9 & 0x7f_f000 };
        f32::from_bits((bits & 1 << 31) | exponent << 23 | mantissa)
    };
    for i in 0..2_000_000 {
        let spread = [2, 12, 40, 100][i % 4];
        let (a, b, c) = (finite(spread), finite(spread), finite(spread));
        let pairs = [
            (add(a, b), a + b),
            (sub(a, b), a - b),
            (mul(a, b), a * b),
            (div(a, b), a / b),
            (sqrt(a.abs()), a.abs().sqrt()),
            (fma(a, b, c), a.mul_add(b, c)),
            (fma(a, b, -(a * b)), a.mul_add(b, -(a * b))),
            (to_float16(a), half::f16::from_f32(a.clamp(-65504.0, 65504.0)).to_f32()),
        ];
        for (i, (found, expected)) in pairs.into_iter().enumerate() {
            let same = found.to_bits() == expected.to_bits() || !expected.is_finite();
            assert!(same, "operation {i} of {a:e} {b:e} {c:e}: {found:e}, not {expected:e}");
        }
    }
    // A tie of binary32 that the first rounding to binary64 would make.
    let (a, c) = (1.0 + f32::EPSILON, f32::from_bits(0x0d80_0000));
    assert_eq!(fma(a, a, c).to_bits(), a.mul_add(a, c).to_bits());
    for bits in 0..=u16::MAX {
        let expected = half::f16::from_bits(bits);
        if expected.is_finite() {
            assert_eq!(float16(bits).to_bits(), expected.to_f32().to_bits());
        }
    }
}
