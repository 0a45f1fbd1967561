//! Every kernel table against the scalar definition, bit for bit, at the sizes where code changes its
//! path. `docs/numbers.md` leaves open only the bits of what is not finite.

use std::fmt::Debug;

use half::f16;

use super::*;
use crate::format::Activation;
use crate::kv_cache::KvType;
use crate::quant::{GROUP_SIZES, PANEL_ROWS, Scheme};
use crate::random::Philox;

const SCHEMES: [Scheme; 2] = [Scheme::Int4, Scheme::Int8];

/// The tables that are held against [`Isa::Scalar`], by name; the test's output says which.
fn tables() -> Vec<&'static Kernels> {
    let tested: Vec<_> = Isa::available().filter(|&isa| isa != Isa::Scalar).collect();
    let skipped: Vec<_> = Isa::ALL.iter().filter(|&&isa| Kernels::new(isa).is_none()).collect();
    println!("tested: {tested:?}, not supported by this processor: {skipped:?}");
    tested.into_iter().map(|isa| Kernels::new(isa).unwrap()).collect()
}
