//! The matrix product (`docs/numbers.md` section 4): AVX2's, with another product of bytes.

use core::ops::Range;

use super::dot::{Encoding, Vnni};
use crate::kernels::avx2::{Bytes, Levels, Nibbles, by_tokens};
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
            Scheme::Int8 => by_tokens::<Bytes<Vnni<E>>>(job, panels, out),
            Scheme::Int4 => by_tokens::<Nibbles<Vnni<E>>>(job, panels, out),
            Scheme::Nl4 => by_tokens::<Levels<Vnni<E>, 4>>(job, panels, out),
            Scheme::Tc3 => by_tokens::<Levels<Vnni<E>, 3>>(job, panels, out),
            Scheme::Tc2 => by_tokens::<Levels<Vnni<E>, 2>>(job, panels, out),
        }
    }
}
