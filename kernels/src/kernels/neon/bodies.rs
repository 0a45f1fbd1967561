//! The bodies of [`generic`] with NEON. They are compiled once: the three levels differ only in the dot
//! products of int8 attention.

use super::dot::Level;
use super::vector::{Dots, Lanes};
use crate::kernels::generic::attention::{Int8Scores, scores_int8};
use crate::kernels::generic::instantiate;

instantiate!(Lanes);

unsafe fn scores<L: Level>(job: &Int8Scores, scores: &mut [[f32; SEGMENT]]) {
    // SAFETY: the caller's promise.
    scores_int8(unsafe { Dots::<L>::new() }, job, scores);
}

/// Attention of the job's queries.
///
/// # Safety
/// That of [`Kernels::attend`](crate::kernels::Kernels::attend), which has checked all lengths; the
/// processor supports `L`.
pub(super) unsafe fn attend<L: Level>(
    job: &Attention,
    scratch: &mut AttentionScratch,
    out: &CellWriter,
) {
    // SAFETY: the caller's promise.
    unsafe { attend_with(scores::<L>, job, scratch, out) }
}
