//! Everything but the matrix products, written once over a [`Vector`](super::vector::Vector).
//!
//! The functions here are `#[inline(always)]` and enable no instructions. `instantiate` makes of each a
//! function of an instruction set, with its target features, into which the body and the vector's
//! methods are inlined. So a body must not hand work to a closure that may stay a function of its own:
//! there the intrinsics would be calls.

pub(super) mod attention;
pub(super) mod embed;
pub(super) mod epilogue;
mod hadamard;
pub(super) mod math;
pub(super) mod norm;
pub(super) mod quantize;
pub(super) mod rope;

/// Makes functions for a table out of the bodies: `instantiate!(#[target_feature(...)] Vector)`.
///
/// The functions may be called where [`Vector::new`](super::vector::Vector::new) may.
macro_rules! instantiate {
    ($(#[$attr:meta])* $vector:ty) => {
        use crate::kernels::generic::attention::{F16Scores, Outlined, Rows, ScoresInt8, Value, Values};
        use crate::kernels::generic;
        use crate::kernels::vector::Vector;
        use crate::kernels::types::{
            Attention, AttentionScratch, CellWriter, EmbeddingRow, HeadCacheMut, LayerNorm,
            Matmul, QuantizedRowMut, RmsNorm, SEGMENT,
        };

        $(#[$attr])*
        pub(super) unsafe fn embed(row: &EmbeddingRow, out: &mut [f32]) {
            // SAFETY: the caller's promise.
            generic::embed::embed(unsafe { <$vector>::new() }, row, out);
        }

        $(#[$attr])*
        pub(super) unsafe fn quantize(x: &[f32], group_size: usize, out: QuantizedRowMut) {
            // SAFETY: the caller's promise.
            generic::quantize::quantize(unsafe { <$vector>::new() }, x, group_size, out);
        }

        $(#[$attr])*
        pub(super) unsafe fn layer_norm(x: &[f32], norm: &LayerNorm, out: &mut [f32]) {
            // SAFETY: the caller's promise.
            generic::norm::layer_norm(unsafe { <$vector>::new() }, x, norm, out);
        }

        $(#[$attr])*
        pub(super) unsafe fn rms_norm(x: &[f32], norm: &RmsNorm, out: &mut [f32]) {
            // SAFETY: the caller's promise.
            generic::norm::rms_norm(unsafe { <$vector>::new() }, x, norm, out);
        }

        /// Not a body over vectors: once for each token and base it computes some 64 numbers, in
        /// binary64.
        $(#[$attr])*
        pub(super) unsafe fn angles(
            position: u32,
            inverse_frequencies: &[f64],
            factor: f64,
            out: (&mut [f32], &mut [f32]),
        ) {
            crate::kernels::scalar::angles(position, inverse_frequencies, factor, out);
        }

        $(#[$attr])*
        pub(super) unsafe fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
            // SAFETY: the caller's promise.
            generic::rope::rotate(unsafe { <$vector>::new() }, head, cos, sin);
        }

        $(#[$attr])*
        pub(super) unsafe fn store(
            head: &mut HeadCacheMut,
            position: usize,
            key: &[f32],
            value: &[f32],
        ) {
            // SAFETY: the caller's promise.
            let v = unsafe { <$vector>::new() };
            generic::attention::store(v, head, position, key, value);
        }

        /// # Safety
        /// That of [`generic::attention::attend`].
        $(#[$attr])*
        pub(super) unsafe fn attend_with(
            scores_int8: ScoresInt8,
            job: &Attention,
            scratch: &mut AttentionScratch,
            out: &CellWriter,
        ) {
            // SAFETY: the caller's promise.
            unsafe {
                let v = <$vector>::new();
                generic::attention::attend(v, scores_int8, job, scratch, out);
            }
        }

        /// # Safety
        /// That of [`generic::epilogue::finish`].
        $(#[$attr])*
        pub(super) unsafe fn finish(
            job: &Matmul,
            panel: usize,
            first: usize,
            acc: &[<$vector as Vector>::F32],
            out: &CellWriter,
        ) {
            // SAFETY: the caller's promise.
            unsafe {
                let v = <$vector>::new();
                generic::epilogue::finish(v, job, panel, first, acc, out);
            }
        }

        impl Outlined for $vector {
            #[inline(never)]
            $(#[$attr])*
            unsafe fn scores_f16<const Q: usize>(
                self,
                job: &F16Scores,
                scores: &mut [[f32; SEGMENT]],
            ) {
                generic::attention::scores_f16::<_, Q>(self, job, scores);
            }

            #[inline(never)]
            $(#[$attr])*
            unsafe fn weighted_sums_over<T: Value, const Q: usize>(
                self,
                values: Values<T>,
                weights: &[[f32; SEGMENT]],
                positions: core::ops::Range<usize>,
                rows: Rows,
            ) {
                // SAFETY: the caller's promise.
                unsafe {
                    generic::attention::weighted_sums_over::<_, T, Q>(
                        self, values, weights, positions, rows,
                    );
                }
            }

            #[inline(never)]
            $(#[$attr])*
            unsafe fn weighted_sum_tail<T: Value>(
                self,
                values: &[T],
                weights: &[[f32; SEGMENT]],
                positions: core::ops::Range<usize>,
                rows: Rows,
            ) {
                // SAFETY: the caller's promise.
                unsafe {
                    generic::attention::weighted_sum_tail(self, values, weights, positions, rows);
                }
            }
        }
    };
}
pub(super) use instantiate;
