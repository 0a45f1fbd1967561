//! What the compiler is to make functions of, and not inline.

use std::ops::Range;

use super::queries::Queries;
use super::scores::Scores;
use super::values::{Rows, Value};
use crate::kernels::types::AttentionScratch;
use crate::kernels::vector::Vector;

/// Bodies that are functions of their own on every instruction set: the compiler then gives the
/// registers to one number of queries alone. `generic::instantiate` implements it.
pub(in crate::kernels) trait Outlined: Vector {
    /// [`segment`](super::segment::segment).
    ///
    /// # Safety
    /// That of [`segment`](super::segment::segment).
    unsafe fn segment<const Q: usize>(
        self,
        queries: &mut Queries,
        scratch: &mut AttentionScratch,
        first: usize,
    );

    /// [`weighted_sums_over`](super::values::weighted_sums_over).
    ///
    /// # Safety
    /// That of [`weighted_sums_over`](super::values::weighted_sums_over).
    unsafe fn weighted_sums_over<T: Value, const Q: usize>(
        self,
        values: &[T],
        weights: &[Scores; Q],
        positions: Range<usize>,
        rows: Rows,
    );
}
