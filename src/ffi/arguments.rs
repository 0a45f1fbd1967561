//! Arguments from C, checked as far as an address allows.

use alloc::vec::Vec;
use core::ffi::{CStr, c_char};
use core::ptr;

use super::failure::Failure;
use super::host::Callback;
use super::status::cbl_status::{CBL_BAD_ARGUMENT, CBL_BUFFER_TOO_SMALL, CBL_INVALID_UTF8};
use crate::error::Error;
use crate::memory::{self, try_vec};
use crate::session::Session;
use crate::text::text_bytes;

const fn bad(detail: &'static str) -> Failure {
    Failure::Misuse(CBL_BAD_ARGUMENT, detail)
}

/// The caller's array of `count` values.
///
/// # Safety
/// Unless null or misaligned, `start` is valid for reading `count` values for `'a`, and nobody writes
/// them meanwhile.
pub(super) unsafe fn slice<'a, T>(start: *const T, count: usize) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if start.is_null() || !start.is_aligned() {
        return Err(bad("an array is NULL or misaligned"));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(bad("an array is longer than memory can be"));
    }
    // SAFETY: checked above; the rest is the caller's contract.
    Ok(unsafe { core::slice::from_raw_parts(start, count) })
}

/// The caller's array for `count` results. Unlike [`slice()`], it must not be null, even if `count` is
/// 0.
///
/// # Safety
/// Unless null or misaligned, `start` is valid for reading and writing `count` values for `'a`, and
/// nobody else uses them. `T` is a plain number.
pub(super) unsafe fn slice_mut<'a, T>(start: *mut T, count: usize) -> Result<&'a mut [T], Failure> {
    if start.is_null() || !start.is_aligned() {
        return Err(bad("a place for results is NULL or misaligned"));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(bad("an array is longer than memory can be"));
    }
    // SAFETY: checked above; the rest is the caller's contract.
    Ok(unsafe { core::slice::from_raw_parts_mut(start, count) })
}

/// The caller's array of `count` texts, each ended by a zero byte.
///
/// # Safety
/// As [`slice()`] for the array. Its pointers are null, or point to bytes that end with a zero and are
/// valid for `'a`.
pub(super) unsafe fn texts<'a>(
    start: *const *const c_char,
    count: usize,
) -> Result<Vec<&'a str>, Failure> {
    // SAFETY: the caller's contract.
    let list = unsafe { slice(start, count) }?;
    let mut texts = try_vec(count)?;
    let mut length = 0;
    for &text in list {
        if text.is_null() {
            return Err(bad("a text in a list is NULL"));
        }
        // SAFETY: the caller's contract.
        let text = unsafe { CStr::from_ptr(text) }.to_str();
        let text = text.map_err(|_| INVALID_UTF8)?;
        length += text.len();
        texts.push(text);
    }
    probe_parts(length + size_of_val(texts.as_slice()))?;
    Ok(texts)
}

/// The lengths of `count` lists that lie one after another, and their sum.
///
/// # Safety
/// As [`slice()`].
pub(super) unsafe fn list_lengths<'a>(
    lengths: *const usize,
    count: usize,
) -> Result<(&'a [usize], usize), Failure> {
    // SAFETY: the caller's contract.
    let lengths = unsafe { slice(lengths, count) }?;
    let total = lengths.iter().try_fold(0_usize, |sum, &length| sum.checked_add(length));
    Ok((lengths, total.ok_or(bad("an array is longer than memory can be"))?))
}

const INVALID_UTF8: Failure = Failure::Misuse(CBL_INVALID_UTF8, "a text is not valid UTF-8");

/// The caller's text.
///
/// # Safety
/// As [`slice()`].
pub(super) unsafe fn text<'a>(start: *const c_char, length: usize) -> Result<&'a str, Failure> {
    // SAFETY: the caller's contract.
    let bytes = unsafe { slice(start.cast::<u8>(), length) }?;
    let text = core::str::from_utf8(bytes).map_err(|_| INVALID_UTF8)?;
    probe_parts(length)?;
    Ok(text)
}

/// Fails unless there is memory for the copies that a call makes of texts of `length` bytes. The
/// largest one, a list of strings of one character each, takes 56 bytes per byte.
fn probe_parts(length: usize) -> Result<(), Failure> {
    Ok(memory::probe(text_bytes(length))?)
}

/// The caller's tokens, if the session has room for them. So a wrong count is an error before the first
/// token is read.
///
/// # Safety
/// As [`slice()`].
pub(super) unsafe fn tokens_that_fit<'a>(
    session: &Session,
    tokens: *const u32,
    count: usize,
) -> Result<&'a [u32], Failure> {
    let (position, context) = (session.position(), session.context());
    if count > context - position {
        return Err(Error::ContextFull { position, tokens: count, context }.into());
    }
    // SAFETY: the caller's contract.
    unsafe { slice(tokens, count) }
}

/// A callback that may not be NULL.
pub(super) fn required<T: Copy>(callback: Option<T>) -> Result<Callback<T>, Failure> {
    let missing = Failure::Misuse(CBL_BAD_ARGUMENT, "a callback is NULL");
    callback.map(Callback::new).ok_or(missing)
}

/// The caller's place for one result.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes `default` at once, so that the place is defined even if the call fails.
    ///
    /// # Safety
    /// Unless null or misaligned, `place` is valid for writing as long as this lives.
    pub unsafe fn new(place: *mut T, default: T) -> Result<Self, Failure> {
        if place.is_null() || !place.is_aligned() {
            return Err(bad("a place for a result is NULL or misaligned"));
        }
        let out = Self(place);
        out.set(default);
        Ok(out)
    }

    /// As [`new`](Self::new), for a place that may be null.
    ///
    /// # Safety
    /// As [`new`](Self::new).
    pub unsafe fn optional(place: *mut T, default: T) -> Result<Option<Self>, Failure> {
        if place.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's contract.
        unsafe { Self::new(place, default) }.map(Some)
    }

    pub fn set(&self, value: T) {
        // SAFETY: valid by the contract of `new`, which checked the alignment.
        unsafe { self.0.write(value) }
    }
}

/// Writes the number of `values` to `count`, and copies the values to a buffer with room for `capacity`
/// of them, if they fit.
///
/// # Safety
/// Unless null or misaligned, `buffer` is valid for writing `capacity` values, and `count` for writing
/// one.
pub(super) unsafe fn copy_out<T: Copy>(
    values: &[T],
    buffer: *mut T,
    capacity: usize,
    count: *mut usize,
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    unsafe { Out::new(count, values.len()) }?;
    // SAFETY: the caller's contract.
    let buffer = unsafe { buffer_for(values.len(), buffer, capacity) }?;
    buffer.copy_from_slice(values);
    Ok(())
}

/// The first `needed` values of the caller's buffer; an error if its `capacity` is smaller.
///
/// # Safety
/// Unless null or misaligned, `buffer` is valid for reading and writing `capacity` values for `'a`, and
/// nobody else uses them. `T` is a plain number.
pub(super) unsafe fn buffer_for<'a, T: Copy>(
    needed: usize,
    buffer: *mut T,
    capacity: usize,
) -> Result<&'a mut [T], Failure> {
    if needed > capacity {
        let detail = "the buffer is too small; the size needed was returned";
        return Err(Failure::Misuse(CBL_BUFFER_TOO_SMALL, detail));
    }
    if needed == 0 {
        return Ok(&mut []);
    }
    if buffer.is_null() || !buffer.is_aligned() {
        return Err(bad("a buffer is NULL or misaligned"));
    }
    // SAFETY: the caller's contract.
    Ok(unsafe { core::slice::from_raw_parts_mut(buffer, needed) })
}

/// A structure of plain numbers and pointers. Later versions may add fields at its end.
///
/// # Safety
/// Implementors are `repr(C)`, and all zeros is a valid value.
pub(super) unsafe trait Growing: Copy {
    /// Size in the first version that had it.
    const FIRST_SIZE: usize;
}

/// The caller's place for such a structure, with the size that the caller knows.
pub(super) struct GrowingOut<T> {
    place: *mut T,
    size: usize,
}

impl<T: Growing> GrowingOut<T> {
    /// Writes zeros at once, so that the place is defined even if the call fails. `size` is the size of
    /// the structure in the caller's header.
    ///
    /// # Safety
    /// Unless null or misaligned, `place` is valid for writing `size` bytes as long as this lives.
    pub unsafe fn new(place: *mut T, size: usize) -> Result<Self, Failure> {
        if place.is_null() || !place.is_aligned() {
            return Err(bad("a place for a result is NULL or misaligned"));
        }
        if size < T::FIRST_SIZE || size > 1 << 16 {
            return Err(bad(
                "the size is not that of any version of the structure; pass its sizeof",
            ));
        }
        // SAFETY: the caller's contract.
        unsafe { place.cast::<u8>().write_bytes(0, size) };
        Ok(Self { place, size })
    }

    /// Writes the fields that the caller's header has. Fields that only its version has stay zero.
    pub fn set(&self, value: &T) {
        let known = self.size.min(size_of::<T>());
        // SAFETY: valid by the contract of `new`, and `value` has at least `known` bytes.
        unsafe {
            let value = ptr::from_ref(value).cast::<u8>();
            ptr::copy_nonoverlapping(value, self.place.cast(), known);
        }
    }
}
