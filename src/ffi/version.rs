//! Version
//!
//! The interface grows, and never breaks within one CBL_ABI_VERSION. A later version may add
//! functions, status codes, options, and fields at the end of structures. It removes, renumbers and
//! moves nothing.

use core::ffi::{CStr, c_char};
use core::ptr;

use super::boundary;
use crate::kernels::Isa;

/// The version of this interface. The name of the shared library contains this number.
pub const CBL_ABI_VERSION: u32 = 0;

/// The version of the library that this header belongs to: its first number.
pub const CBL_VERSION_MAJOR: u32 = 0;
/// Its second number.
pub const CBL_VERSION_MINOR: u32 = 1;
/// Its third number.
pub const CBL_VERSION_PATCH: u32 = 0;

/// The same version as one number, for comparisons: 1002003 is version 1.2.3.
pub const CBL_VERSION_NUMBER: u32 =
    CBL_VERSION_MAJOR * 1000000 + CBL_VERSION_MINOR * 1000 + CBL_VERSION_PATCH;

/// The header needs these numbers as literals, so the compiler compares them with the package's
/// version.
const _: () = {
    assert!(is(CBL_VERSION_MAJOR, env!("CARGO_PKG_VERSION_MAJOR")));
    assert!(is(CBL_VERSION_MINOR, env!("CARGO_PKG_VERSION_MINOR")));
    assert!(is(CBL_VERSION_PATCH, env!("CARGO_PKG_VERSION_PATCH")));
};

const fn is(number: u32, digits: &str) -> bool {
    matches!(u32::from_str_radix(digits, 10), Ok(found) if found == number)
}

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no zero bytes"),
    };

/// Returns the CBL_ABI_VERSION of the library that is loaded. If it differs from the one in this
/// header, do not call any other function.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_abi_version() -> u32 {
    boundary::value(CBL_ABI_VERSION, || Ok(CBL_ABI_VERSION))
}

/// Returns the version of the library that is loaded, such as "0.1.0". The text is static.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_version_string() -> *const c_char {
    boundary::value(VERSION.as_ptr(), || Ok(VERSION.as_ptr()))
}

/// Returns the CBL_VERSION_NUMBER of the library that is loaded. It may be higher than the one in
/// this header.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_version_number() -> u32 {
    boundary::value(CBL_VERSION_NUMBER, || Ok(CBL_VERSION_NUMBER))
}

/// Returns whether this build can tokenize text. If not, these functions return CBL_UNSUPPORTED:
/// cbl_model_tokenize(), cbl_generate(), cbl_generation_begin(), cbl_batch_generate(),
/// cbl_batch_begin(), cbl_score(), cbl_embed(), and all functions for classifiers, templates and
/// conversations.
/// Functions that take token ids work, and so do cbl_model_detokenize() and
/// cbl_model_token_bytes().
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_has_text() -> bool {
    boundary::value(false, || Ok(cfg!(feature = "text")))
}

/// Returns whether this build can give generated texts a form by CBL_OPTION_CHOICES,
/// CBL_OPTION_REGEX and CBL_OPTION_JSON_SCHEMA. If not, setting one of these options returns
/// CBL_UNSUPPORTED.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_has_constraints() -> bool {
    boundary::value(false, || Ok(cfg!(feature = "constraints")))
}

/// Returns the name of an instruction set that this processor supports: number `index`, counted
/// from 0. The last one is the fastest. Returns NULL if there are fewer. The names are values of
/// CBL_OPTION_ISA. The text is static.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_isa_name(index: usize) -> *const c_char {
    boundary::value(ptr::null(), || {
        Ok(Isa::available().nth(index).map_or(ptr::null(), |isa| isa_name(isa).as_ptr()))
    })
}

/// [`Isa::name`] for C.
pub(super) fn isa_name(isa: Isa) -> &'static CStr {
    let known = NAMES.iter().find(|name| name.to_bytes() == isa.name().as_bytes());
    known.copied().unwrap_or(c"unnamed")
}

/// The names of all instruction sets. A test compares them with [`Isa::ALL`].
const NAMES: &[&CStr] = &[
    c"scalar",
    c"scalar-fma",
    c"avx2",
    c"avx-vnni",
    c"avx512-vnni",
    c"neon",
    c"neon-dotprod",
    c"neon-i8mm",
    c"dsp",
    c"simd128",
    c"relaxed-simd",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_its_name_for_c() {
        for &isa in Isa::ALL {
            assert_eq!(isa_name(isa).to_str(), Ok(isa.name()));
        }
    }
}
