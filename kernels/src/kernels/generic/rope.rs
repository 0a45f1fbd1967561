//! Rotary positions (Su et al., 2021; `docs/numbers.md` section 12).

use crate::kernels::vector::{LANES, Vector};

/// Rotates the pairs `(i, i + n)` of a head, `n` the number of angles.
#[inline(always)]
pub(in crate::kernels) fn rotate<V: Vector>(v: V, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    let (firsts, tail_first) = first.as_chunks_mut::<LANES>();
    let (seconds, tail_second) = second[..cos.len()].as_chunks_mut::<LANES>();
    let (coss, tail_cos) = cos.as_chunks::<LANES>();
    let (sins, tail_sin) = sin.as_chunks::<LANES>();
    for (((a, b), cos), sin) in firsts.iter_mut().zip(seconds).zip(coss).zip(sins) {
        let (x, y, cos, sin) = (v.load(a), v.load(b), v.load(cos), v.load(sin));
        v.store(v.fma(x, cos, v.neg(v.mul(y, sin))), a);
        v.store(v.fma(y, cos, v.mul(x, sin)), b);
    }
    let (x, y) = (v.load_part(tail_first), v.load_part(tail_second));
    let (cos, sin) = (v.load_part(tail_cos), v.load_part(tail_sin));
    v.store_part(v.fma(x, cos, v.neg(v.mul(y, sin))), tail_first);
    v.store_part(v.fma(y, cos, v.mul(x, sin)), tail_second);
}
