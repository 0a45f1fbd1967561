//! Running a forward pass on several threads.
//!
//! A forward pass is a list of **phases**. Within a phase every [`Worker`] computes its own share of the
//! outputs; before the next phase starts, all workers have finished this one and see what the others
//! wrote. [`Executor::run_phases`] runs such a list on one of:
//!
//! - the caller's thread alone;
//! - a [`Team`], our own persistent threads: woken once per pass, not once per phase;
//! - a host's thread pool, as a [`HostTeam`], called once per phase.
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
//! .ci/nightly loom
//! ```
//!
//! [loom]: https://docs.rs/loom

#[cfg(feature = "std")]
mod board;
#[cfg(any(feature = "chat", feature = "constraints"))]
mod deep;
mod error;
mod host;
#[cfg(all(model_checked, test))]
mod model;
#[cfg(not(feature = "std"))]
#[path = "threads/no_unwinding.rs"]
mod panics;
#[cfg(feature = "std")]
mod panics;
#[cfg(feature = "std")]
mod spawn;
mod sync;
#[cfg(not(feature = "std"))]
#[path = "threads/no_team.rs"]
mod team;
#[cfg(feature = "std")]
mod team;
mod worker;

use alloc::sync::Arc;

#[cfg(feature = "constraints")]
pub(crate) use deep::on_deep_stack;
#[cfg(feature = "chat")]
pub(crate) use deep::on_stack_of;
pub use error::TeamError;
pub use host::{HostPool, HostTeam};
pub use team::Team;
pub use worker::{MAX_WORKERS, PhaseFn, Worker};

use self::worker::run_alone;
use crate::number::check_range;

/// Where the passes of a session or a batch run.
pub(crate) enum Threads {
    Own(Executor),
    Shared(Arc<Executor>),
}

impl Threads {
    /// `count` workers of its own, the caller's thread among them.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) if `count` is not in 1..=[`MAX_WORKERS`];
    /// [`Error::Threads`](crate::Error::Threads).
    pub fn own(count: usize) -> crate::Result<Self> {
        check_range("threads", count, MAX_WORKERS)?;
        Ok(Self::Own(match count {
            1 => Executor::Caller,
            count => Executor::Team(Team::new(count)?),
        }))
    }

    pub fn executor(&self) -> &Executor {
        match self {
            Self::Own(executor) => executor,
            Self::Shared(executor) => executor,
        }
    }
}

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
    /// [`Worker::index`] is needed this many times. Never changes.
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
    /// Each call finds the default floating-point environment ([`FpEnv`](crate::fp_env::FpEnv)).
    ///
    /// May be called from several threads at once, and from inside `f`.
    ///
    /// # Panics
    /// If `f` panics, in any worker: phases not yet started are left out, and the first panic goes on
    /// in the caller. The executor stays usable. Also if a host's pool breaks [`HostPool`]'s contract.
    pub fn run_phases(&self, phases: usize, f: &PhaseFn<'_>) {
        self.run_phases_meanwhile(phases, f, &mut || ());
    }

    /// As [`run_phases`](Self::run_phases), calling `meanwhile` once on the caller's thread. A [`Team`]'s
    /// other threads begin with the phases meanwhile, and the caller joins them when it is back;
    /// otherwise `meanwhile` comes first.
    ///
    /// # Panics
    /// As `run_phases`, and if `meanwhile` does.
    pub fn run_phases_meanwhile(
        &self,
        phases: usize,
        f: &PhaseFn<'_>,
        meanwhile: &mut dyn FnMut(),
    ) {
        match self {
            Self::Team(team) => team.run_phases_meanwhile(phases, f, meanwhile),
            Self::Caller => {
                meanwhile();
                run_alone(phases, f);
            }
            Self::Host(team) => {
                meanwhile();
                team.run_phases(phases, f);
            }
        }
    }
}

// Under loom these would be outside of its models.
#[cfg(all(test, not(model_checked)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::{Mutex, mpsc};

    /// A worker that does not come back from its first part holds up nobody with the rest.
    #[test]
    fn slow_worker_leaves_the_rest_to_the_others() {
        const ITEMS: usize = 192;
        let team = Executor::Team(Team::new(2).unwrap());
        for phases in [1, 3] {
            // The first to claim is the slow one, until the other has claimed all that is left.
            let (done, is_done) = mpsc::channel();
            let is_done = Mutex::new(is_done);
            let parts = Mutex::new(Vec::new());
            let is_slow = AtomicUsize::new(0);
            team.run_phases(phases, &|phase, worker| {
                let mut claims = worker.claims(ITEMS);
                let Some(first) = claims.next() else { panic!("no part for a worker") };
                if is_slow.fetch_max(phase + 1, Relaxed) == phase {
                    parts.lock().unwrap().push((phase, true, first));
                    is_done.lock().unwrap().recv().unwrap();
                    assert!(claims.next().is_none());
                    return;
                }
                for part in std::iter::once(first).chain(claims) {
                    parts.lock().unwrap().push((phase, false, part));
                }
                done.send(()).unwrap();
            });
            let parts = parts.into_inner().unwrap();
            for phase in 0..phases {
                let items = |slow: bool| -> usize {
                    let of = parts.iter().filter(|&&(p, s, _)| (p, s) == (phase, slow));
                    of.map(|(_, _, part)| part.len()).sum()
                };
                assert_eq!(items(true) + items(false), ITEMS);
                assert!(items(true) <= ITEMS / 4, "the slow worker kept {}", items(true));
            }
        }
    }
}
