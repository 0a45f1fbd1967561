//! Sums of values, times their weights.

use core::ops::Range;

use super::outlined::Outlined;
use super::scores::Scores;
use crate::kernels::ahead::Ahead;
use crate::kernels::types::QUERY_BLOCK;
use crate::kernels::vector::{LANES, Vector};

/// Rows of a buffer `[queries][padded]` that weighted values go to.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Rows {
    pub(super) start: *mut f32,
    pub(super) size: usize,
    pub(super) padded: usize,
    /// Whether sums are there, to go on with.
    pub(super) begun: bool,
}

impl Rows {
    /// The vector of query `q` from dimension `d` on.
    ///
    /// # Safety
    /// The buffer has this query and vector, and nobody else uses it while the reference lives.
    #[inline(always)]
    unsafe fn vector<'a>(self, q: usize, d: usize) -> &'a mut [f32; LANES] {
        // SAFETY: the caller's promise; an array of floats needs no more than a float's alignment.
        unsafe { &mut *self.start.add(q * self.padded + d).cast() }
    }

    /// The rows from query `q` on.
    ///
    /// # Safety
    /// The buffer has this query.
    #[inline(always)]
    pub(super) unsafe fn from(self, q: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { start: unsafe { self.start.add(q * self.padded) }, ..self }
    }
}

/// Cached values of a segment.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Values<'a, T> {
    /// `[positions][head size]`.
    pub(super) rows: &'a [T],
    /// How far ahead they are fetched.
    pub(super) ahead: Ahead,
}

/// Sums the values of positions that all `Q` queries see, times their weights, into the rows at `to`.
///
/// # Safety
/// `to` has a padded row per query, which nobody else uses; the values have these positions, which are at
/// most [`SEGMENT`](crate::kernels::types::SEGMENT).
#[inline(always)]
pub(in crate::kernels) unsafe fn weighted_sums_over<V: Outlined, T: Value, const Q: usize>(
    v: V,
    values: Values<T>,
    weights: &[Scores],
    positions: Range<usize>,
    to: Rows,
) {
    let weights = weights.first_chunk::<Q>().expect("weights of a block");
    let most = V::VALUE_VECTORS[Q - 1];
    let vectors = to.size / LANES;
    let mut done = 0;
    while done < vectors {
        let (d, positions) = (done * LANES, positions.clone());
        // SAFETY: the caller's promise; so many vectors lie within a row.
        unsafe {
            done += match (vectors - done).min(most) {
                ..2 => weighted_sum_tile::<V, T, Q, 1>(v, values, weights, positions, d, to),
                // Where there are 5 at most, 8 vectors are 5 and 3.
                3 if most % 2 == 1 => {
                    weighted_sum_tile::<V, T, Q, 3>(v, values, weights, positions, d, to)
                }
                2..4 => weighted_sum_tile::<V, T, Q, 2>(v, values, weights, positions, d, to),
                4 => weighted_sum_tile::<V, T, Q, 4>(v, values, weights, positions, d, to),
                5..8 => weighted_sum_tile::<V, T, Q, 5>(v, values, weights, positions, d, to),
                _ => weighted_sum_tile::<V, T, Q, 8>(v, values, weights, positions, d, to),
            };
        }
    }
    if vectors * LANES < to.size {
        // SAFETY: the caller's promise; a padded row has a whole vector there.
        unsafe { v.weighted_sum_tail(values.rows, weights, positions, to) };
    }
}

/// The same for `R` vectors of dimensions from `d` on; returns `R`.
///
/// # Safety
/// That of [`weighted_sums_over`]; the values have these dimensions.
#[inline(always)]
unsafe fn weighted_sum_tile<V: Vector, T: Value, const Q: usize, const R: usize>(
    v: V,
    values: Values<T>,
    weights: &[Scores; Q],
    positions: Range<usize>,
    d: usize,
    to: Rows,
) -> usize {
    let mut sums = [[v.splat(0.0); R]; Q];
    // SAFETY: the caller's promise.
    unsafe {
        if to.begun {
            for (q, sums) in sums.iter_mut().enumerate() {
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = v.load(to.vector(q, d + r * LANES));
                }
            }
        }
        for j in positions {
            let row = values.rows.as_ptr().add(j * to.size + d).cast::<[T; LANES]>();
            values.ahead.fetch_row(
                row.cast(),
                size_of::<[[T; LANES]; R]>(),
                to.size * size_of::<T>(),
            );
            let mut value = [v.splat(0.0); R];
            for (r, value) in value.iter_mut().enumerate() {
                *value = T::load(v, &*row.add(r));
            }
            for (q, sums) in sums.iter_mut().enumerate() {
                let weight = v.splat(*weights.get_unchecked(q).get_unchecked(j));
                for (sum, &value) in sums.iter_mut().zip(&value) {
                    *sum = v.fma(weight, value, *sum);
                }
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            for (r, &sum) in sums.iter().enumerate() {
                v.store(sum, to.vector(q, d + r * LANES));
            }
        }
    }
    R
}

/// The same for the last dimensions of a head whose size is not whole vectors, for any number of queries.
///
/// # Safety
/// That of [`weighted_sums_over`].
#[inline(always)]
pub(in crate::kernels) unsafe fn weighted_sum_tail<V: Vector, T: Value>(
    v: V,
    values: &[T],
    weights: &[Scores],
    positions: Range<usize>,
    to: Rows,
) {
    let d = to.size / LANES * LANES;
    let left = to.size - d;
    let mut sums = [v.splat(0.0); QUERY_BLOCK];
    let sums = &mut sums[..weights.len()];
    if to.begun {
        for (q, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise; a padded row has a whole vector there.
            *sum = v.load(unsafe { to.vector(q, d) });
        }
    }
    for j in positions {
        let rest = &values[j * to.size + d..];
        // What follows in the next row goes into lanes that nobody wants; behind the last one there is nothing.
        let value = if let Some(whole) = rest.first_chunk() {
            T::load(v, whole)
        } else {
            let mut padded = [T::ZERO; LANES];
            padded[..left].copy_from_slice(&rest[..left]);
            T::load(v, &padded)
        };
        for (sum, weights) in sums.iter_mut().zip(weights) {
            *sum = v.fma(v.splat(weights[j]), value, *sum);
        }
    }
    for (q, &sum) in sums.iter().enumerate() {
        // SAFETY: as above.
        v.store(v.keep_first(left, sum), unsafe { to.vector(q, d) });
    }
}

/// How values are cached.
pub(in crate::kernels) trait Value: Copy {
    /// The value 0.
    const ZERO: Self;

    /// 16 of them as floats.
    fn load<V: Vector>(v: V, from: &[Self; LANES]) -> V::F32;
}

impl Value for u16 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load<V: Vector>(v: V, from: &[Self; LANES]) -> V::F32 {
        v.load_f16(from)
    }
}

impl Value for i8 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load<V: Vector>(v: V, from: &[Self; LANES]) -> V::F32 {
        v.load_i8(from)
    }
}
