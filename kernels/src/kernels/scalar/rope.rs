//! Rotary positions (Su et al., 2021; `docs/numbers.md` section 12).

use crate::float::fma;
use crate::math::angle::cos_sin;

/// Cosines and sines of a position's angles, times a factor.
#[inline(always)]
pub(in crate::kernels) fn angles(
    position: u32,
    inverse_frequencies: &[f64],
    factor: f64,
    (cos, sin): (&mut [f32], &mut [f32]),
) {
    for ((&f, cos), sin) in inverse_frequencies.iter().zip(cos).zip(sin) {
        (*cos, *sin) = cos_sin(position, f, factor);
    }
}

/// Rotates the pairs `(i, i + n)` of a head, `n` the number of angles.
#[inline(always)]
pub(super) fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        let (x, y) = (*a, *b);
        *a = fma(x, cos, -(y * sin));
        *b = fma(y, cos, x * sin);
    }
}
