//! All of a session's memory: planned first, then allocated at once, then shared out.

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::Range;
use core::ptr::NonNull;

#[cfg(any(feature = "capi", feature = "text"))]
use alloc::string::String;

use crate::error::{Error, Result};
use crate::page_lock::PageLock;
use crate::sync::{Mutex, PoisonError};

/// Every region begins on a cache line of its own, so that two never share one.
const ALIGN: usize = 64;

/// A type that may lie in an arena: every bit pattern, all zeros too, is a value of it.
///
/// # Safety
/// Implementors are plain numbers with an alignment of at most 64.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}
// SAFETY: plain numbers.
unsafe impl Plain for i32 {}
// SAFETY: plain numbers.
unsafe impl Plain for u16 {}
// SAFETY: plain numbers.
unsafe impl Plain for [i16; 2] {}
// SAFETY: plain numbers.
unsafe impl Plain for u32 {}
// SAFETY: plain numbers.
unsafe impl Plain for u64 {}
// SAFETY: plain numbers.
unsafe impl Plain for f64 {}
// SAFETY: plain numbers.
unsafe impl Plain for i8 {}

/// A place for `len` values of `T` in any arena allocated from the same plan.
#[derive(Debug)]
pub(crate) struct Region<T> {
    offset: usize,
    len: usize,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for Region<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Region<T> {}

impl<T> Region<T> {
    /// Where the values `range` lie, in bytes from the beginning of the arena.
    pub fn bytes_of(self, range: Range<usize>) -> Range<usize> {
        assert!(range.start <= range.end && range.end <= self.len, "outside the region");
        let at = |index| self.offset + index * size_of::<T>();
        at(range.start)..at(range.end)
    }
}

/// Whether the system has `bytes` of memory to give: asks for them and gives them back. For what is then done by
/// libraries that end the process if they get none, or in small pieces that cannot fail.
pub(crate) fn probe(bytes: usize) -> Result<()> {
    let mut asked = Vec::<u8>::new();
    asked.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
    // The compiler may leave out what nobody looks at.
    core::hint::black_box(&asked);
    Ok(())
}

/// A copy of `text`.
#[cfg(any(feature = "capi", feature = "text"))]
pub(crate) fn copy(text: &str) -> Result<String> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| Error::OutOfMemory { bytes: text.len() })?;
    copy.push_str(text);
    Ok(copy)
}

/// `String::push_str`, but a lack of memory is an error.
#[cfg(feature = "text")]
pub(crate) fn append(text: &mut String, more: &str) -> Result<()> {
    let bytes = text.len().saturating_add(more.len());
    text.try_reserve(more.len()).map_err(|_| Error::OutOfMemory { bytes })?;
    text.push_str(more);
    Ok(())
}

/// `[&str]::concat`, but a lack of memory is an error.
#[cfg(feature = "text")]
pub(crate) fn concat(parts: &[&str]) -> Result<String> {
    let mut text = String::new();
    let bytes = parts.iter().map(|part| part.len()).sum();
    text.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
    text.extend(parts.iter().copied());
    Ok(text)
}

/// `str::replace`, but a lack of memory is an error.
#[cfg(feature = "text")]
pub(crate) fn replace(text: &str, from: &str, to: &str) -> Result<String> {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(from) {
        append(&mut replaced, before)?;
        append(&mut replaced, to)?;
        rest = behind;
    }
    append(&mut replaced, rest)?;
    Ok(replaced)
}

/// `Vec::push`, but a lack of memory is an error.
#[cfg(feature = "text")]
pub(crate) fn push<T>(list: &mut Vec<T>, value: T) -> Result<()> {
    extend(list, core::iter::once(value))
}

/// `Vec::extend` by so many values as the iterator knows to have, but a lack of memory is an error.
#[cfg(feature = "text")]
pub(crate) fn extend<T>(list: &mut Vec<T>, more: impl ExactSizeIterator<Item = T>) -> Result<()> {
    let bytes = (list.len() + more.len()).saturating_mul(size_of::<T>());
    list.try_reserve(more.len()).map_err(|_| Error::OutOfMemory { bytes })?;
    list.extend(more);
    Ok(())
}

/// Adds up regions.
#[derive(Default)]
pub(crate) struct Planner {
    bytes: usize,
}

impl Planner {
    /// Reserves a place for the product of `dimensions` values.
    pub fn reserve<T: Plain>(&mut self, dimensions: &[usize]) -> Result<Region<T>> {
        let (offset, len) = self.reserve_sized(dimensions, size_of::<T>())?;
        Ok(Region { offset, len, element: PhantomData })
    }

    /// Of values of `size` bytes, the same: where the place begins, and how many values it has.
    #[inline(never)]
    fn reserve_sized(&mut self, dimensions: &[usize], size: usize) -> Result<(usize, usize)> {
        let too_large = Error::OutOfMemory { bytes: usize::MAX };
        let len = dimensions.iter().try_fold(1usize, |len, &n| len.checked_mul(n));
        let bytes = len.and_then(|len| len.checked_mul(size)?.checked_next_multiple_of(ALIGN));
        let end = bytes.and_then(|bytes| self.bytes.checked_add(bytes));
        let end = end.filter(|&end| isize::try_from(end).is_ok());
        let (Some(len), Some(end)) = (len, end) else { return Err(too_large) };
        Ok((core::mem::replace(&mut self.bytes, end), len))
    }

    /// Bytes reserved so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Memory of the host's for one session, in place of an allocation, or for a copy of a model's weights.
#[derive(Debug)]
pub struct HostMemory {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: by the contract of `new` the memory is its new owner's alone, whichever thread that is on.
unsafe impl Send for HostMemory {}

impl HostMemory {
    /// The boundary on which it must begin.
    pub const ALIGN: usize = ALIGN;

    /// Hands `bytes` bytes from `start` over to the session that is made with them, or to the model that
    /// copies weights to them.
    ///
    /// # Safety
    /// Until that session is dropped, or the model with its clones and sessions, the memory is valid for reads
    /// and writes, and nobody else reads or writes it.
    pub unsafe fn new(start: NonNull<u8>, bytes: usize) -> Self {
        Self { start, bytes }
    }

    /// Bytes that there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }
}

/// The memory of a plan, zeroed.
///
/// Regions are reached through `&self`, because the workers of a forward pass write different parts
/// of one region at once; the contracts of [`Arena::read`] and [`Arena::write`] stand in for the
/// borrow checker.
pub(crate) struct Arena {
    /// Begins on a boundary of [`ALIGN`].
    start: NonNull<u8>,
    bytes: usize,
    owner: Owner,
    lock: Option<PageLock>,
}

/// Whose an arena's memory is.
enum Owner {
    /// Ours, to be freed.
    Allocation(NonNull<u8>, Layout),
    /// The host's.
    Host { _claim: Claim },
}

/// Memory of the host's that no other arena has as long as this lives. Two sessions in the same memory
/// would overwrite each other in silence.
struct Claim(Range<usize>);

/// The addresses of all claims.
static CLAIMED: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

impl Claim {
    fn new(addresses: Range<usize>) -> Result<Self> {
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        let overlaps = |of: &Range<usize>| of.start < addresses.end && addresses.start < of.end;
        if claimed.iter().any(overlaps) {
            return Err(Error::ArenaInUse);
        }
        let memory = |_| Error::OutOfMemory { bytes: size_of::<Range<usize>>() };
        claimed.try_reserve(1).map_err(memory)?;
        claimed.push(addresses.clone());
        Ok(Self(addresses))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.retain(|addresses| *addresses != self.0);
        if claimed.is_empty() {
            // Nothing stays when the library is unloaded.
            *claimed = Vec::new();
        }
    }
}

// SAFETY: nobody else uses an arena's memory, and access to it is governed by the contracts of `read` and
// `write`, whichever thread calls them.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Allocates what was planned.
    ///
    /// The boundary is found inside a slightly larger allocation rather than asked for: memory of the
    /// usual alignment comes zeroed from the system, page by page as it is first used, while for more
    /// than that Rust's system allocator writes all the zeros itself, gigabytes for a large cache.
    pub fn allocate(plan: &Planner) -> Result<Self> {
        let bytes = plan.bytes();
        let fail = || Error::OutOfMemory { bytes };
        let with_slack = bytes.checked_add(ALIGN).ok_or_else(fail)?;
        let layout = Layout::from_size_align(with_slack, align_of::<usize>());
        let layout = layout.map_err(|_| fail())?;
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(fail)?;
        let offset = (base.as_ptr() as usize).next_multiple_of(ALIGN) - base.as_ptr() as usize;
        // SAFETY: the boundary is less than `ALIGN` bytes away, and so much was added.
        let start = unsafe { base.add(offset) };
        Ok(Self { start, bytes, owner: Owner::Allocation(base, layout), lock: None })
    }

    /// Takes what was planned from the host's memory.
    pub fn place(plan: &Planner, memory: HostMemory) -> Result<Self> {
        let HostMemory { start, bytes } = memory;
        let offset = start.as_ptr() as usize % ALIGN;
        if offset != 0 {
            let detail = format!("begins {offset} bytes past a {ALIGN}-byte boundary");
            return Err(Error::Option { name: "arena", detail });
        }
        let required = plan.bytes();
        if bytes < required {
            return Err(Error::ArenaTooSmall { required, given: bytes });
        }
        let first = start.addr().get();
        let claim = Claim::new(first..first + required)?;
        // SAFETY: `required` of its bytes are valid for writes and ours, by `HostMemory::new`.
        unsafe { start.as_ptr().write_bytes(0, required) };
        Ok(Self { start, bytes: required, owner: Owner::Host { _claim: claim }, lock: None })
    }

    /// Keeps the pages in memory, all of which are used now.
    pub fn lock(&mut self) -> Result<()> {
        if self.lock.is_none() {
            self.lock = Some(PageLock::new(self.start.as_ptr(), self.bytes)?);
        }
        Ok(())
    }

    /// The bytes at `range`, counted from the beginning of the arena.
    pub fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.bytes, "outside the arena");
        // SAFETY: the assertion keeps them inside the memory, which is initialized; bytes are plain;
        // the exclusive borrow keeps everybody else out.
        unsafe {
            core::slice::from_raw_parts_mut(self.start.as_ptr().add(range.start), range.len())
        }
    }

    /// From now on nobody writes; the first `bytes` are what is wanted of it.
    pub fn freeze(self, bytes: usize) -> Frozen {
        assert!(bytes <= self.bytes, "outside the arena");
        Frozen(self, bytes)
    }

    /// The values `range` of a region, to read.
    ///
    /// # Safety
    /// Nobody writes these values while the slice lives.
    pub unsafe fn read<T: Plain>(&self, region: Region<T>, range: Range<usize>) -> &[T] {
        let start = self.address(region, &range);
        // SAFETY: `address` put the range inside the arena, aligned for T; its bytes are initialized
        // (zeroed, then only written through `write`) and any bytes are a T; nobody writes meanwhile.
        unsafe { core::slice::from_raw_parts(start, range.len()) }
    }

    /// The values `range` of a region, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes these values while the slice lives.
    #[allow(clippy::mut_from_ref, reason = "the contract makes the values exclusive")]
    pub unsafe fn write<T: Plain>(&self, region: Region<T>, range: Range<usize>) -> &mut [T] {
        let start = self.address(region, &range);
        // SAFETY: as in `read`, and the caller promises that nobody else uses the values.
        unsafe { core::slice::from_raw_parts_mut(start, range.len()) }
    }

    /// Where a region begins, valid for reads and writes of all its values as long as `self` lives.
    pub fn pointer<T: Plain>(&self, region: Region<T>) -> (*mut T, usize) {
        (self.address(region, &(0..region.len)), region.len)
    }

    /// The address of a byte, to be fetched ahead but not read.
    pub fn address_of(&self, byte: usize) -> *const u8 {
        self.start.as_ptr().wrapping_add(byte)
    }

    fn address<T: Plain>(&self, region: Region<T>, range: &Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= region.len, "outside the region");
        let offset = region.offset + range.start * size_of::<T>();
        assert!(offset + range.len() * size_of::<T>() <= self.bytes, "region of another plan");
        // SAFETY: the assertions keep the offset inside the allocation.
        unsafe { self.start.as_ptr().add(offset).cast() }
    }
}

/// An arena that nobody writes any more.
pub(crate) struct Frozen(Arena, usize);

impl Frozen {
    /// What is wanted of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: so much is inside the memory, which is initialized, lives as long as `self`, and nobody has the arena
        // to write it.
        unsafe { core::slice::from_raw_parts(self.0.start.as_ptr(), self.1) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.lock = None;
        if let Owner::Allocation(base, layout) = self.owner {
            // SAFETY: `base` was allocated with `layout` and is not used again.
            unsafe { dealloc(base.as_ptr(), layout) }
        }
    }
}

/// `Box::new`, but a lack of memory is an error.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, Error> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new(value));
    }
    // SAFETY: the size is not zero.
    let place = unsafe { alloc::alloc::alloc(layout) }.cast::<T>();
    if place.is_null() {
        return Err(Error::OutOfMemory { bytes: layout.size() });
    }
    // SAFETY: `place` is valid for a T, and was allocated as a box allocates.
    unsafe {
        place.write(value);
        Ok(Box::from_raw(place))
    }
}

/// An empty vector with room for `len` values, but a lack of memory is an error.
pub(crate) fn try_vec<T>(len: usize) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    let memory = |_| Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) };
    values.try_reserve_exact(len).map_err(memory)?;
    Ok(values)
}

/// `len` copies of a value, but a lack of memory is an error.
pub(crate) fn try_filled<T: Clone>(value: T, len: usize) -> Result<Vec<T>, Error> {
    let mut values = try_vec(len)?;
    values.resize(len, value);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_aligned_zeroed_and_apart() {
        let mut planner = Planner::default();
        let a: Region<i8> = planner.reserve(&[3]).unwrap();
        let b: Region<f32> = planner.reserve(&[2, 5]).unwrap();
        let arena = Arena::allocate(&planner).unwrap();
        // SAFETY: one thread, and the slices are used one after the other.
        unsafe {
            arena.write(a, 0..3).fill(-1);
            assert_eq!(arena.read(b, 0..10), [0.0; 10]);
            assert_eq!(arena.read(b, 0..1).as_ptr() as usize % ALIGN, 0);
            assert_eq!(arena.read(a, 1..3), [-1, -1]);
        }
        assert_eq!(planner.bytes(), 128);
    }

    /// A large cache must cost nothing until tokens fill it.
    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn memory_is_resident_only_once_it_is_used() {
        let mut planner = Planner::default();
        planner.reserve::<i8>(&[256 << 20]).unwrap();
        let arena = Arena::allocate(&planner).unwrap();
        // Behind the line with the range of addresses that holds the arena's middle.
        let middle = arena.start.as_ptr() as usize + (128 << 20);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let ends = range.and_then(|(from, to)| {
                let number = |digits| usize::from_str_radix(digits, 16).ok();
                Some(number(from)?..number(to)?)
            });
            !ends.is_some_and(|ends| ends.contains(&middle))
        });
        let resident = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        let resident: usize = resident.trim().trim_end_matches(" kB").parse().unwrap();
        // The range may hold what another test has mapped beside it.
        assert!(resident < 128 << 10, "{resident} kB are resident before their first use");
    }

    #[test]
    fn host_memory_is_checked_zeroed_and_left_to_the_host() {
        #[repr(align(64))]
        struct Memory([u8; 192]);
        let mut memory = Memory([7; 192]);
        let start = NonNull::from(&mut memory.0).cast::<u8>();
        let mut planner = Planner::default();
        let region: Region<u32> = planner.reserve(&[20]).unwrap();
        // SAFETY: `memory` outlives every arena below, and is read only after they are gone.
        let place = |at: usize, bytes| unsafe {
            Arena::place(&planner, HostMemory::new(start.add(at), bytes))
        };
        assert!(matches!(place(4, 188), Err(Error::Option { name: "arena", .. })));
        let too_small = place(0, 127).map(drop).unwrap_err();
        assert!(matches!(too_small, Error::ArenaTooSmall { required: 128, given: 127 }));
        let mut arena = place(0, 128).unwrap();
        assert_eq!(arena.bytes(region.bytes_of(0..20)), [0; 80]);
        arena.bytes(0..4).fill(1);
        drop(arena);
        assert_eq!(memory.0[..5], [1, 1, 1, 1, 0]);
        assert_eq!(memory.0[128..], [7; 64], "wrote past the plan");
    }

    #[test]
    fn memory_of_the_hosts_has_one_owner_at_a_time() {
        #[repr(align(64))]
        struct Memory([u8; 256]);
        let mut memory = Memory([0; 256]);
        let start = NonNull::from(&mut memory.0).cast::<u8>();
        let mut planner = Planner::default();
        planner.reserve::<i8>(&[128]).unwrap();
        // SAFETY: `memory` outlives every arena below, and is not used but by them.
        let place =
            |at: usize| unsafe { Arena::place(&planner, HostMemory::new(start.add(at), 256 - at)) };
        let middle = place(64).unwrap();
        for at in [0, 64, 128] {
            assert!(matches!(place(at).map(drop), Err(Error::ArenaInUse)), "at {at}");
        }
        drop(middle);
        // A plan's bytes are claimed, not all that the host gave.
        let (first, second) = (place(0).unwrap(), place(128).unwrap());
        drop(first);
        assert!(matches!(place(64).map(drop), Err(Error::ArenaInUse)));
        drop(second);
        place(64).unwrap();
    }

    #[test]
    fn sizes_that_overflow_are_errors() {
        let mut planner = Planner::default();
        assert!(planner.reserve::<f32>(&[usize::MAX, 2]).is_err());
        assert!(planner.reserve::<f32>(&[usize::MAX / 4]).is_err());
    }
}
