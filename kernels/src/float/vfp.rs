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

/// `sums = fma(factor, row, sums)` of float16: 11 instructions for two of them, where single calls take 100.
pub fn add_f16(sums: &mut [f32], factor: f32, row: &[u16]) {
    let count = sums.len().min(row.len());
    // SAFETY: both have so many values.
    unsafe { add_f16_values(sums.as_mut_ptr(), row.as_ptr(), count, factor) }
}

/// The same of int8.
pub fn add_i8(sums: &mut [f32], factor: f32, row: &[i8]) {
    let count = sums.len().min(row.len());
    // SAFETY: both have so many values.
    unsafe { add_i8_values(sums.as_mut_ptr(), row.as_ptr(), count, factor) }
}

/// # Safety
/// `sums` is valid for reading and writing `count` values, `row` for reading them; words need not be aligned there.
#[unsafe(naked)]
unsafe extern "C" fn add_f16_values(sums: *mut f32, row: *const u16, count: usize, factor: f32) {
    naked_asm!(
        ".fpu fpv4-sp-d16",
        "lsrs r3, r2, #1",
        "beq 1f",
        "0: ldr r12, [r1], #4",
        "vmov s1, r12",
        "vcvtt.f32.f16 s2, s1",
        "vcvtb.f32.f16 s1, s1",
        "vldr s3, [r0]",
        "vldr s4, [r0, #4]",
        "vfma.f32 s3, s1, s0",
        "vfma.f32 s4, s2, s0",
        "vstmia r0!, {{s3, s4}}",
        "subs r3, #1",
        "bne 0b",
        // An odd one.
        "1: lsls r3, r2, #31",
        "beq 2f",
        "ldrh r12, [r1]",
        "vmov s1, r12",
        "vcvtb.f32.f16 s1, s1",
        "vldr s3, [r0]",
        "vfma.f32 s3, s1, s0",
        "vstr s3, [r0]",
        "2: bx lr",
    )
}

/// # Safety
/// As [`add_f16_values`].
#[unsafe(naked)]
unsafe extern "C" fn add_i8_values(sums: *mut f32, row: *const i8, count: usize, factor: f32) {
    naked_asm!(
        ".fpu fpv4-sp-d16",
        "cbz r2, 1f",
        "0: ldrsb r12, [r1], #1",
        "vmov s1, r12",
        "vcvt.f32.s32 s1, s1",
        "vldr s3, [r0]",
        "vfma.f32 s3, s1, s0",
        "vstmia r0!, {{s3}}",
        "subs r2, #1",
        "bne 0b",
        "1: bx lr",
    )
}
