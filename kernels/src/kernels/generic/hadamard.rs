//! The Hadamard transform (`docs/numbers.md` section 3).

use crate::kernels::vector::{LANES, Vector};
use crate::quant::HADAMARD_BLOCK;

/// Transforms a block.
#[inline(always)]
pub(super) fn hadamard<V: Vector>(v: V, block: &mut [f32; HADAMARD_BLOCK]) {
    let from = *block;
    hadamard_to(v, &from, block);
}

/// Transforms a block to another place.
#[inline(always)]
pub(super) fn hadamard_to<V: Vector>(
    v: V,
    from: &[f32; HADAMARD_BLOCK],
    to: &mut [f32; HADAMARD_BLOCK],
) {
    let (from, _) = from.as_chunks::<LANES>();
    let (to, _) = to.as_chunks_mut::<LANES>();
    let a = v.butterflies(v.load(&from[0]));
    let b = v.butterflies(v.load(&from[1]));
    let c = v.butterflies(v.load(&from[2]));
    let d = v.butterflies(v.load(&from[3]));
    let (a, b, c, d) = (v.add(a, b), v.sub(a, b), v.add(c, d), v.sub(c, d));
    let factor = v.splat(0.125);
    v.store(v.mul(v.add(a, c), factor), &mut to[0]);
    v.store(v.mul(v.add(b, d), factor), &mut to[1]);
    v.store(v.mul(v.sub(a, c), factor), &mut to[2]);
    v.store(v.mul(v.sub(b, d), factor), &mut to[3]);
}
