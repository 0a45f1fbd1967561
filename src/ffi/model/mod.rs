//! Models: opened, described, checked.

mod constraint;
mod info;
mod open;
mod shared;
mod weights;

pub(super) use info::cbl_memory_plan;
pub(super) use shared::{Shared, cbl_model, with, with_shared};
