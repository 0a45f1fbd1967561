//! A persistent team of threads for passes that take a few milliseconds and hundreds of phases.
//!
//! The caller and the threads of the team do the same: claim a share of the open phase, compute it,
//! claim the next. Who finishes the last share of a phase opens the next one. So a phase ends when its
//! shares are done, not when all threads have come: a thread that the system has put to sleep, or
//! given no core, holds nobody up, and the caller alone gets through a pass if nobody helps.

use super::board::{Board, Patience, State};
use super::error::TeamError;
use super::panics::FirstPanic;
use super::spawn::{Life, STACK_SIZE, Thread, spawn};
use super::sync::{AtomicBool, AtomicPtr, AtomicUsize};
use super::worker::{Claimed, MAX_WORKERS, PhaseFn, Worker, run_alone};
use crate::fp_env::FpEnv;
use crate::memory::try_box;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

/// A sleeper takes tens of microseconds to wake, so it pays to stay awake about as long; more would
/// cost an idle device its battery. Yielding early lets other programs, or a surplus of our own
/// threads, have the core.
const PATIENCE: Patience =
    Patience { spin: Duration::from_micros(5), yielding: Duration::from_micros(50) };

/// A team of worker threads. Dropping it ends and joins them.
///
/// It serves one pass at a time. When it is busy with another thread's pass, when called from inside a
/// pass, or in a forked child process, where its threads do not exist, the pass runs on the caller's
/// thread alone. In a forked child the drop leaks its memory, for the threads cannot be joined.
///
/// A run allocates nothing and makes no system call but `getpid` and what it takes to wake sleepers.
#[derive(Debug)]
pub struct Team {
    /// `None`: a team of one.
    threads: Option<Threads>,
}

impl Team {
    /// Starts a team of `threads` workers: the caller and `threads - 1` threads of its own, named
    /// `cerebellum-1` and so on.
    ///
    /// # Errors
    /// [`TeamError::Count`] unless `threads` is in `1..=MAX_WORKERS`; [`TeamError::Spawn`] if the
    /// system refuses a thread, after the ones already started have ended.
    pub fn new(threads: usize) -> Result<Self, TeamError> {
        // SAFETY: `Threads` keeps what the threads share until they have ended.
        Self::start(threads, |index, shared| unsafe { spawn(index, shared, STACK_SIZE) })
    }

    fn start(
        threads: usize,
        mut spawn: impl FnMut(usize, *const Shared) -> io::Result<Thread>,
    ) -> Result<Self, TeamError> {
        if !(1..=MAX_WORKERS).contains(&threads) {
            return Err(TeamError::Count(threads));
        }
        if threads == 1 {
            return Ok(Self { threads: None });
        }
        let fail = |index| move |source| TeamError::Spawn { index, source };
        let mut team = Threads::none(threads).map_err(fail(1))?;
        for index in 1..threads {
            let handle = spawn(index, team.shared.as_ptr()).map_err(fail(index))?;
            team.handles.push(handle);
        }
        Ok(Self { threads: Some(team) })
    }

    /// The number of workers of a pass that does not find the team busy.
    pub fn workers(&self) -> usize {
        self.threads.as_ref().map_or(1, |team| team.shared().claimed.len())
    }

    /// See [`Executor::run_phases`](super::Executor::run_phases).
    ///
    /// # Panics
    /// If `f` does; the team stays usable. With `panic = "abort"` the process ends, as ever.
    pub fn run_phases(&self, phases: usize, f: &PhaseFn<'_>) {
        self.run_phases_meanwhile(phases, f, &mut || ());
    }

    /// See [`Executor::run_phases_meanwhile`](super::Executor::run_phases_meanwhile).
    ///
    /// # Panics
    /// As `run_phases`, and if `meanwhile` does.
    pub fn run_phases_meanwhile(
        &self,
        phases: usize,
        f: &PhaseFn<'_>,
        meanwhile: &mut dyn FnMut(),
    ) {
        let ran = self.threads.as_ref().is_some_and(|team| team.try_run(phases, f, meanwhile));
        if !ran {
            meanwhile();
            run_alone(phases, f);
        }
    }
}

#[derive(Debug)]
struct Threads {
    /// A box of ours that the threads read; not a `Box`, which would claim to be its only user.
    shared: NonNull<Shared>,
    handles: Vec<Thread>,
    /// Set during a run.
    busy: AtomicBool,
    /// The process the threads live in. (A child in a new PID namespace could in theory get its
    /// parent's number; nothing cheaper tells them apart.)
    process: u32,
}

// SAFETY: what `shared` points to is `Sync` and owned like a box; the rest is `Send` and `Sync` itself.
unsafe impl Send for Threads {}
// SAFETY: as above.
unsafe impl Sync for Threads {}

const _: () = {
    const fn assert_sync<T: Sync>() {}
    assert_sync::<Shared>();
};

impl Threads {
    fn none(workers: usize) -> io::Result<Self> {
        let memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let mut handles = Vec::new();
        handles.try_reserve_exact(workers - 1).map_err(|_| memory())?;
        let mut claimed = Vec::new();
        claimed.try_reserve_exact(workers).map_err(|_| memory())?;
        claimed.extend((0..workers).map(|_| Claimed::new()));
        let shared = try_box(Shared::new(claimed)).map_err(|_| memory())?;
        Ok(Self {
            shared: NonNull::from(Box::leak(shared)),
            handles,
            busy: AtomicBool::new(false),
            process: process(),
        })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: only the drop frees it.
        unsafe { self.shared.as_ref() }
    }

    fn in_forked_child(&self) -> bool {
        self.process != process()
    }

    /// Runs the phases with all workers, and `meanwhile`, and returns true; or does nothing and returns
    /// false if they cannot be had.
    fn try_run(&self, phases: usize, f: &PhaseFn<'_>, meanwhile: &mut dyn FnMut()) -> bool {
        if phases == 0 || self.in_forked_child() || self.busy.swap(true, Acquire) {
            return false;
        }
        let run = Run { f, phases, phase: AtomicUsize::new(0), panic: FirstPanic::new() };
        self.shared().lead(&run, meanwhile);
        // Release: pairs with the Acquire above, so that runs follow one another.
        self.busy.store(false, Release);
        run.panic.resume();
        true
    }
}

/// This process's number. A browser has neither numbers nor forks.
fn process() -> u32 {
    if cfg!(target_family = "wasm") { 0 } else { std::process::id() }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let handles = std::mem::take(&mut self.handles);
        if self.in_forked_child() {
            // Detaching threads that are not there, or destroying a lock one of them held, is
            // undefined in C libraries. So all of it is leaked.
            std::mem::forget(handles);
            return;
        }
        self.shared().board.dismiss();
        handles.into_iter().for_each(Thread::join);
        // SAFETY: it came from a box, the threads have ended, and nobody else has the pointer.
        drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
    }
}

/// One run. It lives on its caller's stack.
struct Run<'a> {
    f: &'a PhaseFn<'a>,
    phases: usize,
    /// The open phase.
    phase: AtomicUsize,
    panic: FirstPanic,
}

/// Threads share a `Run` through a pointer, which checks nothing: so check it here.
const _: () = {
    const fn assert_sync<T: Sync>() {}
    assert_sync::<Run<'_>>();
};

/// What the threads of a team have in common.
struct Shared {
    /// Of each worker's share of the open phase.
    claimed: Vec<Claimed>,
    board: Board,
    /// The run that was started last; its lifetime is erased, see `work`.
    run: AtomicPtr<Run<'static>>,
}

impl Shared {
    fn new(claimed: Vec<Claimed>) -> Self {
        Self { claimed, board: Board::new(), run: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The caller's side of a run of at least one phase. Does not unwind, and returns only when the
    /// board says that the run has ended.
    fn lead(&self, run: &Run<'_>, meanwhile: &mut dyn FnMut()) {
        let _env = FpEnv::set_default();
        self.run.store(ptr::from_ref(run).cast_mut().cast(), Relaxed);
        self.open();
        // The others claim the caller's shares, too, as long as it does not come.
        run.panic.catch(&mut *meanwhile);
        let work_or_end = |state: State| state.unclaimed() > 0 || !state.is_running();
        while self.board.wait(work_or_end, PATIENCE).is_running() {
            self.work();
        }
    }

    /// Opens a phase of which nothing is claimed.
    fn open(&self) {
        self.claimed.iter().for_each(Claimed::reset);
        self.board.open(self.claimed.len());
    }

    fn serve(&self) {
        let _env = FpEnv::set_default();
        let work_or_leave = |state: State| state.unclaimed() > 0 || state.is_dismissed();
        while !self.board.wait(work_or_leave, PATIENCE).is_dismissed() {
            self.work();
        }
    }

    /// Computes shares while there are any.
    fn work(&self) {
        while let Some(unclaimed) = self.board.claim() {
            // Relaxed: the claim orders it after the store that came before the run's first phase.
            let run = self.run.load(Relaxed);
            // SAFETY: `run` points to the `Run` that `lead` borrows until it returns (it does not
            // unwind). It returns after `end`, which comes from the thread that finished the last
            // share of a phase. This thread holds a share that it has not finished, so that is yet to
            // come, and cannot come before `finish` below. After that only the last one, which alone
            // can `end` the run, uses the reference again, and not after `end`. `finish`, `end` and
            // `wait` release and acquire, so all these uses happen before the borrow ends. `Run` is
            // `Sync`; the lifetimes inside it outlive the borrow.
            let run: &Run<'_> = unsafe { &*run };
            let phase = run.phase.load(Relaxed);
            let worker = Worker::new(self.claimed.len() - unclaimed, &self.claimed);
            run.panic.catch(|| (run.f)(phase, &worker));
            if !self.board.finish() {
                continue;
            }
            // The next phase, or the end: at once after a panic. Not in a function that takes `run`: a
            // reference in an argument must outlive the call, and once `open` or `end` is called the
            // others may bring the run to its end, and the caller frees it.
            let next = phase + 1;
            if next < run.phases && !run.panic.happened() {
                // Relaxed: they are read after a claim of what is opened next.
                run.phase.store(next, Relaxed);
                self.open();
            } else {
                self.board.end();
            }
        }
    }
}

impl Life for Shared {
    fn live(&self) {
        self.serve();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("workers", &self.claimed.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Barrier, Mutex, mpsc};
    use std::thread::{self, ThreadId};

    /// Team sizes below, at and above this machine's number of cores, whichever that is.
    const SIZES: [usize; 4] = [1, 2, 3, 8];

    /// A life in a team with something before and after it. Declare it before the team.
    struct Hooked {
        shared: AtomicPtr<Shared>,
        before: Box<dyn Fn() + Sync>,
        after: Box<dyn Fn() + Sync>,
    }

    impl Hooked {
        fn new(before: impl Fn() + Sync + 'static, after: impl Fn() + Sync + 'static) -> Self {
            let shared = AtomicPtr::new(ptr::null_mut());
            Self { shared, before: Box::new(before), after: Box::new(after) }
        }

        fn spawn(&self, index: usize, shared: *const Shared) -> io::Result<Thread> {
            self.shared.store(shared.cast_mut(), SeqCst);
            // SAFETY: the team, which is dropped first, waits for its threads.
            unsafe { spawn(index, self, STACK_SIZE) }
        }
    }

    impl Life for Hooked {
        fn live(&self) {
            (self.before)();
            // SAFETY: the team keeps it until its threads have ended.
            unsafe { &*self.shared.load(SeqCst) }.live();
            (self.after)();
        }
    }

    #[test]
    fn the_caller_does_something_else_while_the_others_run_the_phases() {
        for size in SIZES {
            let team = Team::new(size).unwrap();
            let (phases, calls) = (3, AtomicUsize::new(0));
            let (sender, receiver) = mpsc::channel();
            let mut calls_meanwhile = 0;
            team.run_phases_meanwhile(
                phases,
                &|_, _| {
                    if calls.fetch_add(1, SeqCst) + 1 == phases * size {
                        sender.send(()).unwrap();
                    }
                },
                &mut || {
                    calls_meanwhile += 1;
                    // All shares are computed before the caller is back, unless it is alone.
                    if size > 1 {
                        receiver.recv().unwrap();
                    }
                },
            );
            assert_eq!((calls.into_inner(), calls_meanwhile), (phases * size, 1));
            let panics = || team.run_phases_meanwhile(2, &|_, _| (), &mut || panic!("meanwhile"));
            let payload = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"meanwhile"));
            team.run_phases(1, &|_, worker| assert_eq!(worker.count(), size));
        }
    }

    #[test]
    fn every_worker_runs_every_phase_once() {
        for size in SIZES {
            let team = Team::new(size).unwrap();
            let calls = Mutex::new(Vec::new());
            team.run_phases(5, &|phase, worker| {
                assert_eq!(worker.count(), size);
                calls.lock().unwrap().push((phase, worker.index()));
            });
            let mut calls = calls.into_inner().unwrap();
            assert!(calls.is_sorted_by_key(|&(phase, _)| phase), "{size} workers: {calls:?}");
            calls.sort_unstable();
            let all = (0..5).flat_map(|phase| (0..size).map(move |index| (phase, index)));
            assert!(calls.into_iter().eq(all), "{size} workers");
        }
    }

    /// Each share waits for all the others, so that every thread gets exactly one.
    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn shares_run_at_the_same_time_on_the_caller_and_named_threads() {
        let team = Team::new(3).unwrap();
        let all = Barrier::new(3);
        let names = Mutex::new(Vec::new());
        let caller = thread::current().id();
        team.run_phases(1, &|_, _| {
            all.wait();
            if thread::current().id() != caller {
                let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
                names.lock().unwrap().push(name);
            }
        });
        let mut names = names.into_inner().unwrap();
        names.sort_unstable();
        assert_eq!(names, ["cerebellum-1\n", "cerebellum-2\n"]);
    }

    /// A thread that does not come, here because it has not begun to serve, holds nobody up.
    #[test]
    fn caller_does_the_shares_of_absent_threads() {
        let (let_serve, may_serve) = mpsc::channel();
        let may_serve = Mutex::new(may_serve);
        let life = Hooked::new(move || may_serve.lock().unwrap().recv().unwrap(), || {});
        let team = Team::start(2, |index, shared| life.spawn(index, shared));
        let (team, seen) = (team.unwrap(), Mutex::new(Vec::new()));
        team.run_phases(3, &record_thread(&seen));
        assert_eq!(seen.into_inner().unwrap(), [(thread::current().id(), 2); 6]);
        let_serve.send(()).unwrap();
    }

    /// A worker reads, in every phase, what all others wrote in the phase before.
    #[test]
    fn phases_see_all_of_the_phase_before() {
        const PHASES: usize = if cfg!(miri) { 10 } else { 2000 };
        for size in SIZES {
            let team = Team::new(size).unwrap();
            let written: Vec<AtomicUsize> = (0..size).map(|_| AtomicUsize::new(0)).collect();
            team.run_phases(2 * PHASES, &|phase, worker| {
                let round = phase / 2;
                // So that no thread gets through all shares before another one comes.
                thread::yield_now();
                if phase % 2 == 0 {
                    assert_eq!(written[worker.index()].swap(round + 1, Relaxed), round);
                } else {
                    assert!(written.iter().all(|w| w.load(Relaxed) == round + 1), "{size} workers");
                }
            });
        }
    }

    #[test]
    fn hundred_thousand_runs() {
        const RUNS: usize = if cfg!(miri) { 20 } else { 100_000 };
        for size in SIZES {
            let team = Team::new(size).unwrap();
            let calls = AtomicUsize::new(0);
            for _ in 0..RUNS {
                team.run_phases(size, &|_, _| _ = calls.fetch_add(1, Relaxed));
            }
            assert_eq!(calls.into_inner(), RUNS * size * size);
        }
    }

    /// Pauses longer than the threads stay awake: they must wake up, the caller too.
    #[test]
    fn sleepers_wake() {
        let pause = 4 * (PATIENCE.spin + PATIENCE.yielding);
        let team = Team::new(3).unwrap();
        let all = Barrier::new(3);
        for _ in 0..if cfg!(miri) { 2 } else { 20 } {
            thread::sleep(pause);
            team.run_phases(3, &|phase, worker| {
                all.wait();
                if phase == worker.index() {
                    thread::sleep(pause);
                }
            });
        }
    }

    #[test]
    fn no_phases_is_no_work() {
        Team::new(2).unwrap().run_phases(0, &|_, _| panic!("called"));
    }

    #[test]
    fn panic_of_any_worker_reaches_the_caller_and_the_team_goes_on() {
        for size in SIZES {
            let team = Team::new(size).unwrap();
            let all = Barrier::new(size);
            for culprit in 0..size {
                let last = AtomicUsize::new(0);
                let run = || {
                    team.run_phases(4, &|phase, worker| {
                        last.fetch_max(phase, SeqCst);
                        all.wait();
                        if phase == 1 && worker.index() == culprit {
                            std::panic::resume_unwind(Box::new(culprit));
                        }
                    });
                };
                let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
                assert_eq!(payload.downcast_ref(), Some(&culprit));
                assert_eq!(last.load(SeqCst), 1, "a phase ran after the panic");

                let calls = AtomicUsize::new(0);
                team.run_phases(1, &|_, _| _ = calls.fetch_add(1, SeqCst));
                assert_eq!(calls.into_inner(), size);
            }
        }
    }

    #[test]
    fn all_workers_may_panic_at_once() {
        let team = Team::new(8).unwrap();
        for _ in 0..if cfg!(miri) { 3 } else { 100 } {
            let run = || team.run_phases(2, &|_, _| std::panic::resume_unwind(Box::new(7)));
            let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&7));
        }
    }

    fn record_thread(seen: &Mutex<Vec<(ThreadId, usize)>>) -> impl Fn(usize, &Worker) + Sync {
        |_, worker| seen.lock().unwrap().push((thread::current().id(), worker.count()))
    }

    #[test]
    fn busy_team_leaves_the_pass_to_its_caller() {
        let team = Team::new(2).unwrap();
        let (inside, is_inside) = mpsc::sync_channel(2);
        let release = Mutex::new(());
        let held = release.lock().unwrap();
        let seen = Mutex::new(Vec::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                team.run_phases(1, &|_, _| {
                    inside.send(()).unwrap();
                    drop(release.lock());
                });
            });
            is_inside.recv().unwrap();
            team.run_phases(1, &record_thread(&seen));
            drop(held);
        });
        assert_eq!(seen.into_inner().unwrap(), [(thread::current().id(), 1)]);
    }

    #[test]
    fn pass_inside_a_pass_runs_alone() {
        let team = Team::new(2).unwrap();
        let seen = Mutex::new(Vec::new());
        team.run_phases(1, &|_, worker| {
            if worker.index() == 1 {
                team.run_phases(1, &record_thread(&seen));
                assert_eq!(*seen.lock().unwrap(), [(thread::current().id(), 1)]);
            }
        });
        assert_eq!(seen.into_inner().unwrap().len(), 1);
    }

    #[test]
    fn threads_contend_for_one_team() {
        const RUNS: usize = if cfg!(miri) { 10 } else { 3000 };
        let team = Team::new(3).unwrap();
        let calls = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..RUNS {
                        team.run_phases(2, &|_, worker| {
                            calls.fetch_add(worker.share(12).len(), Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(calls.into_inner(), 3 * RUNS * 2 * 12);
    }

    #[test]
    fn count_out_of_range_is_an_error() {
        for count in [0, MAX_WORKERS + 1, usize::MAX] {
            assert!(matches!(Team::new(count), Err(TeamError::Count(n)) if n == count));
        }
        assert_eq!(Team::new(MAX_WORKERS).unwrap().workers(), MAX_WORKERS);
    }

    #[test]
    fn refused_thread_is_an_error_and_ends_the_others() {
        static ALIVE: AtomicUsize = AtomicUsize::new(0);
        let [start, end] = [1, usize::MAX].map(|n| move || _ = ALIVE.fetch_add(n, SeqCst));
        let lives: [_; 4] = std::array::from_fn(|_| Hooked::new(start, end));
        let result = Team::start(8, |index, shared| match index {
            4 => Err(io::ErrorKind::WouldBlock.into()),
            _ => lives[index].spawn(index, shared),
        });
        let error = result.unwrap_err();
        assert!(matches!(error, TeamError::Spawn { index: 4, .. }), "{error:?}");
        assert_eq!(ALIVE.load(SeqCst), 0, "a thread is left");
    }

    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    #[test]
    fn all_workers_compute_in_the_default_fp_environment() {
        use crate::fp_env::hostile::{DEFAULT_BITS, sensitive_bits, with_hostile_setting};

        let bits = Mutex::new(Vec::new());
        // Threads start with their creator's setting, so create them under the hostile one too.
        let kept = with_hostile_setting(|| {
            for size in [1, 3] {
                let team = Team::new(size).unwrap();
                let all = Barrier::new(size);
                team.run_phases(1, &|_, _| {
                    all.wait();
                    bits.lock().unwrap().push(sensitive_bits());
                });
            }
        });
        assert_eq!(bits.into_inner().unwrap(), [DEFAULT_BITS; 4]);
        assert!(kept, "the host's setting was lost");
    }
}
