//! NEON, alone and with the dot products of later Armv8 versions: the scalar definition in vectors of
//! 4 lanes.
//!
//! A panel of 16 rows, 16 keys or the 16 lanes of a sum are four registers everywhere. The three tables
//! share every loop; only the integer products differ ([`dot`]). What `docs/arm.md` has: which instruction does what, and what the
//! loops cost.
//!
//! | table | needs | cores, for example |
//! |---|---|---|
//! | `neon` | nothing | Cortex-A53, A72 |
//! | `neon-dotprod` | `sdot` | Cortex-A55, A76, Neoverse N1, Apple M1 |
//! | `neon-i8mm` | `usdot`, `smmla` too | Cortex-A510, A710, Neoverse V1, Apple M2 |

mod attention;
mod dot;
mod embed;
mod instructions;
mod layer_norm;
mod math;
mod matmul;
mod quantize;

use std::arch::aarch64::{float32x4_t, vld1q_f32, vst1q_f32};
use std::arch::is_aarch64_feature_detected;
use std::array::from_fn;

use self::dot::{Dotprod, I8mm, Level, Neon};
use self::instructions::*;
use super::{Isa, Kernels};

/// What the processor must support for [`DOTPROD`].
pub(super) fn has_dotprod() -> bool {
    is_aarch64_feature_detected!("dotprod")
}

/// What the processor must support for [`I8MM`].
pub(super) fn has_i8mm() -> bool {
    has_dotprod() && is_aarch64_feature_detected!("i8mm")
}

pub(super) static NEON: Kernels = table::<Neon>(Isa::Neon);
pub(super) static DOTPROD: Kernels = table::<Dotprod>(Isa::NeonDotprod);
pub(super) static I8MM: Kernels = table::<I8mm>(Isa::NeonI8mm);

const fn table<L: Level>(isa: Isa) -> Kernels {
    Kernels {
        isa,
        embed: embed::embed,
        quantize: quantize::quantize,
        layer_norm: layer_norm::layer_norm,
        matmul: matmul::matmul::<L>,
        store: attention::store,
        attend: attention::attend::<L>,
    }
}

/// 16 lanes: 0..4, 4..8, 8..12 and 12..16.
type F32x16 = [float32x4_t; 4];
/// 8 lanes.
type F32x8 = [float32x4_t; 2];

#[inline(always)]
fn splat16(x: f32) -> F32x16 {
    [vdupq_n_f32(x); 4]
}

#[inline(always)]
fn add16(a: F32x16, b: F32x16) -> F32x16 {
    from_fn(|i| vaddq_f32(a[i], b[i]))
}

#[inline(always)]
fn sub16(a: F32x16, b: F32x16) -> F32x16 {
    from_fn(|i| vsubq_f32(a[i], b[i]))
}

#[inline(always)]
fn mul16(a: F32x16, b: F32x16) -> F32x16 {
    from_fn(|i| vmulq_f32(a[i], b[i]))
}

/// `a * b + c`.
#[inline(always)]
fn fma16(a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
    from_fn(|i| vfmaq_f32(c[i], a[i], b[i]))
}

#[inline(always)]
fn load16(x: &[f32; 16]) -> F32x16 {
    // SAFETY: 16 floats.
    from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
}

#[inline(always)]
fn store16(x: F32x16, to: &mut [f32; 16]) {
    for (to, x) in to.as_chunks_mut::<4>().0.iter_mut().zip(x) {
        // SAFETY: 4 floats.
        unsafe { vst1q_f32(to.as_mut_ptr(), x) };
    }
}

/// The floats of a slice of at most 16, the other lanes 0.
#[inline]
fn load_part(x: &[f32]) -> F32x16 {
    let mut padded = [0.0; 16];
    padded[..x.len()].copy_from_slice(x);
    load16(&padded)
}

/// The first lanes into a slice of at most 16.
#[inline]
fn store_part(x: F32x16, to: &mut [f32]) {
    let mut padded = [0.0; 16];
    store16(x, &mut padded);
    to.copy_from_slice(&padded[..to.len()]);
}

/// `fold16` of the scalar definition: 8 apart, then 4, 2, 1.
#[inline(always)]
fn fold16(lanes: F32x16) -> f32 {
    let a = vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
    let a = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    vpadds_f32(a)
}
