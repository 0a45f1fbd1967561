//! Cortex-M4, M7 and their like (Armv7E-M): the scalar definition with products of two pairs of 16 bits at once
//! (`smlad`), and the floating-point unit's conversion of float16.
//!
//! Only matrix products differ; all else is the definition's code. Tests on other processors run the same source with
//! the instructions written out ([`instructions`]); `.ci/bare` runs the real ones.

mod instructions;
mod matmul;

use super::isa::Isa;
use super::scalar;
use super::table::Kernels;

pub(super) static TABLE: Kernels = Kernels { isa: Isa::Dsp, matmul: matmul::matmul, ..DEFINITION };

const DEFINITION: Kernels = Kernels { ..scalar::PORTABLE };
