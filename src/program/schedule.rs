//! Which operations of a layer run between two meetings of the workers.
//!
//! Workers meet after each phase, since the next one reads what any of them has written. Fewer meetings
//! are better, and how many are needed depends on the number of rows:
//!
//! - **Many rows**: a phase is one operation, or several that pass over the same rows.
//! - **Few rows**: a worker takes a head through everything up to attention, while the head is in its caches.
//! - **One row**: also, every worker quantizes the row for itself before it multiplies: a meeting would
//!   take about as long.
//! - **One deep row**: attention of one row goes by segments of the cache, where heads are too few, or do not come
//!   out even, for the workers. They merge after a meeting of their own.
//!
//! The last layer is **narrow** where logits are wanted of some rows only: after attention it goes on with
//! these.

use alloc::vec::Vec;
use core::ops::Range;

use super::operation::Operation;

/// Phases: operations of a layer, as ranges of its list.
pub(crate) type Phases = Vec<Range<usize>>;

/// The phases of a layer, for every kind of pass.
pub(crate) struct Schedules {
    /// Of many rows.
    pub rows: Phases,
    /// Of a few rows, or of a tree.
    pub few_rows: Phases,
    /// Of one row.
    pub one_row: Phases,
    /// Of one row whose attention goes by segments.
    pub one_deep_row: Phases,
    /// Of many rows in the last layer, if fewer rows of logits are wanted.
    pub narrow: Phases,
    /// How many phases of `narrow` there are until keys and values are stored.
    pub until_stored: usize,
}

impl Schedules {
    /// Of a layer's operations. All layers have the same ones.
    pub fn of(operations: &[Operation]) -> Self {
        use Operation::{Merge, Narrow};
        let wide = |operation: &Operation| !matches!(operation, Merge { .. } | Narrow);
        let narrows = |operation: &Operation| !matches!(operation, Merge { .. });
        let merges = |operation: &Operation| !matches!(operation, Narrow);
        let narrow = phases(operations, narrows, same_rows);
        let is_store = |range: &Range<usize>| {
            operations[range.clone()].iter().any(|op| matches!(op, Operation::Store))
        };
        let until_stored = narrow.iter().position(is_store).map_or(0, |store| store + 1);
        Self {
            rows: phases(operations, wide, same_rows),
            few_rows: phases(operations, wide, |a, b| same_head(a, b) || adds_and_quantizes(a, b)),
            one_row: phases(operations, wide, |a, b| same_head(a, b) || quantizes(a, b)),
            one_deep_row: phases(operations, merges, |a, b| stores(a, b) || quantizes(a, b)),
            narrow,
            until_stored,
        }
    }
}

/// The list of the operations that take part, cut after each that does not join the next one.
fn phases(
    operations: &[Operation],
    takes_part: impl Fn(&Operation) -> bool,
    joins: impl Fn(&Operation, &Operation) -> bool,
) -> Phases {
    let mut phases = Phases::new();
    let mut start = 0;
    for (index, operation) in operations.iter().enumerate() {
        if !takes_part(operation) {
            start = index + 1;
            continue;
        }
        if !operations.get(index + 1).is_some_and(|next| joins(operation, next)) {
            phases.push(start..index + 1);
            start = index + 1;
        }
    }
    phases
}

/// Whether the second operation passes over rows as the first one does, and reads of them only its own.
fn same_rows(first: &Operation, second: &Operation) -> bool {
    use Operation::{NormQueriesAndKeys, RotateHeads};
    let rotates = matches!((first, second), (NormQueriesAndKeys { .. }, RotateHeads { .. }));
    rotates || adds_and_quantizes(first, second)
}

/// Whether the second operation quantizes what the first one has added to.
fn adds_and_quantizes(first: &Operation, second: &Operation) -> bool {
    matches!((first, second), (Operation::AddNormed { .. }, Operation::Quantize { .. }))
}

/// Whether both can go head by head.
fn same_head(first: &Operation, second: &Operation) -> bool {
    stores(first, second) || matches!((first, second), (Operation::Store, Operation::Attend { .. }))
}

/// Whether both can, up to storing the heads.
fn stores(first: &Operation, second: &Operation) -> bool {
    matches!((first, second), (Operation::RotateHeads { .. }, Operation::Store))
}

/// Whether the first operation quantizes what the second one multiplies.
fn quantizes(first: &Operation, second: &Operation) -> bool {
    matches!((first, second), (Operation::Quantize { .. }, Operation::Multiply { .. }))
}
