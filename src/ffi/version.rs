//! Version
//!
//! The interface grows and never breaks within one CBL_ABI_VERSION: functions, status codes, options
//! and fields at the end of structures may be added; nothing is removed, renumbered or moved.

use std::ffi::{CStr, c_char};
use std::ptr;

use super::boundary;
use crate::kernels::Isa;

/// The version of this interface, which is also the number in the name of the shared library.
pub const CBL_ABI_VERSION: u32 = 0;

/// The version of the library whose header this is, part by part.
pub const CBL_VERSION_MAJOR: u32 = 0;
/// As above.
pub const CBL_VERSION_MINOR: u32 = 1;
/// As above.
pub const CBL_VERSION_PATCH: u32 = 0;

/// The same as one number, for comparing: 1002003 is version 1.2.3.
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

/// The CBL_ABI_VERSION of the library that is loaded. If it differs from the header's, do not go on.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_abi_version() -> u32 {
    boundary::value(CBL_ABI_VERSION, || Ok(CBL_ABI_VERSION))
}

/// The library's version, such as "0.1.0". Static.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_version_string() -> *const c_char {
    boundary::value(VERSION.as_ptr(), || Ok(VERSION.as_ptr()))
}

/// The CBL_VERSION_NUMBER of the library that is loaded, which may be later than the header's.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_version_number() -> u32 {
    boundary::value(CBL_VERSION_NUMBER, || Ok(CBL_VERSION_NUMBER))
}

/// Whether this build can tokenize text. If not, what takes a text for the model returns CBL_UNSUPPORTED:
/// cbl_model_tokenize(), cbl_generate(), cbl_generation_begin(), cbl_batch_generate(), cbl_score(),
/// cbl_embed(), and all that concerns classifiers and templates. What takes token ids works, and so does
/// turning tokens into text.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_has_text() -> bool {
    boundary::value(false, || Ok(cfg!(feature = "text")))
}

/// Whether this build can constrain texts: CBL_OPTION_CHOICES, CBL_OPTION_REGEX and
/// CBL_OPTION_JSON_SCHEMA. If not, setting them gives CBL_UNSUPPORTED.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_has_constraints() -> bool {
    boundary::value(false, || Ok(cfg!(feature = "constraints")))
}

/// The name of the instruction set number `index` that this processor supports, the best one last, or
/// NULL if there are no more. The names are values of CBL_OPTION_ISA. Static.
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
