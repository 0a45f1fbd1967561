//! Names of temporary files.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::PathBuf;

use super::error::{OutputError, Result};
use crate::checksum::Checksum;

/// How the name of a temporary file ends.
pub const SUFFIX: &str = ".cbl-tmp";

/// Hexadecimal digits before that.
pub const DIGITS: usize = 16;

/// A target's name that is longer than this does not appear in the temporary file's name, which would
/// be too long for some file systems.
pub const LONGEST_NAME: usize = 100;

/// How the names of the temporary files for `name` begin.
pub fn prefix_of(name: &OsStr) -> Result<OsString> {
    let mut digits = [0; 8];
    let name = match name.len() {
        0..=LONGEST_NAME => name,
        _ => {
            let sum = Checksum::of(name.as_encoded_bytes());
            OsStr::new(hexadecimal(sum.into(), &mut digits))
        }
    };
    Ok(join(&[".".as_ref(), name, ".".as_ref()])?.into_os_string())
}

/// The number in hexadecimal, with leading zeros. `digits` has room for all its digits.
pub fn hexadecimal(number: u64, digits: &mut [u8]) -> &str {
    let width = digits.len();
    write!(&mut *digits, "{number:0width$x}").expect("there is room for all digits");
    std::str::from_utf8(digits).expect("digits are ASCII")
}

/// A path or name made of several parts, one after another. A lack of memory is an error.
pub fn join(parts: &[&OsStr]) -> Result<PathBuf> {
    let bytes = parts.iter().map(|part| part.len()).sum();
    let mut path = OsString::new();
    path.try_reserve_exact(bytes).map_err(|_| OutputError::OutOfMemory { bytes })?;
    parts.iter().for_each(|part| path.push(part));
    Ok(path.into())
}
