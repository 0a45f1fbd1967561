//! Orders by way of a heap: each use is some 200 bytes of code, where the standard library's sorts are 3 to
//! 6 KB, and time is bounded whatever the items.

/// Moves the item at `at` down to where neither of its children comes before it.
fn sift_down<T>(heap: &mut [T], mut at: usize, before: &impl Fn(&T, &T) -> bool) {
    loop {
        let mut child = 2 * at + 1;
        if child + 1 < heap.len() && before(&heap[child + 1], &heap[child]) {
            child += 1;
        }
        if child >= heap.len() || !before(&heap[child], &heap[at]) {
            return;
        }
        heap.swap(at, child);
        at = child;
    }
}

/// Makes a heap of the items: the first one comes before all others.
pub(crate) fn make<T>(items: &mut [T], before: impl Fn(&T, &T) -> bool) {
    for at in (0..items.len() / 2).rev() {
        sift_down(items, at, &before);
    }
}

/// Moves the first item of a heap to its end, behind which the heap ends then.
pub(crate) fn pop<T>(heap: &mut [T], before: impl Fn(&T, &T) -> bool) {
    let last = heap.len() - 1;
    heap.swap(0, last);
    sift_down(&mut heap[..last], 0, &before);
}

/// Sorts the items. Of equal ones any may be first.
pub(crate) fn sort<T>(items: &mut [T], before: impl Fn(&T, &T) -> bool) {
    let after = |a: &T, b: &T| before(b, a);
    make(items, after);
    for left in (2..=items.len()).rev() {
        pop(&mut items[..left], after);
    }
}

/// Moves the first `count` items in the order to the front, where they are in none.
pub(crate) fn select<T>(items: &mut [T], count: usize, before: impl Fn(&T, &T) -> bool) {
    let (first, rest) = items.split_at_mut(count);
    let after = |a: &T, b: &T| before(b, a);
    make(first, after);
    for item in rest {
        if first.first().is_some_and(|last| before(item, last)) {
            core::mem::swap(item, &mut first[0]);
            sift_down(first, 0, &after);
        }
    }
}

/// Exchanges items for others that come before them, so that the first in the order remain.
pub(crate) fn keep_first<T>(
    items: &mut [T],
    others: impl Iterator<Item = T>,
    before: impl Fn(&T, &T) -> bool,
) {
    let after = |a: &T, b: &T| before(b, a);
    make(items, after);
    for other in others {
        if items.first().is_some_and(|last| before(&other, last)) {
            items[0] = other;
            sift_down(items, 0, &after);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_the_standard_library(
            items in prop::collection::vec(0..50_u32, 0..70), count in 0..70_usize,
        ) {
            let before = |a: &u32, b: &u32| a < b;
            let mut want = items.clone();
            want.sort_unstable();
            let mut sorted = items.clone();
            sort(&mut sorted, before);
            prop_assert_eq!(&sorted, &want);

            let count = count.min(items.len());
            let mut selected = items.clone();
            select(&mut selected, count, before);
            selected[..count].sort_unstable();
            prop_assert_eq!(&selected[..count], &want[..count]);
            selected.sort_unstable();
            prop_assert_eq!(&selected, &want);

            let (mut kept, others) = (items[..count].to_vec(), items[count..].to_vec());
            keep_first(&mut kept, others.into_iter(), before);
            kept.sort_unstable();
            prop_assert_eq!(&kept, &want[..count]);

            let mut heap = items;
            make(&mut heap, before);
            for (left, want) in (1..=heap.len()).rev().zip(want) {
                prop_assert_eq!(heap[0], want);
                pop(&mut heap[..left], before);
                prop_assert_eq!(heap[left - 1], want);
            }
        }
    }
}
