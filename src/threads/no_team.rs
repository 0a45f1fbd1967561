//! Where there are no threads.

use super::error::TeamError;
use super::worker::{PhaseFn, run_alone};

/// The caller's thread: there is no other.
#[derive(Debug)]
pub struct Team(());

impl Team {
    /// # Errors
    /// [`TeamError::Count`] unless `threads` is 1.
    pub fn new(threads: usize) -> Result<Self, TeamError> {
        if threads == 1 { Ok(Self(())) } else { Err(TeamError::Count(threads)) }
    }

    /// 1.
    pub fn workers(&self) -> usize {
        1
    }

    /// See [`Executor::run_phases`](super::Executor::run_phases).
    pub fn run_phases(&self, phases: usize, f: &PhaseFn<'_>) {
        run_alone(phases, f);
    }

    /// See [`Executor::run_phases_meanwhile`](super::Executor::run_phases_meanwhile).
    pub fn run_phases_meanwhile(
        &self,
        phases: usize,
        f: &PhaseFn<'_>,
        meanwhile: &mut dyn FnMut(),
    ) {
        meanwhile();
        run_alone(phases, f);
    }
}
