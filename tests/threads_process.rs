//! What a team does to its process: threads left over, allocations per run, forks.
//!
//! Each check counts something of the whole process, so they run one by one, without the test
//! harness and its threads.

use cerebellum::threads::{Executor, Team};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes every call on to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        LIVE_BYTES.fetch_add(layout.size(), SeqCst);
        // SAFETY: the caller's obligations are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's obligations are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    for (name, check) in [
        ("runs_do_not_allocate", runs_do_not_allocate as fn()),
        ("drop_frees_all_memory", drop_frees_all_memory),
        #[cfg(target_os = "linux")]
        ("drop_leaves_no_thread", linux::drop_leaves_no_thread),
        #[cfg(unix)]
        ("forked_child_works_alone", unix::forked_child_works_alone),
    ] {
        check();
        println!("test {name} ... ok");
    }
}

/// Two phases over all workers; every share must have been there once.
fn run(executor: &Executor) {
    let items = AtomicUsize::new(0);
    executor.run_phases(2, &|_, worker| _ = items.fetch_add(worker.share(100).len(), SeqCst));
    assert_eq!(items.into_inner(), 200);
}

fn runs_do_not_allocate() {
    let executor = Executor::Team(Team::new(3).unwrap());
    // Threads allocate when they start, so let each of them have a share first.
    let started = AtomicUsize::new(0);
    executor.run_phases(1, &|_, _| {
        started.fetch_add(1, SeqCst);
        while started.load(SeqCst) < 3 {
            std::thread::yield_now();
        }
    });
    let before = ALLOCATIONS.load(SeqCst);
    (0..1000).for_each(|_| run(&executor));
    // Long enough that the threads have gone to sleep and must be woken.
    std::thread::sleep(std::time::Duration::from_millis(5));
    run(&executor);
    assert_eq!(ALLOCATIONS.load(SeqCst), before);
}

fn drop_frees_all_memory() {
    let make_and_drop = || run(&Executor::Team(Team::new(8).unwrap()));
    make_and_drop();
    let before = LIVE_BYTES.load(SeqCst);
    (0..10).for_each(|_| make_and_drop());
    assert_eq!(LIVE_BYTES.load(SeqCst), before);
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use std::thread::sleep;
    use std::time::Duration;

    fn threads_of_process() -> usize {
        std::fs::read_dir("/proc/self/task").unwrap().count()
    }

    pub(super) fn drop_leaves_no_thread() {
        for threads in [1, 2, 8] {
            let executor = Executor::Team(Team::new(threads).unwrap());
            assert_eq!(threads_of_process(), threads);
            run(&executor);
            drop(executor);
            // The kernel lists a joined thread for a moment longer.
            let gone = || {
                threads_of_process() == 1 || {
                    sleep(Duration::from_millis(1));
                    false
                }
            };
            assert!((0..1000).any(|_| gone()), "{} threads", threads_of_process());
        }
    }
}

#[cfg(unix)]
mod unix {
    use super::*;

    /// Runs `work` in a forked child and returns its wait status.
    fn in_child(work: impl FnOnce()) -> libc::c_int {
        let mut status = -1;
        // SAFETY: the other threads of this process hold no lock the child needs: they only run
        // shares, which do not allocate here. The child ends by `_exit`, not through our `main`.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0, "fork failed");
            if child == 0 {
                // A child that hangs is a failure, not a hung test.
                libc::alarm(10);
                let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
                libc::_exit(i32::from(!ok));
            }
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        }
        status
    }

    pub(super) fn forked_child_works_alone() {
        for _ in 0..20 {
            let executor = Executor::Team(Team::new(3).unwrap());
            run(&executor);
            let works_alone = || {
                run(&executor);
                executor.run_phases(1, &|_, worker| assert_eq!(worker.count(), 1));
            };
            assert_eq!(in_child(works_alone), 0, "the child could not use its parent's team");

            // A child forked in the middle of a run finds the team marked busy for ever.
            let status = AtomicUsize::new(usize::MAX);
            executor.run_phases(1, &|_, worker| {
                if worker.index() == 0 {
                    status.store(in_child(works_alone) as usize, SeqCst);
                }
            });
            assert_eq!(status.into_inner(), 0, "the child could not use its parent's busy team");

            let started = Executor::Team(Team::new(2).unwrap());
            let mut executor = Some(executor);
            let drops = || {
                drop(executor.take());
                // And a team of the child's own works as any.
                run(&Executor::Team(Team::new(2).unwrap()));
            };
            assert_eq!(in_child(drops), 0, "the child could not drop its parent's team");
            // The parent's teams did not notice.
            run(&started);
            run(executor.as_ref().expect("only the child's copy was dropped"));
        }
    }
}
