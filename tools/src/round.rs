//! Rounding to integers, as the quantizer does and calibration foresees.

/// Rounds to the nearest integer, ties to even, for magnitudes below 2^22: where floats are spaced by
/// 1, the addition itself rounds. (`round_ties_even` is a library call on older processors.)
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    const SPACED_BY_ONE: f32 = 1.5 * (1 << 23) as f32;
    (x + SPACED_BY_ONE) - SPACED_BY_ONE
}
