//! AVX-512 with VNNI: the scalar definition in registers of 16 lanes.
//!
//! A panel of 16 rows, 16 keys or the 16 lanes of a sum are one register everywhere, and a step of a
//! panel, 16 rows x 4 inputs, is one operand of `vpdpbusd`. See `docs/kernels.md` for what bounds each
//! kernel.

mod bodies;
mod matmul;
mod vector;

use super::avx2;
use super::detect::has;
use super::isa::Isa;
use super::table::Kernels;

/// What the processor must support for [`TABLE`].
pub(super) fn is_supported() -> bool {
    avx2::is_supported()
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512dq")
        && has!("avx512vl")
        && has!("avx512vnni")
}

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Avx512Vnni,
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
