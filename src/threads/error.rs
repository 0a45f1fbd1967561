//! What can go wrong with threads.

use super::worker::MAX_WORKERS;
use crate::io;

/// Why a team could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeamError {
    /// The number of threads asked for is out of range.
    #[error("cannot run on {0} threads: ask for 1 to {MAX_WORKERS}")]
    Count(usize),
    /// The system refused a thread.
    #[error("cannot start worker thread {index}: ask for at most {index} threads")]
    Spawn {
        /// Which one, counting from 1: so many threads, the caller's included, could be had.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused the thread on whose stack the forms of texts are prepared.
    #[error(
        "cannot start the thread whose stack this call needs: {source}; allow the process one more thread"
    )]
    DeepStack {
        /// What the system said.
        source: io::Error,
    },
}
