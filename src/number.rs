//! Numbers in writing: in templates, on command lines, in settings. One rule for all, and errors that say
//! what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};

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
        Err(_) => format!("{word:?} is not a whole number in {least}..={most}"),
    };
    Err(Error::Option { name, detail })
}

/// The real number of the option `name`; whether it is in range is for others to say.
///
/// # Errors
/// [`Error::Option`] if it is none.
pub fn real(name: &'static str, word: &str) -> Result<f32> {
    word.parse().map_err(|_| Error::Option { name, detail: format!("{word:?} is not a number") })
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
