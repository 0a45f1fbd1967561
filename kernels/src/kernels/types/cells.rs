//! The float32 matrix that workers write together.

use core::marker::PhantomData;
use core::ops::Range;

/// A float32 matrix `[tokens][stride]` that several workers write at once, each its own cells.
#[derive(Clone, Copy)]
pub struct CellWriter<'a> {
    pub(in crate::kernels) cells: *mut f32,
    pub(in crate::kernels) tokens: usize,
    pub(in crate::kernels) stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: access goes through `cells`, whose contract makes every caller name cells that nobody else
// uses meanwhile; the pointer itself may be anywhere.
unsafe impl Send for CellWriter<'_> {}
// SAFETY: as above.
unsafe impl Sync for CellWriter<'_> {}

impl<'a> CellWriter<'a> {
    /// Over a whole buffer of `[tokens][stride]`.
    pub fn new(buffer: &'a mut [f32], stride: usize) -> Self {
        let tokens = buffer.len() / stride;
        Self { cells: buffer.as_mut_ptr(), tokens, stride, lifetime: PhantomData }
    }

    /// Over `len` floats at `cells`.
    ///
    /// # Safety
    /// - `cells` is valid for reads and writes of `len` floats for `'a`.
    /// - For `'a`, nobody reads or writes them but through this writer and its copies, except cells
    ///   that no user of this writer names in the meantime.
    pub unsafe fn from_raw(cells: *mut f32, len: usize, stride: usize) -> Self {
        Self { cells, tokens: len / stride, stride, lifetime: PhantomData }
    }

    /// The cells `columns` of `token`.
    ///
    /// # Safety
    /// Nobody else reads or writes these cells while the returned slice lives.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the contract makes the cells exclusive")]
    pub unsafe fn cells(&self, token: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(token < self.tokens && columns.start <= columns.end && columns.end <= self.stride);
        // SAFETY: the assertion puts the cells inside the buffer, which is valid for 'a by the
        // constructors' contracts; the caller promises that they are exclusive.
        unsafe {
            let start = self.cells.add(token * self.stride + columns.start);
            core::slice::from_raw_parts_mut(start, columns.len())
        }
    }
}
