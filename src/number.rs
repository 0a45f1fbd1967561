//! Numbers in writing: in templates, on command lines, in settings. One rule for all, and errors that say
//! what is allowed.

use alloc::string::{String, ToString};
use core::fmt::{self, Display};
use core::ops::RangeInclusive;

use crate::decimal;
use crate::error::{Error, Result};
use crate::terminal::quoted;

/// The whole number of the option `name`.
///
/// # Errors
/// [`Error::Option`], which says the range, if it is none or out of range.
pub fn whole<T>(name: &'static str, word: &str, range: RangeInclusive<T>) -> Result<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    // Every whole number of up to 64 bits is among these, and what is past its type has a sign or digits to
    // show.
    let number = word.parse::<i128>();
    let fits = number.clone().ok().and_then(|number| T::try_from(number).ok());
    if let Some(fits) = fits.filter(|number| range.contains(number)) {
        return Ok(fits);
    }
    let (least, most) = (range.start(), range.end());
    let detail = match number {
        Ok(number) => format!("{number} is not in {least}..={most}"),
        Err(_) => format!("{} is not a whole number in {least}..={most}", quoted(word)),
    };
    Err(Error::Option { name, detail })
}

/// The real number of the option `name`; whether it is in range is for others to say.
///
/// # Errors
/// [`Error::Option`] if it is none.
pub fn real(name: &'static str, word: &str) -> Result<f32> {
    let wrong = || Error::Option { name, detail: format!("{} is not a number", quoted(word)) };
    decimal::f32(word).ok_or_else(wrong)
}

/// Writes a number in the fewest digits that are read as this number, with an exponent where there would be
/// many zeros. The standard library's own way would be 13 KB of the program, for a few errors.
pub(crate) struct Shortest(pub f32);

impl Display for Shortest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let value = self.0.abs();
        if self.0.is_sign_negative() && !self.0.is_nan() {
            f.write_str("-")?;
        }
        if value == 0.0 || !value.is_finite() {
            return f.write_str(match value {
                0.0 => "0",
                f32::INFINITY => "inf",
                _ => "NaN",
            });
        }
        let value64 = f64::from(value);
        let (mut scaled, mut exponent) = (value64, 0_i32);
        while scaled >= 10.0 {
            (scaled, exponent) = (scaled / 10.0, exponent + 1);
        }
        while scaled < 1.0 {
            (scaled, exponent) = (scaled * 10.0, exponent - 1);
        }
        let ten_to = |power: i32| (0..power).fold(1.0, |ten: f64, _| ten * 10.0);
        // Nine digits tell all float32 apart.
        let (mut digits, mut power) = (String::new(), exponent);
        for _ in 0..9 {
            let whole = value64 * ten_to(-power) / ten_to(power);
            digits = ((whole + 0.5) as u64).to_string();
            if decimal::f32(&format!("{digits}e{power}")) == Some(value) {
                break;
            }
            power -= 1;
        }
        // 9.99 rounded to one digit is 10.
        if digits == "10" {
            digits.pop();
            (power, exponent) = (power + 1, exponent + 1);
        }
        if !(-5..9).contains(&exponent) {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            return write!(f, "{first}{point}{rest}e{exponent}");
        }
        // The digits before the point.
        let whole = digits.len() as i32 + power;
        let zeros = |count: i32| "0".repeat(count.max(0) as usize);
        if power >= 0 {
            return write!(f, "{digits}{}", zeros(power));
        }
        match digits.split_at_checked(whole.max(0) as usize) {
            Some((before, after)) if whole > 0 => write!(f, "{before}.{after}"),
            _ => write!(f, "0.{}{digits}", zeros(-whole)),
        }
    }
}

/// Whether an option is at least 1 and at most `most`, `usize::MAX` for no limit.
pub(crate) fn check_range(name: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    let detail = match most {
        usize::MAX => format!("{value} is not at least 1"),
        _ => format!("{value} is not in 1..={most}"),
    };
    Err(Error::Option { name, detail })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compare(value: f32) {
        let is_short = (1e-5..1e9).contains(&value.abs()) || value == 0.0 || !value.is_finite();
        let want = if is_short { format!("{value}") } else { format!("{value:e}") };
        assert_eq!(Shortest(value).to_string(), want);
    }

    #[test]
    fn numbers_that_are_easily_written_wrongly() {
        let edges =
            [0.0, -0.0, 0.01, 0.1, 1.0, 9.5, 9.999_999, 10.0, 100.0, 101.0, 1e8, 999_999_940.0];
        let far = [1e9, 1e-5, 9.999_999e-6, 1e-44, 1e-45, 1.5e10, f32::MAX, f32::MIN_POSITIVE];
        let none = [f32::NAN, f32::INFINITY];
        for value in edges.into_iter().chain(far).chain(none) {
            compare(value);
            compare(-value);
        }
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_the_standard_library_writes_them(
            bits: u32, near in -1000.0..1000.0f32, hundredths in -100_000..100_000_i32,
        ) {
            compare(f32::from_bits(bits));
            compare(near);
            compare(hundredths as f32 / 100.0);
        }
    }
}
