//! Four registers as one value.

use core::arch::aarch64::{float32x4_t, int32x4_t};

/// 16 lanes: 0..4, 4..8, 8..12 and 12..16.
pub(super) type F32x16 = [float32x4_t; 4];

/// An integer for each of 16 rows.
pub(super) type I32x16 = [int32x4_t; 4];
