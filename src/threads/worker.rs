//! The workers of a phase, and how they share its work.

use crate::fp_env::FpEnv;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The most workers that share a pass. Decoding is limited by memory bandwidth long before.
pub const MAX_WORKERS: usize = 64;

/// A claimed part is at least a worker's share divided by this, if it is not a single item: claims cost
/// something, too.
const MOST_CLAIMS: usize = 32;

/// What [`Executor::run_phases`](super::Executor::run_phases) calls: the phase's number, and which share of it to compute.
pub type PhaseFn<'a> = dyn Fn(usize, &Worker) + Sync + 'a;

/// How many items of a worker's share of a phase were claimed. On a cache line of its own (a pair of lines, as the
/// [`Board`](super::board::Board)'s): mostly, the worker itself is the only one to claim. Not one of the model
/// checker's: claims order nothing, and would multiply its schedules.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Claimed(AtomicUsize);

impl Claimed {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// The same again, for the next phase of a team.
    #[cfg(feature = "std")]
    pub(super) fn reset(&self) {
        // Relaxed: what opens the next phase orders it before every claim there.
        self.0.store(0, Relaxed);
    }
}

/// One of the workers of a phase: who it is, and so which share of the work is its own.
///
/// A role that some thread plays; see the [module's documentation](super).
/// Only an [`Executor`](super::Executor) makes these, and no two with the same index for one phase. Code may rely on
/// that to write disjoint shares of a buffer.
#[derive(Debug)]
pub struct Worker<'a> {
    index: usize,
    /// Of each worker.
    claimed: &'a [Claimed],
}

impl<'a> Worker<'a> {
    /// `claimed` is of all workers, with nothing claimed when the phase begins, and the same for all of them.
    pub(super) fn new(index: usize, claimed: &'a [Claimed]) -> Self {
        Self { index, claimed }
    }

    /// This worker, in `0..count`. Index 0 exists always.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many workers share this phase, at least 1.
    pub fn count(&self) -> usize {
        self.claimed.len()
    }

    /// This worker's part of `0..n`.
    ///
    /// The parts are contiguous, ascend with the index, cover `0..n` and differ in length by at most
    /// one: with n = q * count + r, the first r workers get q + 1 items and the others q.
    pub fn share(&self, n: usize) -> Range<usize> {
        self.share_of(self.index, n)
    }

    fn share_of(&self, index: usize, n: usize) -> Range<usize> {
        let (quotient, remainder) = (n / self.count(), n % self.count());
        let start = index * quotient + index.min(remainder);
        start..start + quotient + usize::from(index < remainder)
    }

    /// Parts of `0..n`, one after another, until all of them are given out: those of this worker's own share,
    /// then what the others have left of theirs. So cores that are slow, or busy with something else, hold
    /// nobody up for long. Where none is, a worker's parts follow one another: the processor reads ahead of
    /// them, and no other core writes the count that they are claimed by. One count for all workers, with their
    /// parts in turns, took a tenth longer to decode with two threads.
    ///
    /// The parts of all workers are disjoint and cover `0..n`. They are long at first and short in the end.
    /// All workers of a phase must ask for the same `n`, and once; a phase in which they do not leaves items
    /// out.
    pub fn claims(&self, n: usize) -> impl Iterator<Item = Range<usize>> {
        let count = self.count();
        let mut others = 0;
        core::iter::from_fn(move || {
            while others < count {
                let index = (self.index + others) % count;
                let share = self.share_of(index, n);
                if let Some(part) = self.claim(index, share.len()) {
                    return Some(share.start + part.start..share.start + part.end);
                }
                others += 1;
            }
            None
        })
    }

    /// The next part of a worker's share of `len` items.
    fn claim(&self, index: usize, len: usize) -> Option<Range<usize>> {
        let end = |start: usize| match self.count() {
            1 => len,
            _ => (start + ((len - start) / 4).max(len / MOST_CLAIMS).max(1)).min(len),
        };
        let claim = |start: usize| (start < len).then(|| end(start));
        // Relaxed: a claim says only whose the items are; the phase orders what is done with them.
        let start = self.claimed[index].0.fetch_update(Relaxed, Relaxed, claim).ok()?;
        Some(start..end(start))
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
        f(phase, &Worker::new(0, &[Claimed::new()]));
    }
}

// Under loom these would be outside of its models.
#[cfg(all(test, not(model_checked)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claimed(count: usize) -> Vec<Claimed> {
        (0..count).map(|_| Claimed::new()).collect()
    }

    proptest! {
        #[test]
        fn shares_cover_all_in_order(n in 0..5000_usize, multiple in 1..200_usize, count in 1..=MAX_WORKERS) {
            let (claimed, mut next) = (claimed(count), 0);
            for index in 0..count {
                let share = Worker::new(index, &claimed).share_aligned(n, multiple);
                prop_assert_eq!(share.start, next);
                prop_assert!(share.end == n || share.end.is_multiple_of(multiple));
                next = share.end;
            }
            prop_assert_eq!(next, n);
        }

        #[test]
        fn shares_differ_by_at_most_one(n in any::<usize>(), count in 1..=MAX_WORKERS) {
            let claimed = claimed(count);
            let lengths = (0..count).map(|index| Worker::new(index, &claimed).share(n).len());
            let (least, most) = (lengths.clone().min().unwrap(), lengths.clone().max().unwrap());
            prop_assert!(most - least <= 1);
            prop_assert_eq!(lengths.sum::<usize>(), n);
        }
    }

    proptest! {
        #[test]
        fn claims_cover_all_once(n in 0..5000_usize, count in 1..=MAX_WORKERS, order: u64) {
            let claimed = claimed(count);
            let workers: Vec<_> = (0..count).map(|i| Worker::new(i, &claimed)).collect();
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
            parts.sort_unstable_by_key(|part: &Range<usize>| part.start);
            prop_assert!(parts.iter().cloned().flatten().eq(0..n));
            prop_assert!(parts.len() <= (MOST_CLAIMS + 8) * count, "{} parts", parts.len());
        }
    }

    #[test]
    fn huge_share_does_not_overflow() {
        let claimed = claimed(2);
        let share = Worker::new(1, &claimed).share_aligned(usize::MAX, 16);
        assert_eq!(share, 1 << (usize::BITS - 1)..usize::MAX);
    }
}
