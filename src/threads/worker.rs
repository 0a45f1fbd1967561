//! The workers of a phase, and how they share its work.

use super::sync::AtomicUsize;
use crate::fp_env::FpEnv;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;

/// The most workers that share a pass. Decoding is limited by memory bandwidth long before.
pub const MAX_WORKERS: usize = 64;

/// A worker's part of a phase is at least the total divided by this and by the number of workers, if it
/// is not a single item: claims cost something, too.
const MOST_CLAIMS: usize = 32;

/// What [`Executor::run_phases`](super::Executor::run_phases) calls: the phase's number, and which share of it to compute.
pub type PhaseFn<'a> = dyn Fn(usize, &Worker) + Sync + 'a;

/// One of the workers of a phase: who it is, and so which share of the work is its own.
///
/// A role that some thread plays; see the [module's documentation](super).
/// Only an [`Executor`](super::Executor) makes these, and no two with the same index for one phase. Code may rely on
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
    pub(super) fn new(index: usize, count: usize, claimed: &'a AtomicUsize) -> Self {
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
        core::iter::from_fn(move || {
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

/// All phases by one worker.
pub(super) fn run_alone(phases: usize, f: &PhaseFn<'_>) {
    let _env = FpEnv::set_default();
    for phase in 0..phases {
        f(phase, &Worker::new(0, 1, &AtomicUsize::new(0)));
    }
}

// Under loom these would be outside of its models.
#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn huge_share_does_not_overflow() {
        let share = worker(1, 2).share_aligned(usize::MAX, 16);
        assert_eq!(share, 1 << (usize::BITS - 1)..usize::MAX);
    }
}
