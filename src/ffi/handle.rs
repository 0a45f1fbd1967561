//! Handles: boxes whose addresses C programs hold.

use alloc::boxed::Box;
use core::ffi::CStr;
use core::ops::{Deref, DerefMut};

use super::failure::Failure;
use super::status::cbl_status::CBL_BAD_HANDLE;
use crate::error::Error;
use crate::memory::try_box;

/// A type of which C programs hold handles.
pub(super) trait Handle: Sized {
    /// Differs from any other type's.
    const TAG: u64;
}

/// What a handle points to. The tag comes first in every kind, so a handle of a wrong kind is found.
/// Freeing a handle clears its tag, so a freed handle is found too, unless its memory is used again.
#[repr(C)]
struct Tagged<T> {
    tag: u64,
    value: T,
}

/// The message for something that is not a handle.
pub(super) const NONE: &CStr = c"a handle is NULL, of another kind, or freed";

/// The value that a handle points to.
///
/// # Safety
/// `handle` is null or misaligned, or points to memory from which a tag can be read. If the tag is that
/// of `T`, [`Place::give`] made the handle, and it is not freed for `'a`.
pub(super) unsafe fn get<'a, T: Handle>(handle: *const T) -> Result<&'a T, Failure> {
    if handle.is_null() {
        return Err(Failure::Misuse(CBL_BAD_HANDLE, "a handle is NULL"));
    }
    let wrong = Failure::Misuse(CBL_BAD_HANDLE, "a handle is of another kind, or freed");
    let tagged = handle.cast::<Tagged<T>>();
    if !tagged.is_aligned() {
        return Err(wrong);
    }
    // SAFETY: the caller's contract. The read is volatile because the compiler may assume that nobody
    // reads a freed handle.
    if unsafe { (&raw const (*tagged).tag).read_volatile() } != T::TAG {
        return Err(wrong);
    }
    // SAFETY: the tag says that it is a T, which by the caller's contract lives for 'a.
    Ok(unsafe { &(*tagged).value })
}

/// A value in the box that becomes its handle.
pub(super) struct Place<T>(Box<Tagged<T>>);

impl<T: Handle> Place<T> {
    pub fn new(value: T) -> Result<Self, Error> {
        Ok(Self(try_box(Tagged { tag: T::TAG, value })?))
    }

    /// Gives it to a C program.
    pub fn give(self) -> *mut T {
        Box::into_raw(self.0).cast()
    }
}

impl<T> Deref for Place<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> DerefMut for Place<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.value
    }
}

/// Frees a handle.
///
/// # Safety
/// `handle` was made by [`Place::give`] and nobody uses it any more.
pub(super) unsafe fn free<T: Handle>(handle: *mut T) {
    let tagged = handle.cast::<Tagged<T>>();
    // SAFETY: the caller's contract.
    unsafe {
        (&raw mut (*tagged).tag).write_volatile(0);
        drop(Box::from_raw(tagged));
    }
}
