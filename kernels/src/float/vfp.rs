//! `a * b + c` by the floating-point unit of Cortex-M4F, M7, M33 and their successors (FPv4-SP, FPv5).
//!
//! The compiler has no way to ask for the instruction without the standard library, and knows no register of the unit
//! in `asm!` on these targets. So it is a function, by the convention of the targets `*-eabihf`: arguments in `s0`,
//! `s1`, `s2`, the result in `s0`. The call takes some 10 cycles, of which the instruction itself is 3.

use core::arch::naked_asm;

/// `a * b + c`, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    vfma(a, b, c)
}

#[unsafe(naked)]
extern "C" fn vfma(a: f32, b: f32, c: f32) -> f32 {
    naked_asm!(".fpu fpv4-sp-d16", "vfma.f32 s2, s0, s1", "vmov.f32 s0, s2", "bx lr")
}
