//! Comparing tables, and reporting what differs.

use std::fmt::{Debug, Display};

use crate::kernels::*;

pub fn scalar() -> &'static Kernels {
    Kernels::new(Isa::Scalar).expect("always supported")
}

/// Runs a comparison with every table but the scalar one, and with the generic bodies over plain arrays;
/// reports all failures of a table together.
pub fn each_table(name: &str, compare: impl Fn(&'static Kernels, &mut Report)) {
    let forced = std::env::var("CEREBELLUM_ISA")
        .ok()
        .filter(|name| !name.is_empty())
        .map(|name| Isa::from_name(&name).expect("the name of an instruction set"));
    for &isa in Isa::ALL.iter().filter(|&&isa| isa != Isa::Scalar) {
        if forced.is_some_and(|forced| forced != isa) {
            continue;
        }
        match Kernels::new(isa) {
            Some(kernels) => compare_table(name, isa.name(), kernels, &compare),
            None => println!("{name}: {isa} SKIPPED, this processor does not support it"),
        }
    }
    if forced.is_none() {
        compare_table(name, "portable", &portable::TABLE, &compare);
    }
    // Its instructions written out, where it has any.
    if cfg!(not(dsp)) && forced.is_none() && name.starts_with("matmul") {
        compare_table(name, "dsp", &dsp::TABLE, &compare);
    }
}

pub fn compare_table(
    name: &str,
    table: &str,
    kernels: &'static Kernels,
    compare: impl Fn(&'static Kernels, &mut Report),
) {
    let mut report = Report::default();
    compare(kernels, &mut report);
    println!("{name}: {table} compared in {} cases", report.cases);
    assert!(report.cases > 0);
    let shown = report.failures.iter().take(20).map(|f| format!("\n  {f}")).collect::<String>();
    let count = report.failures.len();
    assert!(count == 0, "{name}: {table} differs in {count} of {} cases:{shown}", report.cases);
}

#[derive(Default)]
pub struct Report {
    offered: usize,
    cases: usize,
    failures: Vec<String>,
}

impl Report {
    /// Whether the next case of a long test is to be run.
    pub fn wants_next(&mut self) -> bool {
        let every = std::env::var("KERNEL_CASES").map_or(1, |n| n.parse().expect("a number"));
        self.offered += 1;
        self.offered.is_multiple_of(every)
    }

    /// Counts a case; `want` is what the definition gives.
    pub fn case<T: Same + Debug>(&mut self, case: impl Display, got: &[T], want: &[T]) {
        self.cases += 1;
        assert_eq!(got.len(), want.len());
        if let Some(i) = (0..got.len()).find(|&i| !got[i].same(&want[i])) {
            self.failures.push(format!("{case}: [{i}] is {:?}, not {:?}", got[i], want[i]));
        }
    }
}

/// Equality under the contract.
pub trait Same {
    fn same(&self, other: &Self) -> bool;
}

impl Same for f32 {
    fn same(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

macro_rules! same_if_equal {
    ($($t:ty),*) => {
        $(impl Same for $t {
            fn same(&self, other: &Self) -> bool {
                self == other
            }
        })*
    };
}
same_if_equal!(i8, Correction);
