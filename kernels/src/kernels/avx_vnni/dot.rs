//! The dot product of bytes in one instruction: four unsigned weights times four signed inputs, added
//! to a row's 32-bit sum, without saturation.

use core::arch::asm;
use core::arch::x86_64::*;
use core::marker::PhantomData;

use crate::kernels::avx2::{Dot, sum_of_pair};

/// How `vpdpbusd` is encoded.
pub(super) trait Encoding {
    /// Adds the products of `weights` and `x`.
    ///
    /// # Safety
    /// The processor supports AVX2 and this encoding.
    unsafe fn dot(sums: __m256i, weights: __m256i, x: __m256i) -> __m256i;
}

// In assembly, because the encodings are features that the callers, which are AVX2's, do not enable.
macro_rules! encoding {
    ($(#[$doc:meta])* $name:ident, $function:ident, $instruction:literal) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Encoding for $name {
            #[inline(always)]
            unsafe fn dot(sums: __m256i, weights: __m256i, x: __m256i) -> __m256i {
                // SAFETY: the caller's promise.
                unsafe { $function(sums, weights, x) }
            }
        }

        /// # Safety
        /// The processor supports this encoding.
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn $function(mut sums: __m256i, weights: __m256i, x: __m256i) -> __m256i {
            // SAFETY: the caller's promise; only the operand is changed.
            unsafe {
                asm!($instruction, inout(ymm_reg) sums, in(ymm_reg) weights, in(ymm_reg) x,
                    options(pure, nomem, nostack, preserves_flags));
            }
            sums
        }
    };
}

encoding!(
    /// AVX-VNNI.
    Vex,
    dot_vex,
    "{{vex}} vpdpbusd {0}, {1}, {2}"
);
#[cfg(feature = "vnni-evex")]
encoding!(
    /// AVX-512 VL and VNNI.
    Evex,
    dot_evex,
    "{{evex}} vpdpbusd {0}, {1}, {2}"
);

/// One instruction, and unpacking, per 32 products.
pub(super) struct Vnni<E>(PhantomData<E>);

impl<E: Encoding> Dot for Vnni<E> {
    type Weights = __m256i;

    // 12 registers of sums, 2 of weights, the token's values.
    const TILE: usize = 6;

    #[inline(always)]
    unsafe fn correction(at: *const i32, factor: i16) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { sum_of_pair(at, factor) }
    }

    #[inline(always)]
    unsafe fn dot(sums: &mut [__m256i; 2], weights: [__m256i; 2], x: __m256i) {
        // SAFETY: the caller's promise.
        unsafe { *sums = [E::dot(sums[0], weights[0], x), E::dot(sums[1], weights[1], x)] }
    }

    #[inline(always)]
    unsafe fn total(sums: __m256i) -> __m256i {
        sums
    }
}
