//! As [`files`](super::files), where there are none.

use core::ffi::c_char;
use core::ops::Range;

use crate::model::Model;
use crate::open_options::OpenOptions;
use crate::session::Session;

use super::failure::Failure;
use super::status::cbl_status::CBL_UNSUPPORTED;

const NO_FILES: Failure =
    Failure::Misuse(CBL_UNSUPPORTED, "without an operating system there are no files; use memory");

pub(super) unsafe fn open(_: OpenOptions, _: *const c_char) -> Result<Model, Failure> {
    Err(NO_FILES)
}

pub(super) fn open_descriptor(
    _: OpenOptions,
    _: i32,
    _: Option<Range<u64>>,
) -> Result<Model, Failure> {
    Err(NO_FILES)
}

pub(super) unsafe fn save(_: &mut Session, _: *const c_char) -> Result<(), Failure> {
    Err(NO_FILES)
}

pub(super) unsafe fn restore(_: &mut Session, _: *const c_char) -> Result<(), Failure> {
    Err(NO_FILES)
}
