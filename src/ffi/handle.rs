//! Handles: boxes whose address a C program holds.

use std::alloc::{Layout, alloc};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::boundary::Failure;
use super::status::cbl_status::CBL_BAD_HANDLE;
use crate::error::Error;

/// Says what kind of handle an address leads to, so that a mix-up is found out. A freed handle has
/// none; whether its memory still tells so is luck.
pub(super) struct Tag(#[expect(dead_code, reason = "is read by its address")] AtomicU64);

impl Tag {
    const FREED: u64 = 0;

    pub fn of<T: Handle>() -> Self {
        Self(AtomicU64::new(T::TAG))
    }
}

/// A type that a C program holds handles of.
pub(super) trait Handle: Sized {
    /// Differs from any other type's.
    const TAG: u64;
    /// Where the tag lies, in bytes.
    const TAG_OFFSET: usize;
}

/// What a handle leads to.
///
/// # Safety
/// `handle` is null, or points to memory in which a tag may be looked for; if it is there, the handle
/// was made by [`give`] and is not freed for `'a`.
pub(super) unsafe fn get<'a, T: Handle>(handle: *const T) -> Result<&'a T, Failure> {
    if handle.is_null() {
        return Err(Failure::Misuse(CBL_BAD_HANDLE, "a handle is NULL"));
    }
    let wrong = Failure::Misuse(CBL_BAD_HANDLE, "a handle is of another kind, or freed");
    if !handle.is_aligned() {
        return Err(wrong);
    }
    // SAFETY: the caller's contract; the offset keeps the alignment of a field of T.
    let tag = unsafe { handle.byte_add(T::TAG_OFFSET).cast::<u64>().read_volatile() };
    if tag != T::TAG {
        return Err(wrong);
    }
    // SAFETY: the tag says that it is a T, which by the caller's contract lives for 'a.
    Ok(unsafe { &*handle })
}

/// Puts a value where a C program can hold it.
pub(super) fn give<T: Handle>(value: Box<T>) -> *mut T {
    Box::into_raw(value)
}

/// Takes it back.
///
/// # Safety
/// `handle` was made by [`give`] and nobody uses it any more.
pub(super) unsafe fn take<T: Handle>(handle: *mut T) -> Box<T> {
    // SAFETY: the caller's contract; the tag is an atomic.
    unsafe { handle.byte_add(T::TAG_OFFSET).cast::<AtomicU64>().as_ref() }
        .expect("not null")
        .store(Tag::FREED, Relaxed);
    // SAFETY: the caller's contract.
    unsafe { Box::from_raw(handle) }
}

/// `Box::new`, but a lack of memory is an error.
pub(super) fn try_box<T>(value: T) -> Result<Box<T>, Error> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new(value));
    }
    // SAFETY: the size is not zero.
    let place = unsafe { alloc(layout) }.cast::<T>();
    if place.is_null() {
        return Err(Error::OutOfMemory { bytes: layout.size() });
    }
    // SAFETY: `place` is valid for a T, and was allocated as a box allocates.
    unsafe {
        ptr::write(place, value);
        Ok(Box::from_raw(place))
    }
}
