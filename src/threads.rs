//! Running a forward pass on several threads.
//!
//! A forward pass is a list of **phases**. Within a phase every [`Worker`] computes its own share of the
//! outputs; before the next phase starts, all workers have finished this one and see what the others
//! wrote. [`Executor::run_phases`] runs such a list on one of:
//!
//! - the caller's thread alone;
//! - a [`Team`], our own persistent threads: woken once per pass, not once per phase;
//! - a host's thread pool behind a [`HostTeam`], called once per phase.
//!
//! A worker is a role, not a thread: one thread may play several, one after another, and other ones in
//! the next phase. So a worker must never wait for another one.
//!
//! The number of workers may differ from pass to pass (a busy team leaves the pass to its caller), so
//! results must not depend on it: shares divide outputs, never a reduction.
//!
//! ```
//! use cerebellum::threads::{Executor, Team};
//! use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
//!
//! let squares: Vec<AtomicUsize> = (0..100).map(AtomicUsize::new).collect();
//! let total = AtomicUsize::new(0);
//! let executor = Executor::Team(Team::new(2)?);
//! executor.run_phases(2, &|phase, worker| match phase {
//!     0 => squares[worker.share(100)].iter().for_each(|x| x.store(x.load(Relaxed).pow(2), Relaxed)),
//!     _ if worker.index() == 0 => total.store(squares.iter().map(|x| x.load(Relaxed)).sum(), Relaxed),
//!     _ => {}
//! });
//! assert_eq!(total.into_inner(), 328_350);
//! # Ok::<(), cerebellum::threads::TeamError>(())
//! ```
//!
//! The hand-off from phase to phase is checked by the model checker [loom], which tries the
//! interleavings, up to a bound, and the values that the memory model lets each load return:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release --lib threads::model
//! ```
//!
//! [loom]: https://docs.rs/loom

mod board;
mod host;
#[cfg(all(loom, test))]
mod model;
mod panics;
mod sync;
mod team;

pub use host::{HostPool, HostTeam};
pub use team::{Team, TeamError};

use crate::fp_env::FpEnv;
use std::ops::Range;

/// The most workers that share a pass. Decoding is limited by memory bandwidth long before.
pub const MAX_WORKERS: usize = 64;

/// What [`Executor::run_phases`] calls: the phase's number, and which share of it to compute.
pub type PhaseFn<'a> = dyn Fn(usize, &Worker) + Sync + 'a;

/// Where the phases of a forward pass run.
#[derive(Debug)]
pub enum Executor {
    /// On the caller's thread.
    Caller,
    /// On threads of our own.
    Team(Team),
    /// On the host's.
    Host(HostTeam),
}

impl Executor {
    /// The most workers a pass may have, at least 1: scratch space that is chosen by
    /// [`Worker::index`] is needed so many times. Never changes.
    pub fn workers(&self) -> usize {
        match self {
            Self::Caller => 1,
            Self::Team(team) => team.workers(),
            Self::Host(team) => team.workers(),
        }
    }

    /// Calls `f(phase, worker)` once for every phase in `0..phases` and every worker.
    ///
    /// All calls of one phase return before any call of the next is made, and what they wrote is
    /// visible to it. Workers have distinct indices below a count that is the same in all phases.
    /// Each call finds the default floating-point environment ([`FpEnv`]).
    ///
    /// May be called from several threads at once, and from inside `f`.
    ///
    /// # Panics
    /// If `f` panics, in any worker: phases not yet started are left out, and the first panic goes on
    /// in the caller. The executor stays usable. Also if a host's pool breaks [`HostPool`]'s contract.
    pub fn run_phases(&self, phases: usize, f: &PhaseFn<'_>) {
        match self {
            Self::Caller => run_alone(phases, f),
            Self::Team(team) => team.run_phases(phases, f),
            Self::Host(team) => team.run_phases(phases, f),
        }
    }
}

fn run_alone(phases: usize, f: &PhaseFn<'_>) {
    let _env = FpEnv::set_default();
    for phase in 0..phases {
        f(phase, &Worker { index: 0, count: 1 });
    }
}

/// One of the workers of a phase: who it is, and so which share of the work is its own.
///
/// A role that some thread plays; see the [module's documentation](self).
/// Only an [`Executor`] makes these, and no two with the same index for one phase. Code may rely on
/// that to write disjoint shares of a buffer.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    count: usize,
}

impl Worker {
    /// This worker, in `0..count`. Index 0 exists always.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many workers share this phase, at least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// This worker's part of `0..n`.
    ///
    /// The parts are contiguous, ascend with the index, cover `0..n` and differ in length by at most
    /// one: with n = q * count + r, the first r workers get q + 1 items and the others q.
    pub fn share(&self, n: usize) -> Range<usize> {
        let (quotient, remainder) = (n / self.count, n % self.count);
        let start = self.index * quotient + self.index.min(remainder);
        start..start + quotient + usize::from(self.index < remainder)
    }

    /// As [`share`](Self::share), but cut only at multiples of `multiple`: what is shared are the
    /// blocks of so many items, the last of which may be shorter.
    ///
    /// # Panics
    /// If `multiple` is 0.
    pub fn share_aligned(&self, n: usize, multiple: usize) -> Range<usize> {
        let blocks = self.share(n.div_ceil(multiple));
        // Only the last block's end can pass n, and so, near usize::MAX, overflow.
        (blocks.start * multiple).min(n)..blocks.end.saturating_mul(multiple).min(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_cover_all_in_order(n in 0..5000_usize, multiple in 1..200_usize, count in 1..=MAX_WORKERS) {
            let mut next = 0;
            for index in 0..count {
                let share = Worker { index, count }.share_aligned(n, multiple);
                prop_assert_eq!(share.start, next);
                prop_assert!(share.end == n || share.end.is_multiple_of(multiple));
                next = share.end;
            }
            prop_assert_eq!(next, n);
        }

        #[test]
        fn shares_differ_by_at_most_one(n in any::<usize>(), count in 1..=MAX_WORKERS) {
            let lengths = (0..count).map(|index| Worker { index, count }.share(n).len());
            let (least, most) = (lengths.clone().min().unwrap(), lengths.clone().max().unwrap());
            prop_assert!(most - least <= 1);
            prop_assert_eq!(lengths.sum::<usize>(), n);
        }
    }

    #[test]
    fn huge_share_does_not_overflow() {
        let share = Worker { index: 1, count: 2 }.share_aligned(usize::MAX, 16);
        assert_eq!(share, 1 << (usize::BITS - 1)..usize::MAX);
    }
}
