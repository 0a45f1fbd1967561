//! How the threads of a team wait for one another: a gate, and a barrier made of it.

use super::sync::{AtomicU32, AtomicUsize, Condvar, Mutex};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

/// How long a waiting thread stays awake before it sleeps in the kernel.
///
/// Times, not counts: one `spin_loop` hint takes from 1 to 140 cycles depending on the processor.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Polls, holding on to its core: answers within a cache line's way from core to core.
    pub(super) spin: Duration,
    /// After that, polls and yields its core to any thread that wants it, up to this much longer.
    pub(super) yielding: Duration,
}

/// A place to wait until somebody opens it; every opening starts a new generation.
///
/// Everything is decided on one atomic word, so its modification order alone proves that no wake-up
/// is lost, with no sequentially consistent fence: whoever sleeps has first set `SLEEPERS` in the
/// very generation it waits for, and the swap that ends this generation returns that bit.
#[repr(C)]
pub(super) struct Gate {
    /// Generation in the upper 31 bits, `SLEEPERS` in the lowest. It may wrap: no thread can miss
    /// an opening of a gate it waits at, let alone 2^31 of them.
    word: AtomicU32,
    sleep: Mutex<()>,
    wake: Condvar,
}

/// Set while a thread of this generation sleeps, or is about to.
const SLEEPERS: u32 = 1;

/// A generation of a [`Gate`], as seen by a thread that is going to wait for its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u32);

impl Generation {
    /// The generation of a new gate.
    pub(super) const FIRST: Self = Self(0);

    fn of(word: u32) -> Self {
        Self(word & !SLEEPERS)
    }
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU32::new(Generation::FIRST.0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// The current generation. Read it *before* doing what lets others open the gate.
    ///
    /// Relaxed: the caller already synchronized with whoever opened last.
    pub(super) fn generation(&self) -> Generation {
        Generation::of(self.word.load(Relaxed))
    }

    /// Ends the current generation. Only one thread may open a gate at a time.
    ///
    /// All that this thread did before happens before every return of `wait` for this generation.
    pub(super) fn open(&self) {
        let next = self.generation().0.wrapping_add(SLEEPERS << 1);
        // Release: pairs with the Acquire in `has_ended` and `announce_sleep`.
        if self.word.swap(next, Release) & SLEEPERS != 0 {
            self.wake_sleepers();
        }
    }

    /// Waits until `seen` is over.
    pub(super) fn wait(&self, seen: Generation, patience: Patience) {
        if !poll(|| self.has_ended(seen), patience) {
            self.sleep_until_end_of(seen);
        }
    }

    fn has_ended(&self, seen: Generation) -> bool {
        Generation::of(self.word.load(Acquire)) != seen
    }

    /// A sleeper holds the lock from before it announces itself until the condition variable has
    /// it. So with the lock taken once after the swap, the notification cannot come too early.
    #[cold]
    fn wake_sleepers(&self) {
        drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }

    #[cold]
    fn sleep_until_end_of(&self, seen: Generation) {
        let mut lock = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        while self.announce_sleep(seen) {
            lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Marks `seen` as having sleepers; false if it is over.
    fn announce_sleep(&self, seen: Generation) -> bool {
        match self.word.compare_exchange(seen.0, seen.0 | SLEEPERS, Relaxed, Acquire) {
            Ok(_) => true,
            Err(word) => Generation::of(word) == seen,
        }
    }
}

/// Where all members of a team meet between two phases.
///
/// Aligned to its own pair of cache lines (x86 prefetches pairs, Apple's lines are 128 bytes), with
/// the count beside the gate's word: the last to arrive owns the line already when it opens.
#[repr(C, align(128))]
pub(super) struct Barrier {
    arrived: AtomicUsize,
    pub(super) gate: Gate,
}

impl Barrier {
    pub(super) fn new() -> Self {
        Self { arrived: AtomicUsize::new(0), gate: Gate::new() }
    }

    /// Counts this thread in; true for the last of `members`, who must let the others go on.
    ///
    /// AcqRel: the additions form a release sequence, so all that the members did before arriving
    /// happens before whatever the last one does next. The reset needs no order of its own: nobody
    /// arrives again before the last one has opened a gate, which releases it.
    pub(super) fn arrive(&self, members: usize) -> bool {
        let last = self.arrived.fetch_add(1, AcqRel) + 1 == members;
        if last {
            self.arrived.store(0, Relaxed);
        }
        last
    }

    /// Waits until all `members` are here.
    pub(super) fn wait(&self, members: usize, patience: Patience) {
        let seen = self.gate.generation();
        if self.arrive(members) {
            self.gate.open();
        } else {
            self.gate.wait(seen, patience);
        }
    }
}

/// Polls until `ready` or out of patience; true if ready.
#[cfg(not(all(loom, test)))]
fn poll(ready: impl Fn() -> bool, patience: Patience) -> bool {
    use std::{hint::spin_loop, thread::yield_now, time::Instant};
    /// Polls between two looks at the clock, which costs tens of nanoseconds.
    const POLLS_PER_LOOK: u32 = 32;

    // The common short wait does not look at the clock at all.
    let spins = || {
        (0..POLLS_PER_LOOK).any(|_| {
            ready() || {
                spin_loop();
                false
            }
        })
    };
    if spins() {
        return true;
    }
    let start = Instant::now();
    while start.elapsed() < patience.spin {
        if spins() {
            return true;
        }
    }
    let end_of_yielding = patience.spin + patience.yielding;
    while start.elapsed() < end_of_yielding {
        yield_now();
        if ready() {
            return true;
        }
    }
    false
}

/// The model checker explores every interleaving: one look stands for any number of them.
#[cfg(all(loom, test))]
fn poll(ready: impl Fn() -> bool, _: Patience) -> bool {
    ready()
}
