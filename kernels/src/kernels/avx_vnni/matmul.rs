//! The matrix product (`docs/numbers.md` section 4): AVX2's, with another product of bytes.

use core::ops::Range;

use super::dot::{Encoding, Int4, Int8};
use crate::kernels::avx2::by_tokens;
use crate::kernels::types::{CellWriter, Matmul};
use crate::quant::Scheme;

/// Computes the outputs of `panels` for every token.
///
/// # Safety
/// That of [`Kernels::matmul`](crate::kernels::Kernels::matmul), which has checked all lengths.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn matmul<E: Encoding>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.weights.tiles.scheme() {
            Scheme::Int4 => by_tokens::<Int4<E>>(job, panels, out),
            Scheme::Int8 => by_tokens::<Int8<E>>(job, panels, out),
        }
    }
}
