//! Decimal numbers, read to the nearest float, ties to even.
//!
//! The standard library's way is fast, by a table of 10 KB and 5 KB of code for each type; here, where numbers are
//! those of options and headers, a whole number of as many bits as it takes is divided by powers of ten. It needs
//! no arithmetic of floats, so the floating-point environment does not matter.

/// More digits than these cannot decide between two float64 (767 can), but for being zero or not.
const MOST_DIGITS: usize = 800;

/// Powers of ten past which every float64 is infinite, or 0.
const TENS: core::ops::RangeInclusive<i32> = -345..=310;

/// The largest power of ten in a limb.
const STEP: usize = 9;

/// A type of floats.
struct Form {
    /// Bits of the significand.
    bits: i32,
    /// The exponent of a subnormal number's lowest bit.
    least: i32,
    /// The bits of infinity.
    infinity: u64,
}

/// The float32 nearest to a number; infinity past the largest. `None` if it is none, and for the words that stand for
/// no number.
pub fn f32(text: &str) -> Option<f32> {
    let infinity = u64::from(f32::INFINITY.to_bits());
    let bits = nearest(text, &Form { bits: 24, least: -149, infinity })?;
    Some(f32::from_bits(bits as u32 | u32::from(text.starts_with('-')) << 31))
}

/// As [`f32`].
pub fn f64(text: &str) -> Option<f64> {
    let infinity = f64::INFINITY.to_bits();
    let bits = nearest(text, &Form { bits: 53, least: -1074, infinity })?;
    Some(f64::from_bits(bits | u64::from(text.starts_with('-')) << 63))
}

/// The bits of the nearest float without its sign.
#[inline(never)]
fn nearest(text: &str, form: &Form) -> Option<u64> {
    let (_, text) = sign(text.as_bytes());
    let (digits, tens) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(e) => (&text[..e], &text[e + 1..]),
        None => (text, &b"0"[..]),
    };
    let (mut whole, mut exponent) = (Whole { limbs: [0; LIMBS] }, 0_i32);
    let (mut count, mut any, mut behind_point, mut rest) = (0, false, false, false);
    for &digit in digits {
        match digit {
            b'0'..=b'9' => {
                let digit = u32::from(digit - b'0');
                any = true;
                if count < MOST_DIGITS {
                    whole.multiply(10, digit);
                    count += usize::from(count > 0 || digit > 0);
                    exponent = exponent.saturating_sub(i32::from(behind_point));
                } else {
                    rest |= digit > 0;
                    exponent = exponent.saturating_add(i32::from(!behind_point));
                }
            }
            b'.' if !behind_point => behind_point = true,
            _ => return None,
        }
    }
    exponent = exponent.saturating_add(power(tens)?);
    if !any {
        return None;
    }
    let size = exponent.saturating_add(count as i32);
    if count == 0 || size < *TENS.start() {
        return Some(0);
    }
    if size > *TENS.end() {
        return Some(form.infinity);
    }
    // The number is `whole * 2^scale`, and a little more if there is a rest.
    let mut scale = 0;
    for tens in steps(exponent) {
        whole.multiply(tens, 0);
    }
    if exponent < 0 {
        // Enough bits of the quotient: a power of ten has 10/3 of its exponent, and one more, at most.
        let zeros = 64 + exponent.unsigned_abs() as usize * 10 / 3;
        let zeros = zeros.saturating_sub(whole.length()).div_ceil(32);
        whole.limbs.copy_within(..LIMBS - zeros, zeros);
        whole.limbs[..zeros].fill(0);
        scale = -32 * zeros as i32;
    }
    for tens in steps(exponent.saturating_neg()) {
        rest |= whole.divide(tens);
    }
    // What the float's lowest bit is worth, and the bits of the number below it.
    let length = whole.length() as i32;
    let lowest = (length + scale - form.bits).max(form.least);
    let below = lowest - scale;
    let significand = (below..length.max(below)).rev().fold(0, |all, at| all << 1 | whole.bit(at));
    let is_odd = significand & 1 == 1;
    rest |= (0..below - 1).any(|at| whole.bit(at) == 1);
    let up = whole.bit(below - 1) == 1 && (rest || is_odd);
    // The significand's highest bit, which is not stored, counts up the exponent, as a carry does.
    let bits = ((lowest - form.least) as u64) << (form.bits - 1);
    Some((bits + significand + u64::from(up)).min(form.infinity))
}

/// The number behind the `e`, or one that is as much too large.
fn power(text: &[u8]) -> Option<i32> {
    let (is_negative, digits) = sign(text);
    let add = |power: i32, &digit: &u8| match digit {
        b'0'..=b'9' => Some(power.saturating_mul(10).saturating_add(i32::from(digit - b'0'))),
        _ => None,
    };
    let power = digits.iter().try_fold(0, add).filter(|_| !digits.is_empty())?;
    Some(if is_negative { -power } else { power })
}

/// Whether it is a minus, and what is behind it. Byte by byte: searching a text is half a kilobyte of code.
fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [sign @ (b'-' | b'+'), rest @ ..] => (*sign == b'-', rest),
        _ => (false, text),
    }
}

/// Powers of ten whose product is that of this exponent; none if it is negative.
fn steps(exponent: i32) -> impl Iterator<Item = u32> {
    let exponent = exponent.max(0) as usize;
    (0..exponent).step_by(STEP).map(move |at| 10_u32.pow((exponent - at).min(STEP) as u32))
}

/// Bits for 10^1145, which the last of 800 digits may be divided by, and 64 more.
const LIMBS: usize = 124;

/// A whole number, lowest limb first.
struct Whole {
    limbs: [u32; LIMBS],
}

impl Whole {
    /// Bits from the lowest to the highest that is set.
    fn length(&self) -> usize {
        let used = self.limbs.iter().rposition(|&limb| limb != 0);
        used.map_or(0, |used| 32 * (used + 1) - self.limbs[used].leading_zeros() as usize)
    }

    /// The bit at a place; 0 where there is none.
    fn bit(&self, at: i32) -> u64 {
        let limb = usize::try_from(at >> 5).ok().and_then(|limb| self.limbs.get(limb));
        u64::from(limb.copied().unwrap_or(0) >> (at & 31) & 1)
    }

    /// Multiplies, and adds. No number here becomes too long.
    fn multiply(&mut self, factor: u32, add: u32) {
        let mut carry = u64::from(add);
        for limb in &mut self.limbs {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
    }

    /// Divides; returns whether there is a rest.
    fn divide(&mut self, divisor: u32) -> bool {
        let mut rest = 0;
        for limb in self.limbs.iter_mut().rev() {
            let part = rest << 32 | u64::from(*limb);
            *limb = (part / u64::from(divisor)) as u32;
            rest = part % u64::from(divisor);
        }
        rest != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compare(text: &str) {
        let is_word = text.bytes().any(|byte| byte.is_ascii_alphabetic() && !b"eE".contains(&byte));
        let wanted = text.parse::<f32>().ok().filter(|_| !is_word).map(f32::to_bits);
        assert_eq!(f32(text).map(f32::to_bits), wanted, "{text}");
        let wanted = text.parse::<f64>().ok().filter(|_| !is_word).map(f64::to_bits);
        assert_eq!(f64(text).map(f64::to_bits), wanted, "{text}");
    }

    /// All digits of a float64 that is not infinite, and then of what lies halfway to the next.
    fn at_and_above(bits: u64) -> [String; 2] {
        let (here, next) = (f64::from_bits(bits), f64::from_bits(bits + 1));
        let exact = format!("{here:.1074}");
        // Digit by digit, because no type holds the mean.
        let sum = |carry: u32, (a, b): (u8, u8)| carry + u32::from(a - b'0') + u32::from(b - b'0');
        let next = format!("{next:.1074}");
        let width = next.len().max(exact.len());
        let (a, b) = (format!("{exact:0>width$}"), format!("{next:0>width$}"));
        let (mut half, mut left) = (String::new(), 0);
        for pair in a.bytes().zip(b.bytes()) {
            if pair.0 == b'.' {
                half.push('.');
                continue;
            }
            let both = sum(0, pair) + 10 * left;
            half.push_str(&(both / 2).to_string());
            left = both % 2;
        }
        [exact, half + "5"]
    }

    #[test]
    fn what_is_easily_read_wrongly() {
        for text in [
            "",
            "-",
            "+",
            ".",
            "e1",
            ".e1",
            "1e",
            "1e+",
            "1e1.5",
            "1.2.3",
            "--1",
            "1_0",
            " 1",
            "1 ",
            "é",
            "0",
            "-0",
            "+0",
            "00",
            "0.0",
            ".5",
            "5.",
            "-.5e-1",
            "1E5",
            "1e+5",
            "0e999999999999",
            "1e999999999999",
            "1e-999999999999",
            "0.1",
            "0.3",
            "1e22",
            "1e23",
            "8.5e-21",
            "9007199254740993",
            "9007199254740992.5",
            "16777217",
            "16777219",
            "340282356779733661637539395458142568447",
            "1e38",
            "1e39",
            "340282356779733661637539395458142568448",
            "7.038531e-26",
            "1e-45",
            "7e-46",
            "7.1e-46",
            "1e-46",
            "1.7976931348623157e308",
            "1.7976931348623158e308",
            "1.7976931348623159e308",
            "1e309",
            "4.9e-324",
            "2.4703282292062327e-324",
            "2.4703282292062328e-324",
            "2.2250738585072011e-308",
            "1e-400",
            "inf",
            "NaN",
        ] {
            compare(text);
        }
        for zeros in [1, 50, 799, 800, 801, 2000] {
            let zeros = "0".repeat(zeros);
            compare(&format!("0.{zeros}1e{}", zeros.len()));
            compare(&format!("1{zeros}e-{}", zeros.len()));
            compare(&format!("9007199254740993.{zeros}1"));
            compare(&format!("9007199254740993{zeros}.0{zeros}1e-{}", zeros.len()));
        }
    }

    proptest! {
        #[test]
        fn floats_are_read_as_the_standard_library_reads_them(bits: u64, small: u32, digits in 1..20_usize) {
            let double = f64::from_bits(bits);
            let single = f32::from_bits(small);
            compare(&format!("{double:.digits$e}"));
            compare(&format!("{single:.digits$e}"));
            compare(&format!("{double:e}"));
            compare(&format!("{}", f64::from(single)));
            compare(&format!("{}e{}", bits, (small % 800) as i32 - 400));
        }

        #[test]
        fn halves_are_read_to_even(bits in 0..f64::MAX.to_bits(), few in 0..40_u64) {
            for bits in [bits, few, f64::from(f32::from_bits((bits >> 33) as u32)).to_bits()] {
                prop_assume!(f64::from_bits(bits + 1).is_finite());
                for text in at_and_above(bits) {
                    compare(&text);
                    compare(&(text.clone() + "1"));
                    compare(text.strip_suffix('5').unwrap_or(&text));
                }
            }
        }

        #[test]
        fn texts_are_read_as_the_standard_library_reads_them(text in "[0-9.e+-]{0,12}", long in "[0-9]{0,900}[.]?[0-9]{0,900}(e-?[0-9]{1,3})?") {
            compare(&text);
            compare(&long);
        }
    }
}
