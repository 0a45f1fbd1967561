//! Every kernel table against the scalar definition, bit for bit, at the sizes where code changes its
//! path. `docs/numbers.md` leaves open only the bits of a NaN.
//!
//! For a slow (emulated) processor: `CEREBELLUM_ISA` compares that table alone, and `KERNEL_CASES=16`
//! takes every 16th case of the long tests.

mod attention;
mod cache;
mod inputs;
mod matmul;
mod report;
mod rows;
