//! Small teams under the model checker; the command is in the parent's docs.
//!
//! The cells below are loom's: it reports any two accesses that the hand-off or the barrier leaves
//! unordered. It reports deadlocks (a lost wake-up is one) and leaked `Arc`s too.

use super::Team;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A slot for each worker, without any synchronization of its own.
struct Slots(Vec<UnsafeCell<usize>>);

// SAFETY: not sound by itself. That is the point: the model checker finds every unordered access.
unsafe impl Sync for Slots {}

impl Slots {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| UnsafeCell::new(0)).collect())
    }

    fn set(&self, index: usize, value: usize) {
        // SAFETY: loom panics if another thread accesses the slot now.
        self.0[index].with_mut(|slot| unsafe { *slot = value });
    }

    fn assert(&self, index: usize, value: usize) {
        // SAFETY: loom panics if another thread writes the slot now.
        self.0[index].with(|slot| assert_eq!(unsafe { *slot }, value));
    }
}

/// In every phase each worker checks its neighbour's slot of the phase before and writes its own; the
/// caller reads and writes them all between runs.
fn write_then_read(workers: usize, phases: usize, runs: usize) {
    let team = Team::new(workers).unwrap();
    for _ in 0..runs {
        let slots: Vec<_> = (0..=phases).map(|_| Slots::new(workers)).collect();
        team.run_phases(phases, &|phase, worker| {
            let neighbour = (worker.index() + 1) % workers;
            slots[phase].assert(neighbour, phase);
            slots[phase + 1].set(worker.index(), phase + 1);
        });
        for (phase, slots) in slots.iter().enumerate() {
            (0..workers).for_each(|index| slots.assert(index, phase));
            (0..workers).for_each(|index| slots.set(index, 0));
        }
    }
}

/// All schedules with at most so many preemptions: without a bound they would take days, and few bugs
/// need more than two (Musuvathi and Qadeer, "Iterative Context Bounding", 2007). Prints how many they were.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    // Not one of loom's, which would be a part of the model.
    let schedules = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&schedules);
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    let schedules = schedules.load(Relaxed);
    assert!(schedules > 1, "nothing was interleaved");
    println!("{}: {schedules} schedules", std::thread::current().name().unwrap_or_default());
}

#[test]
fn two_workers_two_phases() {
    check(4, || write_then_read(2, 2, 1));
}

#[test]
fn two_workers_two_runs() {
    check(3, || write_then_read(2, 1, 2));
}

#[test]
fn three_workers() {
    check(2, || write_then_read(3, 1, 1));
}

#[test]
fn panic_leaves_nobody_waiting() {
    check(2, || {
        let team = Team::new(2).unwrap();
        let run = || {
            team.run_phases(2, &|phase, worker| {
                if (phase, worker.index()) == (0, 1) {
                    resume_unwind(Box::new(7));
                }
                assert!(phase == 0);
            });
        };
        let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&7));
    });
}

#[test]
fn two_callers() {
    check(2, || {
        let team = loom::sync::Arc::new(Team::new(2).unwrap());
        let run = |team: &Team| {
            let slots = Slots::new(2);
            team.run_phases(1, &|_, worker| {
                worker.share(2).for_each(|index| slots.set(index, 1));
            });
            (0..2).for_each(|index| slots.assert(index, 1));
        };
        let other = loom::sync::Arc::clone(&team);
        let thread = loom::thread::spawn(move || run(&other));
        run(&team);
        thread.join().unwrap();
    });
}
