//! AVX2 with VNNI: `vpdpbusd` in vectors of 8 lanes, for the matrix products.
//!
//! There are two encodings of that instruction: AVX-VNNI's, which processors without AVX-512 have, and
//! that of AVX-512 VL with VNNI. Both are compiled from one source, so that a test of either is one of
//! the algorithm. The second serves only for tests (feature `vnni-evex`), because a processor that has it has
//! the kernels for AVX-512, too. All else is AVX2's; so are the products of int8 attention, a small part of it.

mod dot;
mod matmul;

use super::avx2;
use super::detect::has;
use super::isa::Isa;
use super::table::Kernels;
#[cfg(feature = "vnni-evex")]
use dot::Evex;
use dot::Vex;

/// The table that this processor supports, if any.
pub(super) fn table() -> Option<&'static Kernels> {
    if !avx2::is_supported() {
        None
    } else if has!("avxvnni") {
        Some(&VEX)
    } else {
        evex()
    }
}

#[cfg(feature = "vnni-evex")]
fn evex() -> Option<&'static Kernels> {
    let evex = has!("avx512vl") && has!("avx512vnni");
    evex.then_some(&EVEX)
}

#[cfg(not(feature = "vnni-evex"))]
fn evex() -> Option<&'static Kernels> {
    None
}

static VEX: Kernels = Kernels { matmul: matmul::matmul::<Vex>, ..WITHOUT_MATMUL };
#[cfg(feature = "vnni-evex")]
static EVEX: Kernels = Kernels { matmul: matmul::matmul::<Evex>, ..WITHOUT_MATMUL };

const WITHOUT_MATMUL: Kernels = Kernels { isa: Isa::AvxVnni, ..avx2::TABLE };
