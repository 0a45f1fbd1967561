//! Runs the phases on a thread pool of the host's.

use alloc::boxed::Box;
use core::fmt::Debug;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::panics::FirstPanic;
use super::sync::{AtomicBool, AtomicUsize};
use super::worker::{Claimed, MAX_WORKERS, PhaseFn, Worker};
use crate::fp_env::FpEnv;

/// A thread pool that belongs to the host program.
///
/// With [rayon](https://docs.rs/rayon): `pool.install(|| (0..tasks).into_par_iter().for_each(task))`.
pub trait HostPool: Debug + Send + Sync {
    /// How many tasks can run at a time. Asked once; brought into `1..=MAX_WORKERS`.
    fn workers(&self) -> usize;

    /// Calls `task(i)` exactly once for each `i` in `0..tasks`, on any thread, in any order, at the
    /// same time or one after another, and returns when all these calls have returned.
    ///
    /// This is checked: a task missing or run twice panics in `run_phases`. `task` never unwinds.
    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// Runs phases on a [`HostPool`], with one call of it per phase.
#[derive(Debug)]
pub struct HostTeam {
    pool: Box<dyn HostPool>,
    workers: usize,
}

impl HostTeam {
    /// Takes over the host's handle to its pool.
    pub fn new(pool: Box<dyn HostPool>) -> Self {
        let workers = pool.workers().clamp(1, MAX_WORKERS);
        Self { pool, workers }
    }

    /// The number of workers of every pass.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// See [`Executor::run_phases`](super::Executor::run_phases).
    ///
    /// # Panics
    /// If `f` does, or if the pool breaks [`HostPool`]'s contract.
    pub fn run_phases(&self, phases: usize, f: &PhaseFn<'_>) {
        let panic = FirstPanic::new();
        for phase in 0..phases {
            let finished = self.run_phase(phase, f, &panic);
            if panic.happened() {
                break;
            }
            let count = self.workers;
            assert!(
                finished == count,
                "host pool ran {finished} of {count} tasks: fix its for_each"
            );
        }
        panic.resume();
    }

    /// Returns the number of tasks that were finished.
    fn run_phase(&self, phase: usize, f: &PhaseFn<'_>, panic: &FirstPanic) -> usize {
        let count = self.workers;
        let tasks = Tasks::new(count);
        let claimed: [Claimed; MAX_WORKERS] = core::array::from_fn(|_| Claimed::new());
        self.pool.for_each(count, &|index| {
            panic.catch(|| {
                let _env = FpEnv::set_default();
                tasks.start(index);
                f(phase, &Worker::new(index, &claimed[..count]));
                tasks.finish();
            });
        });
        tasks.finished()
    }
}

/// The tasks of one phase. Memory safety of a phase rests on every worker being there once, so a
/// foreign pool is not taken at its word.
struct Tasks {
    count: usize,
    started: [AtomicBool; MAX_WORKERS],
    finished: AtomicUsize,
}

impl Tasks {
    fn new(count: usize) -> Self {
        let started = core::array::from_fn(|_| AtomicBool::new(false));
        Self { count, started, finished: AtomicUsize::new(0) }
    }

    fn start(&self, index: usize) {
        let count = self.count;
        assert!(index < count, "host pool ran task {index} of {count}: fix its for_each");
        let before = self.started[index].swap(true, Relaxed);
        assert!(!before, "host pool ran task {index} twice: fix its for_each");
    }

    /// Release: with the Acquire in `finished`, a phase's writes are visible to the next one even if
    /// the host's pool does not order them.
    fn finish(&self) {
        self.finished.fetch_add(1, Release);
    }

    fn finished(&self) -> usize {
        self.finished.load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Executor;
    use super::*;
    use rayon::prelude::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    /// A pool made of what it does with the tasks; it claims to have three threads.
    struct Pool(fn(usize, &(dyn Fn(usize) + Sync)));

    impl Debug for Pool {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Pool")
        }
    }

    impl HostPool for Pool {
        fn workers(&self) -> usize {
            3
        }
        fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
            self.0(tasks, task);
        }
    }

    const RAYON: Pool = Pool(|tasks, task| (0..tasks).into_par_iter().for_each(task));
    const SERIAL: Pool = Pool(|tasks, task| (0..tasks).for_each(task));
    const BACKWARDS: Pool = Pool(|tasks, task| (0..tasks).rev().for_each(task));

    fn panic_message(pool: Pool, f: &PhaseFn<'_>) -> String {
        let executor = Executor::Host(HostTeam::new(Box::new(pool)));
        let run = || executor.run_phases(2, f);
        let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        payload.downcast_ref::<String>().cloned().unwrap()
    }

    #[test]
    fn phases_run_in_order_on_any_pool() {
        for pool in [RAYON, SERIAL, BACKWARDS] {
            let executor = Executor::Host(HostTeam::new(Box::new(pool)));
            assert_eq!(executor.workers(), 3);
            let calls = Mutex::new(Vec::new());
            executor.run_phases(4, &|phase, worker| {
                assert_eq!(worker.count(), 3);
                calls.lock().unwrap().push((phase, worker.index()));
            });
            let mut calls = calls.into_inner().unwrap();
            assert!(calls.is_sorted_by_key(|&(phase, _)| phase), "{calls:?}");
            calls.sort_unstable();
            assert!(calls.into_iter().eq((0..4).flat_map(|phase| (0..3).map(move |i| (phase, i)))));
        }
    }

    #[test]
    fn broken_pools_are_found_out() {
        let message = |pool| panic_message(Pool(pool), &|_, _| {});
        let fix = ": fix its for_each";
        assert_eq!(
            message(|tasks, task| (1..tasks).for_each(task)),
            format!("host pool ran 2 of 3 tasks{fix}")
        );
        assert_eq!(
            message(|tasks, task| (0..=tasks).for_each(task)),
            format!("host pool ran task 3 of 3{fix}")
        );
        assert_eq!(
            message(|tasks, task| (0..tasks).chain([1]).for_each(task)),
            format!("host pool ran task 1 twice{fix}")
        );
    }

    /// A C pool cannot be unwound through, so the panic must come out of `run_phases` instead.
    #[test]
    fn panic_goes_around_the_pool() {
        let pool = Pool(|tasks, task| {
            let unwound = (0..tasks).any(|i| catch_unwind(AssertUnwindSafe(|| task(i))).is_err());
            assert!(!unwound, "unwound through the pool");
        });
        let message = panic_message(pool, &|phase, worker| {
            assert!(phase == 0, "ran another phase");
            if worker.index() == 1 {
                std::panic::resume_unwind(Box::new("worker 1".to_owned()));
            }
        });
        assert_eq!(message, "worker 1");
    }

    #[derive(Debug)]
    struct Claims(usize);

    impl HostPool for Claims {
        fn workers(&self) -> usize {
            self.0
        }
        fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
            (0..tasks).for_each(task);
        }
    }

    #[test]
    fn claimed_size_is_clamped() {
        for (claimed, used) in [(0, 1), (MAX_WORKERS, MAX_WORKERS), (usize::MAX, MAX_WORKERS)] {
            let executor = Executor::Host(HostTeam::new(Box::new(Claims(claimed))));
            assert_eq!(executor.workers(), used);
            executor.run_phases(1, &|_, worker| assert_eq!(worker.count(), used));
        }
    }

    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    #[test]
    fn tasks_compute_in_the_default_fp_environment() {
        use crate::fp_env::hostile::{DEFAULT_BITS, sensitive_bits, with_hostile_setting};

        let executor = Executor::Host(HostTeam::new(Box::new(SERIAL)));
        let bits = Mutex::new(Vec::new());
        let kept = with_hostile_setting(|| {
            executor.run_phases(1, &|_, _| bits.lock().unwrap().push(sensitive_bits()));
        });
        assert_eq!(bits.into_inner().unwrap(), [DEFAULT_BITS; 3]);
        assert!(kept, "the host's setting was lost");
    }
}
