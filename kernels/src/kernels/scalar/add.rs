//! Adding a row times a factor to sums: the inner loops of attention.

#[cfg(vfma)]
pub(super) use crate::float::{add_f16, add_i8};
#[cfg(not(vfma))]
pub(super) use definition::{add_f16, add_i8};

#[cfg(not(vfma))]
mod definition {
    use crate::float::fma;
    use crate::kernels::scalar::f16_to_f32;

    /// `sums = fma(factor, row, sums)` of float16.
    #[inline(always)]
    pub fn add_f16(sums: &mut [f32], factor: f32, row: &[u16]) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum = fma(factor, f16_to_f32(x), *sum);
        }
    }

    /// The same of int8.
    #[inline(always)]
    pub fn add_i8(sums: &mut [f32], factor: f32, row: &[i8]) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum = fma(factor, f32::from(x), *sum);
        }
    }
}
