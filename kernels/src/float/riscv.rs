//! `a * b + c` by the floating-point unit of RISC-V (extension F).

use core::arch::asm;

/// `a * b + c`, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    let sum;
    // SAFETY: every processor of a target with the extension has the instruction. It reads and writes registers,
    // and its rounding is its own, whatever the host has set.
    unsafe {
        asm!("fmadd.s {}, {}, {}, {}, rne", out(freg) sum, in(freg) a, in(freg) b, in(freg) c,
            options(pure, nomem, nostack));
    }
    sum
}
