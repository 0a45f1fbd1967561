//! NEON, alone and with the dot products of later Armv8 versions: the scalar definition in registers
//! of 4 lanes.
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

mod bodies;
mod dot;
mod instructions;
mod matmul;
mod registers;
mod vector;

use self::dot::{Dotprod, I8mm, Level, Neon};
use super::detect::has;
use super::isa::Isa;
use super::table::Kernels;

/// What the processor must support for [`DOTPROD`].
pub(super) fn has_dotprod() -> bool {
    has!("dotprod")
}

/// What the processor must support for [`I8MM`].
pub(super) fn has_i8mm() -> bool {
    has_dotprod() && has!("i8mm")
}

pub(super) static NEON: Kernels = table::<Neon>(Isa::Neon);
pub(super) static DOTPROD: Kernels = table::<Dotprod>(Isa::NeonDotprod);
pub(super) static I8MM: Kernels = table::<I8mm>(Isa::NeonI8mm);

const fn table<L: Level>(isa: Isa) -> Kernels {
    Kernels {
        isa,
        embed: bodies::embed,
        quantize: bodies::quantize,
        layer_norm: bodies::layer_norm,
        rms_norm: bodies::rms_norm,
        angles: bodies::angles,
        rotate: bodies::rotate,
        matmul: matmul::matmul::<L>,
        store: bodies::store,
        attend: bodies::attend::<L>,
    }
}
