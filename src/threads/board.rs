//! The board of a team: which shares of the current phase are still to be had, and how to wait.

use super::sync::{AtomicU32, Condvar, Mutex, MutexGuard};
use super::worker::MAX_WORKERS;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

/// How long a thread with nothing to do stays awake.
///
/// Times, not counts: a `spin_loop` hint takes from 1 to 140 cycles depending on the processor.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// It polls and keeps its core, to see a new phase within a cache line's way between cores.
    pub(super) spin: Duration,
    /// After that it still polls, but offers its core to others in between, up to this much longer.
    pub(super) yielding: Duration,
}

/// What the board says, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u32);

impl State {
    /// Somebody sleeps until the next phase or the end.
    const SLEEPERS: u32 = 1;
    /// A run is going on.
    const RUNNING: u32 = 2;
    /// The team is to end.
    const DISMISSED: u32 = 4;
    /// One share; their number takes the remaining bits.
    const SHARE: u32 = 8;

    /// Shares of the current phase that nobody has claimed.
    pub(super) fn unclaimed(self) -> usize {
        (self.0 / Self::SHARE) as usize
    }

    pub(super) fn is_running(self) -> bool {
        self.0 & Self::RUNNING != 0
    }

    pub(super) fn is_dismissed(self) -> bool {
        self.0 & Self::DISMISSED != 0
    }
}

/// Shared by the threads of a team.
///
/// Everything is decided on one atomic word, so its modification order alone is the proof:
///
/// - A share is claimed by a compare-and-swap that counts it down, so by one thread only.
/// - No wake-up is lost: who goes to sleep has first set `SLEEPERS` in the very state it does not
///   like, and the swap that changes this state returns that bit.
/// - What is done before a phase is opened happens before every share of it: opening releases, and
///   claims acquire; the claims between the two are read-modify-writes, so they carry on the release.
/// - What is done in the shares of a phase happens before what its last thread does next: every
///   `finish` releases and acquires the same counter.
///
/// A thread may see the same word twice with any number of phases in between. That does no harm: a
/// claim that succeeds is one of the phase that is open at that moment.
///
/// Aligned to a pair of cache lines of its own (x86 prefetches pairs; Apple's lines have 128 bytes),
/// with the two counters side by side: the thread that finishes a phase owns the line when it opens
/// the next.
#[repr(C, align(128))]
pub(super) struct Board {
    state: AtomicU32,
    unfinished: AtomicU32,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU32::new(0),
            unfinished: AtomicU32::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Opens a phase. Its caller has started the run, or was the last to finish the phase before.
    pub(super) fn open(&self, shares: usize) {
        const { assert!(MAX_WORKERS < (u32::MAX / State::SHARE) as usize) };
        let shares = shares as u32;
        // Relaxed: nobody reads it before having claimed a share, which the next line releases.
        self.unfinished.store(shares, Relaxed);
        self.publish(State::RUNNING + shares * State::SHARE);
    }

    /// Ends the run. Its caller was the last to finish a phase.
    pub(super) fn end(&self) {
        self.publish(0);
    }

    /// Tells the threads to leave. There must be no run.
    pub(super) fn dismiss(&self) {
        self.publish(State::DISMISSED);
    }

    /// Claims a share of the open phase; returns how many were left, with this one.
    pub(super) fn claim(&self) -> Option<usize> {
        let claim = |state| (State(state).unclaimed() > 0).then(|| state - State::SHARE);
        // Acquire: sees what was done before the phase was opened.
        let before = self.state.fetch_update(Acquire, Relaxed, claim).ok()?;
        Some(State(before).unclaimed())
    }

    /// Gives back a claimed share as done; true if it was the phase's last.
    pub(super) fn finish(&self) -> bool {
        self.unfinished.fetch_sub(1, AcqRel) == 1
    }

    /// Waits for a state that `is_good` and returns it. No share may be claimed by the caller.
    pub(super) fn wait(&self, is_good: impl Fn(State) -> bool, patience: Patience) -> State {
        let look = || Some(State(self.state.load(Acquire))).filter(|&state| is_good(state));
        poll(look, patience).unwrap_or_else(|| self.sleep_until(is_good))
    }

    fn publish(&self, state: u32) {
        if self.state.swap(state, Release) & State::SLEEPERS != 0 {
            self.wake_sleepers();
        }
    }

    /// A sleeper holds the lock from before it announces itself until the condition variable has
    /// it. So with the lock taken once after the swap, the notification cannot come too early.
    #[cold]
    fn wake_sleepers(&self) {
        drop(self.lock());
        self.wake.notify_all();
    }

    #[cold]
    fn sleep_until(&self, is_good: impl Fn(State) -> bool) -> State {
        let announce = |state| (!is_good(State(state))).then_some(state | State::SLEEPERS);
        let mut lock = self.lock();
        loop {
            // Relaxed if it is to sleep, as nothing is read then; else as in `wait`.
            if let Err(state) = self.state.fetch_update(Relaxed, Acquire, announce) {
                return State(state);
            }
            lock = self.sleep_once(lock);
        }
    }

    /// Sleeps until it is woken, or for no reason.
    #[cfg(not(all(target_family = "wasm", target_feature = "atomics")))]
    fn sleep_once<'a>(&self, lock: MutexGuard<'a, ()>) -> MutexGuard<'a, ()> {
        self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner)
    }

    /// In a browser a thread may have ended in a trap, and then nobody would ever wake the others.
    #[cfg(all(target_family = "wasm", target_feature = "atomics"))]
    fn sleep_once<'a>(&self, lock: MutexGuard<'a, ()>) -> MutexGuard<'a, ()> {
        super::spawn::check();
        let second = Duration::from_secs(1);
        self.wake.wait_timeout(lock, second).unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls `look` for an answer, as long as patience lasts.
#[cfg(not(all(model_checked, test)))]
fn poll<T>(look: impl Fn() -> Option<T>, patience: Patience) -> Option<T> {
    use std::{hint::spin_loop, thread::yield_now};

    use crate::clock::Instant;
    /// Looks between two at the clock, which costs tens of nanoseconds: so a short wait has none.
    const LOOKS: u32 = 32;

    let spin = || {
        (0..LOOKS).find_map(|_| {
            spin_loop();
            look()
        })
    };
    if let Some(answer) = look().or_else(spin) {
        return Some(answer);
    }
    let start = Instant::now();
    while start.elapsed() < patience.spin {
        if let Some(answer) = spin() {
            return Some(answer);
        }
    }
    while start.elapsed() < patience.spin + patience.yielding {
        yield_now();
        if let Some(answer) = look() {
            return Some(answer);
        }
    }
    None
}

/// The model checker tries every interleaving, so one look stands for any number of them.
#[cfg(all(model_checked, test))]
fn poll<T>(look: impl Fn() -> Option<T>, _: Patience) -> Option<T> {
    look()
}
