//! The bodies of [`generic`] with AVX2, FMA and F16C.

use super::vector::Avx2;
use crate::kernels::generic::attention::{Int8Scores, scores_int8};
use crate::kernels::generic::instantiate;

instantiate!(
    #[target_feature(enable = "avx2,fma,f16c")]
    Avx2
);

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scores(job: &Int8Scores, scores: &mut [[f32; SEGMENT]]) {
    // SAFETY: the caller's promise.
    scores_int8(unsafe { Avx2::new() }, job, scores);
}

/// Attention of the job's queries.
///
/// # Safety
/// That of [`Kernels::attend`](crate::kernels::Kernels::attend), which has checked all lengths.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn attend(job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
    // SAFETY: the caller's promise.
    unsafe { attend_with(scores, job, scratch, out) }
}
