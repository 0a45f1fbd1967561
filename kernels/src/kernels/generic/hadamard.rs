//! The Hadamard transform (`docs/numbers.md` section 3).

use crate::kernels::vector::{LANES, Vector};
use crate::quant::HADAMARD_BLOCK;

/// Transforms a block.
#[inline(always)]
pub(super) fn hadamard<V: Vector>(v: V, block: &mut [f32; HADAMARD_BLOCK]) {
    let (vectors, _) = block.as_chunks_mut::<LANES>();
    let mut x = [v.splat(0.0); HADAMARD_BLOCK / LANES];
    for (x, from) in x.iter_mut().zip(&*vectors) {
        *x = v.butterflies(v.load(from));
    }
    let [a, b, c, d] = x;
    let [a, b, c, d] = [v.add(a, b), v.sub(a, b), v.add(c, d), v.sub(c, d)];
    let factor = v.splat(0.125);
    for (x, to) in [v.add(a, c), v.add(b, d), v.sub(a, c), v.sub(b, d)].into_iter().zip(vectors) {
        v.store(v.mul(x, factor), to);
    }
}
