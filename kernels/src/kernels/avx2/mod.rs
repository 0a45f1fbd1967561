//! AVX2 with FMA and F16C: the scalar definition in registers of 8 lanes.
//!
//! A panel of 16 rows, 16 keys or the 16 lanes of a sum are a pair of registers everywhere. See
//! `docs/kernels.md` for what bounds each kernel.

mod bodies;
mod dot;
mod matmul;
mod vector;

use super::detect::has;
use super::isa::Isa;
use super::table::Kernels;

#[cfg(feature = "vnni")]
pub(super) use dot::{Bytes, Dot, Levels, Nibbles, sum_of_pair};
#[cfg(feature = "vnni")]
pub(super) use matmul::by_tokens;
#[cfg(feature = "vnni")]
pub(super) use vector::Avx2;

/// What the processor must support for [`TABLE`].
pub(super) fn is_supported() -> bool {
    has!("avx2") && has!("fma") && has!("f16c")
}

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Avx2,
    embed: bodies::embed,
    quantize: bodies::quantize,
    layer_norm: bodies::layer_norm,
    rms_norm: bodies::rms_norm,
    angles: bodies::angles,
    rotate: bodies::rotate,
    matmul: matmul::matmul,
    store: bodies::store,
    attend: bodies::attend,
};
