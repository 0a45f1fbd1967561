//! What the compiler is to make functions of, and not inline.

use core::ops::Range;

use super::scores::{F16Scores, Scores};
use super::values::{Rows, Value, Values};
use crate::kernels::vector::Vector;

/// Bodies that are functions of their own on every instruction set: the compiler then gives the
/// registers to one number of queries alone. Only these, the innermost loops, are compiled for each number of
/// queries. `generic::instantiate` implements it.
pub(in crate::kernels) trait Outlined: Vector {
    /// [`scores_f16`](super::scores::scores_f16).
    ///
    /// # Safety
    /// The processor supports the instruction set.
    unsafe fn scores_f16<const Q: usize>(self, job: &F16Scores, scores: &mut [Scores]);

    /// [`weighted_sums_over`](super::values::weighted_sums_over).
    ///
    /// # Safety
    /// That of [`weighted_sums_over`](super::values::weighted_sums_over).
    unsafe fn weighted_sums_over<T: Value, const Q: usize>(
        self,
        values: Values<T>,
        weights: &[Scores],
        positions: Range<usize>,
        rows: Rows,
    );

    /// [`weighted_sum_tail`](super::values::weighted_sum_tail).
    ///
    /// # Safety
    /// That of [`weighted_sum_tail`](super::values::weighted_sum_tail).
    unsafe fn weighted_sum_tail<T: Value>(
        self,
        values: &[T],
        weights: &[Scores],
        positions: Range<usize>,
        rows: Rows,
    );
}

/// Calls a function that is compiled for each number of queries with the number `$count`, from 1 to 4 or
/// [`QUERY_BLOCK`].
macro_rules! for_queries {
    ($count:expr, $v:ident.$function:ident::<$($kind:ident,)? _>($($argument:expr),*)) => {
        match $count {
            1 => $v.$function::<$($kind,)? 1>($($argument),*),
            2 => $v.$function::<$($kind,)? 2>($($argument),*),
            3 => $v.$function::<$($kind,)? 3>($($argument),*),
            4 => $v.$function::<$($kind,)? 4>($($argument),*),
            _ => $v.$function::<$($kind,)? QUERY_BLOCK>($($argument),*),
        }
    };
}
pub(super) use for_queries;
