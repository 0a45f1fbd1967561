//! WebAssembly's vectors of 128 bits (`simd128`), and those of them whose results an engine may choose
//! (`relaxed-simd`): the scalar definition in vectors of 4 lanes.
//!
//! A module with a relaxed instruction runs only on engines that know it, so a build has one table:
//!
//! | table | built with | multiply-adds | products of int4 weights |
//! |---|---|---|---|
//! | `simd128` | `-Ctarget-feature=+simd128` | computed in binary64 ([`fma`]) | in 16 bits, summed in 32 |
//! | `relaxed-simd` | `+simd128,+relaxed-simd` | the processor's, if a probe shows that they round once | of bytes, summed in 16 |
//!
//! A build with relaxed instructions must also have `-Cno-vectorize-loops -Cno-vectorize-slp`. Where the compiler
//! makes vectors of code by itself, it takes for `if a < b { a } else { b }` the relaxed minimum, whose result for
//! a NaN is the engine's choice. `.ci/web` looks for relaxed instructions that are none of these two.

mod bodies;
mod dot;
mod fma;
mod matmul;
mod vector;

use super::isa::Isa;
use super::table::Kernels;

/// What a build is for.
const ISA: Isa =
    if cfg!(target_feature = "relaxed-simd") { Isa::RelaxedSimd } else { Isa::Simd128 };

/// The build's table, if the engine computes what it needs.
pub(super) fn table(isa: Isa) -> Option<&'static Kernels> {
    (isa == ISA && fma::rounds_once()).then_some(&TABLE)
}

static TABLE: Kernels = Kernels {
    isa: ISA,
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
