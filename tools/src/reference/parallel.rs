//! How the reference uses threads: over independent chunks of one buffer, or not at all.

use rayon::prelude::*;

/// Where work runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parallelism {
    /// On the calling thread.
    Serial,
    /// On the current rayon pool.
    #[default]
    Rayon,
}

impl Parallelism {
    /// The same choice for the `gemm` crates.
    pub(crate) fn gemm(self) -> gemm_common::Parallelism {
        match self {
            Self::Serial => gemm_common::Parallelism::None,
            Self::Rayon => gemm_common::Parallelism::Rayon(0),
        }
    }

    /// Calls `work(index, chunk)` for each chunk of `size` elements.
    pub(crate) fn for_each_chunk(
        self,
        values: &mut [f32],
        size: usize,
        work: impl Fn(usize, &mut [f32]) + Send + Sync,
    ) {
        match self {
            Self::Serial => values.chunks_mut(size).enumerate().for_each(|(i, c)| work(i, c)),
            Self::Rayon => values.par_chunks_mut(size).enumerate().for_each(|(i, c)| work(i, c)),
        }
    }
}
