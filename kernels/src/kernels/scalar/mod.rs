//! The definition: `docs/numbers.md` as code, written to be read.
//!
//! Every function here is `#[inline(always)]` and generic over nothing, so that the same source is
//! compiled twice: once for any processor (`PORTABLE`) and once with hardware FMA (`FMA`), since a
//! fused multiply-add in software is correct but an order of magnitude slower.

mod add;
mod attention;
mod embed;
mod half_float;
mod matmul;
mod norm;
mod quantize;
mod rope;

pub use half_float::{f16_to_f32, f32_to_f16_saturating};
#[cfg(test)]
pub(super) use matmul::panel_product;
#[cfg(any(dsp, test))]
pub(super) use matmul::{dot_levels, matmul_by};
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128"),
    test
))]
pub(super) use quantize::scale_for;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128"),
    test
))]
pub(super) use rope::angles;

/// Lanes of the virtual vector in which a row is summed.
pub const LANES: usize = 16;

/// Folds the virtual vector as a fixed tree: 8 apart, then 4, 2, 1.
#[inline(always)]
pub fn fold16(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Instantiates the definition with a set of target features and lists it as a table.
macro_rules! instantiate {
    ($(#[$attr:meta])* $module:ident, $isa:expr) => {
        mod $module {
            use crate::kernels::isa::Isa;
            use crate::kernels::table::Kernels;
            use crate::kernels::types::{
                Attention, AttentionScratch, CellWriter, EmbeddingRow, HeadCacheMut, LayerNorm,
                Matmul, QuantizedRowMut, RmsNorm,
            };

            $(#[$attr])*
            unsafe fn embed(row: &EmbeddingRow, out: &mut [f32]) {
                super::embed::embed(row, out);
            }

            $(#[$attr])*
            unsafe fn quantize(x: &[f32], group_size: usize, out: QuantizedRowMut) {
                super::quantize::quantize(x, group_size, out);
            }

            $(#[$attr])*
            unsafe fn layer_norm(x: &[f32], norm: &LayerNorm, out: &mut [f32]) {
                super::norm::layer_norm(x, norm, out);
            }

            $(#[$attr])*
            unsafe fn rms_norm(x: &[f32], norm: &RmsNorm, out: &mut [f32]) {
                super::norm::rms_norm(x, norm, out);
            }

            $(#[$attr])*
            unsafe fn angles(
                position: u32,
                inverse_frequencies: &[f64],
                factor: f64,
                out: (&mut [f32], &mut [f32]),
            ) {
                super::rope::angles(position, inverse_frequencies, factor, out);
            }

            $(#[$attr])*
            unsafe fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
                super::rope::rotate(head, cos, sin);
            }

            $(#[$attr])*
            unsafe fn matmul(job: &Matmul, panels: core::ops::Range<usize>, out: &CellWriter) {
                super::matmul::matmul(job, panels, out);
            }

            $(#[$attr])*
            unsafe fn store(head: &mut HeadCacheMut, position: usize, key: &[f32], value: &[f32]) {
                super::attention::store(head, position, key, value);
            }

            $(#[$attr])*
            unsafe fn attend(job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
                super::attention::attend(job, scratch, out);
            }

            pub(in crate::kernels) static TABLE: Kernels = Kernels {
                isa: $isa,
                embed,
                quantize,
                layer_norm,
                rms_norm,
                angles,
                rotate,
                matmul,
                store,
                attend,
            };
        }
    };
}

instantiate!(portable, Isa::Scalar);
#[cfg(any(target_arch = "x86", all(target_arch = "x86_64", feature = "scalar-fma")))]
instantiate!(
    #[target_feature(enable = "fma")]
    fma,
    Isa::ScalarFma
);

#[cfg(any(target_arch = "x86", all(target_arch = "x86_64", feature = "scalar-fma")))]
pub(super) use fma::TABLE as FMA;
pub(super) use portable::TABLE as PORTABLE;
