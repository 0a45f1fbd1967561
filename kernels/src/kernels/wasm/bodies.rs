//! The bodies of [`generic`] with WebAssembly's vectors.

use super::vector::{Keys, Lanes};
use crate::kernels::generic::attention::{Int8Scores, scores_int8};
use crate::kernels::generic::instantiate;

instantiate!(Lanes);

unsafe fn scores(job: &Int8Scores, scores: &mut [[f32; SEGMENT]]) {
    scores_int8(Keys, job, scores);
}

/// Attention of the job's queries.
///
/// # Safety
/// That of [`Kernels::attend`](crate::kernels::Kernels::attend), which has checked all lengths.
pub(super) unsafe fn attend(job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
    // SAFETY: the caller's promise.
    unsafe { attend_with(scores, job, scratch, out) }
}
