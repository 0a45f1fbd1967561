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

mod board;
#[cfg(any(feature = "chat", feature = "constraints"))]
mod deep;
mod host;
#[cfg(all(loom, test))]
mod model;
mod panics;
mod spawn;
mod sync;
mod team;

#[cfg(any(feature = "chat", feature = "constraints"))]
pub(crate) use deep::on_deep_stack;
pub use host::{HostPool, HostTeam};
pub use team::{Team, TeamError};

use self::sync::AtomicUsize;
use crate::fp_env::FpEnv;
use crate::number::check_range;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The most workers that share a pass. Decoding is limited by memory bandwidth long before.
pub const MAX_WORKERS: usize = 64;

/// A worker's part of a phase is at least the total divided by this and by the number of workers, if it
/// is not a single item: claims cost something, too.
const MOST_CLAIMS: usize = 32;

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
    /// Each call finds the default floating-point environment ([`FpEnv`]).
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

fn run_alone(phases: usize, f: &PhaseFn<'_>) {
    let _env = FpEnv::set_default();
    for phase in 0..phases {
        f(phase, &Worker::new(0, 1, &AtomicUsize::new(0)));
    }
}

/// One of the workers of a phase: who it is, and so which share of the work is its own.
///
/// A role that some thread plays; see the [module's documentation](self).
/// Only an [`Executor`] makes these, and no two with the same index for one phase. Code may rely on
/// that to write disjoint shares of a buffer.
#[derive(Debug)]
pub struct Worker<'a> {
    index: usize,
    count: usize,
    /// How many items of the phase were claimed.
    claimed: &'a AtomicUsize,
}

impl<'a> Worker<'a> {
    /// `claimed` is 0 when the phase begins, and the same for all workers of it.
    fn new(index: usize, count: usize, claimed: &'a AtomicUsize) -> Self {
        Self { index, count, claimed }
    }

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

    /// Parts of `0..n`, one after another, until all of them are given out: to this worker as many as it
    /// has time for. So cores that are slow, or busy with something else, hold nobody up for long.
    ///
    /// The parts of all workers are disjoint and cover `0..n`. They are long at first, so that a worker
    /// mostly goes through its items in order, and short in the end. All workers of a phase must ask for
    /// the same `n`, and once; a phase in which they do not leaves items out.
    pub fn claims(&self, n: usize) -> impl Iterator<Item = Range<usize>> {
        let part = move |start: usize| match self.count {
            1 => n - start,
            count => ((n - start) / (2 * count)).max(n / (MOST_CLAIMS * count)).max(1),
        };
        let claim = move |start: usize| (start < n).then(|| (start + part(start)).min(n));
        std::iter::from_fn(move || {
            // Relaxed: a claim says only whose the items are; the phase orders what is done with them.
            let start = self.claimed.fetch_update(Relaxed, Relaxed, claim).ok()?;
            claim(start).map(|end| start..end)
        })
    }

    /// As [`share`](Self::share), but cut only at multiples of `multiple`: what is shared are the
    /// blocks of this many items, the last of which may be shorter.
    ///
    /// # Panics
    /// If `multiple` is 0.
    pub fn share_aligned(&self, n: usize, multiple: usize) -> Range<usize> {
        let blocks = self.share(n.div_ceil(multiple));
        // Only the last block's end can pass n, and so, near usize::MAX, overflow.
        (blocks.start * multiple).min(n)..blocks.end.saturating_mul(multiple).min(n)
    }
}

// Under loom these would be outside of its models.
#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;
    use std::sync::mpsc;

    fn worker(index: usize, count: usize) -> Worker<'static> {
        static UNUSED: AtomicUsize = AtomicUsize::new(0);
        Worker::new(index, count, &UNUSED)
    }

    proptest! {
        #[test]
        fn shares_cover_all_in_order(n in 0..5000_usize, multiple in 1..200_usize, count in 1..=MAX_WORKERS) {
            let mut next = 0;
            for index in 0..count {
                let share = worker(index, count).share_aligned(n, multiple);
                prop_assert_eq!(share.start, next);
                prop_assert!(share.end == n || share.end.is_multiple_of(multiple));
                next = share.end;
            }
            prop_assert_eq!(next, n);
        }

        #[test]
        fn shares_differ_by_at_most_one(n in any::<usize>(), count in 1..=MAX_WORKERS) {
            let lengths = (0..count).map(|index| worker(index, count).share(n).len());
            let (least, most) = (lengths.clone().min().unwrap(), lengths.clone().max().unwrap());
            prop_assert!(most - least <= 1);
            prop_assert_eq!(lengths.sum::<usize>(), n);
        }
    }

    proptest! {
        #[test]
        fn claims_cover_all_once(n in 0..5000_usize, count in 1..=MAX_WORKERS, order: u64) {
            let claimed = AtomicUsize::new(0);
            let workers: Vec<_> = (0..count).map(|i| Worker::new(i, count, &claimed)).collect();
            let mut claims: Vec<_> = workers.iter().map(|worker| worker.claims(n)).collect();
            let (mut parts, mut pick) = (Vec::new(), order);
            let anyone = std::iter::from_fn(|| {
                pick = pick.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 7;
                claims[pick as usize % count].next()
            });
            for part in anyone {
                prop_assert!(!part.is_empty());
                parts.push(part);
            }
            prop_assert!(claims.iter_mut().all(|claims| claims.next().is_none()));
            prop_assert!(parts.iter().cloned().flatten().eq(0..n));
            prop_assert!(parts.len() <= (MOST_CLAIMS + 8) * count, "{} parts", parts.len());
        }
    }

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

    #[test]
    fn huge_share_does_not_overflow() {
        let share = worker(1, 2).share_aligned(usize::MAX, 16);
        assert_eq!(share, 1 << (usize::BITS - 1)..usize::MAX);
    }
}
