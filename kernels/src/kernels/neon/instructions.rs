//! The instructions the kernels are written in.
//!
//! - Those of NEON, which is part of the target: the intrinsics of `std::arch`, made safe once here. A
//!   function that enabled NEON by itself could be neither a trait's method nor always inlined.
//! - Those beyond, and the conversions of float16, as assembly, because their intrinsics are unstable or
//!   ask for more than they need. An assembler's directive enables them instead of a target feature, so
//!   that the loops around them are compiled for any processor.
//!
//! Assembly also keeps the compiler from regrouping sums, which costs registers.

use core::arch::aarch64 as intrinsics;
use core::arch::aarch64::*;
use core::arch::asm;

const _: () = assert!(cfg!(target_feature = "neon"), "these kernels need a target with NEON");

macro_rules! safe {
    ($($name:ident $(<const $n:ident: i32>)? ($($x:ident: $t:ty),*) -> $r:ty;)*) => {
        $(
            #[inline(always)]
            pub(super) fn $name $(<const $n: i32>)? ($($x: $t),*) -> $r {
                // SAFETY: the target has NEON, as asserted above; the intrinsic takes no pointer.
                unsafe { intrinsics::$name $(::<$n>)? ($($x),*) }
            }
        )*
    };
}

safe! {
    vdupq_n_f32(x: f32) -> float32x4_t;
    vaddq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vsubq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vmulq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vmulq_n_f32(a: float32x4_t, b: f32) -> float32x4_t;
    vdivq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vfmaq_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t;
    vminq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vmaxq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vmaxvq_f32(x: float32x4_t) -> f32;
    vabsq_f32(x: float32x4_t) -> float32x4_t;
    vnegq_f32(x: float32x4_t) -> float32x4_t;
    vcltq_f32(a: float32x4_t, b: float32x4_t) -> uint32x4_t;
    vcgtq_f32(a: float32x4_t, b: float32x4_t) -> uint32x4_t;
    vbslq_f32(mask: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vzip1q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vzip2q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vuzp1q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vuzp2q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vget_low_f32(x: float32x4_t) -> float32x2_t;
    vget_high_f32(x: float32x4_t) -> float32x2_t;
    vadd_f32(a: float32x2_t, b: float32x2_t) -> float32x2_t;
    vpadds_f32(x: float32x2_t) -> f32;
    vcvtq_f32_s32(x: int32x4_t) -> float32x4_t;
    vcvtnq_s32_f32(x: float32x4_t) -> int32x4_t;

    vdupq_n_s32(x: i32) -> int32x4_t;
    vaddq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vpaddq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vmaxq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vshlq_n_s32<const N: i32>(x: int32x4_t) -> int32x4_t;
    vzip1q_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vzip2q_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vzip1q_s64(a: int64x2_t, b: int64x2_t) -> int64x2_t;
    vzip2q_s64(a: int64x2_t, b: int64x2_t) -> int64x2_t;
    vmovn_s32(x: int32x4_t) -> int16x4_t;
    vandq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vbicq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vmaxvq_s32(x: int32x4_t) -> i32;
    vdupq_n_u32(x: u32) -> uint32x4_t;
    vorrq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    veorq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vshlq_n_u32<const N: i32>(x: uint32x4_t) -> uint32x4_t;
    vshrq_n_u32<const N: i32>(x: uint32x4_t) -> uint32x4_t;

    vdupq_n_s16(x: i16) -> int16x8_t;
    vaddq_s16(a: int16x8_t, b: int16x8_t) -> int16x8_t;
    vpaddq_s16(a: int16x8_t, b: int16x8_t) -> int16x8_t;
    vpadalq_s16(sum: int32x4_t, x: int16x8_t) -> int32x4_t;
    vcombine_s16(low: int16x4_t, high: int16x4_t) -> int16x8_t;
    vmovn_s16(x: int16x8_t) -> int8x8_t;
    vmovl_s16(x: int16x4_t) -> int32x4_t;
    vmovl_high_s16(x: int16x8_t) -> int32x4_t;
    vget_low_s16(x: int16x8_t) -> int16x4_t;
    vget_high_s16(x: int16x8_t) -> int16x4_t;
    vadd_s16(a: int16x4_t, b: int16x4_t) -> int16x4_t;
    vget_lane_s16<const LANE: i32>(x: int16x4_t) -> i16;
    vmovl_u16(x: uint16x4_t) -> uint32x4_t;
    vmovl_high_u16(x: uint16x8_t) -> uint32x4_t;
    vget_low_u16(x: uint16x8_t) -> uint16x4_t;

    vdupq_n_s8(x: i8) -> int8x16_t;
    vget_low_s8(x: int8x16_t) -> int8x8_t;
    vcombine_s8(low: int8x8_t, high: int8x8_t) -> int8x16_t;
    vmovl_s8(x: int8x8_t) -> int16x8_t;
    vpadalq_s8(sum: int16x8_t, x: int8x16_t) -> int16x8_t;
    vmull_s8(a: int8x8_t, b: int8x8_t) -> int16x8_t;
    vmull_high_s8(a: int8x16_t, b: int8x16_t) -> int16x8_t;
    vmlal_s8(sum: int16x8_t, a: int8x8_t, b: int8x8_t) -> int16x8_t;
    vmlal_high_s8(sum: int16x8_t, a: int8x16_t, b: int8x16_t) -> int16x8_t;
    vdupq_n_u8(x: u8) -> uint8x16_t;
    vandq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vbslq_u8(mask: uint8x16_t, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vshlq_u8(a: uint8x16_t, b: int8x16_t) -> uint8x16_t;
    vqtbl1q_u8(table: uint8x16_t, indices: uint8x16_t) -> uint8x16_t;
    vsubq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vshrq_n_u8<const N: i32>(x: uint8x16_t) -> uint8x16_t;
    vmovl_u8(x: uint8x8_t) -> uint16x8_t;

    vreinterpretq_f32_s32(x: int32x4_t) -> float32x4_t;
    vreinterpretq_f32_u32(x: uint32x4_t) -> float32x4_t;
    vreinterpretq_s32_f32(x: float32x4_t) -> int32x4_t;
    vreinterpretq_u32_f32(x: float32x4_t) -> uint32x4_t;
    vreinterpretq_s32_u32(x: uint32x4_t) -> int32x4_t;
    vreinterpretq_s32_s8(x: int8x16_t) -> int32x4_t;
    vreinterpretq_s8_s32(x: int32x4_t) -> int8x16_t;
    vreinterpretq_s64_s8(x: int8x16_t) -> int64x2_t;
    vreinterpretq_s8_s64(x: int64x2_t) -> int8x16_t;
    vreinterpretq_s8_u8(x: uint8x16_t) -> int8x16_t;
    vreinterpretq_u32_u8(x: uint8x16_t) -> uint32x4_t;
    vreinterpretq_u8_u32(x: uint32x4_t) -> uint8x16_t;
    vreinterpretq_s16_s32(x: int32x4_t) -> int16x8_t;
}

/// Each 4 bytes of `rows` times step `LANE` of `x`, added to `sum`; signed by signed bytes.
///
/// # Safety
/// The processor has `FEAT_DotProd`.
#[inline(always)]
pub(super) unsafe fn sdot_step<const LANE: i32>(
    mut sum: int32x4_t,
    rows: int8x16_t,
    x: int8x16_t,
) -> int32x4_t {
    // SAFETY: the caller promises the instruction, which touches registers only.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]",
            inout(vreg) sum, in(vreg) rows, in(vreg) x, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The same with the 4 bytes of `x` that stand where those of `rows` do.
///
/// # Safety
/// The processor has `FEAT_DotProd`.
#[inline(always)]
pub(super) unsafe fn sdot(mut sum: int32x4_t, rows: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller promises the instruction, which touches registers only.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) rows, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Each 4 bytes of `rows` times step `LANE` of `x`, added to `sum`; unsigned by signed bytes.
///
/// # Safety
/// The processor has `FEAT_I8MM`.
#[inline(always)]
pub(super) unsafe fn usdot_step<const LANE: i32>(
    mut sum: int32x4_t,
    rows: int8x16_t,
    x: int8x16_t,
) -> int32x4_t {
    // SAFETY: the caller promises the instruction, which touches registers only.
    unsafe {
        asm!(".arch_extension i8mm", "usdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]",
            inout(vreg) sum, in(vreg) rows, in(vreg) x, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Two rows of 8 signed bytes times two tokens of 8, added to `sum`: `[row 0 token 0,
/// row 0 token 1, row 1 token 0, row 1 token 1]`.
///
/// # Safety
/// The processor has `FEAT_I8MM`.
#[inline(always)]
pub(super) unsafe fn smmla(mut sum: int32x4_t, rows: int8x16_t, tokens: int8x16_t) -> int32x4_t {
    // SAFETY: the caller promises the instruction, which touches registers only.
    unsafe {
        asm!(".arch_extension i8mm", "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) rows, in(vreg) tokens,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Adds the products of the first 8 bytes of `rows` and `x` to `sums[0]`, and those of the last 8 to
/// `sums[1]`, wrapping around.
#[inline(always)]
pub(super) fn smlal(sums: &mut [int16x8_t; 2], rows: int8x16_t, x: int8x16_t) {
    // SAFETY: the instructions are part of NEON and touch registers only.
    unsafe {
        asm!("smlal {0:v}.8h, {1:v}.8b, {2:v}.8b",
            inout(vreg) sums[0], in(vreg) rows, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
        asm!("smlal2 {0:v}.8h, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums[1], in(vreg) rows, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
}

/// The 4 integers, loaded anew by every call: what is known of them is not used.
#[inline(always)]
pub(super) fn load_again(from: &[i32; 4]) -> int32x4_t {
    let x: int32x4_t;
    // SAFETY: the instruction is part of NEON and reads the 16 bytes of the reference. It is not `pure`,
    // or calls would be merged.
    unsafe {
        asm!("ldr {0:q}, [{1}]", out(vreg) x, in(reg) from.as_ptr(),
            options(readonly, nostack, preserves_flags));
    }
    x
}

/// Exact values of 8 float16.
#[inline(always)]
pub(super) fn f16_to_f32x8(bits: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: the instructions are part of NEON and touch registers only.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) low, in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags));
        asm!("fcvtl2 {0:v}.4s, {1:v}.8h", out(vreg) high, in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags));
    }
    [low, high]
}

/// The nearest float16 of 8 floats, ties to even.
#[inline(always)]
pub(super) fn f32x8_to_f16(low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    let bits: uint16x8_t;
    // SAFETY: the instructions are part of NEON and touch registers only. They are one block, as the
    // second keeps what the first wrote, and `out` is not `lateout`, as `high` is read after that.
    unsafe {
        asm!("fcvtn {0:v}.4h, {1:v}.4s", "fcvtn2 {0:v}.8h, {2:v}.4s",
            out(vreg) bits, in(vreg) low, in(vreg) high,
            options(pure, nomem, nostack, preserves_flags));
    }
    bits
}

/// Fetches the line of `at`, which may be any address, into the first level cache.
#[inline(always)]
pub(super) fn prefetch(at: *const u8) {
    // SAFETY: a prefetch never faults and changes nothing that a program sees.
    unsafe {
        asm!("prfm pldl1keep, [{0}]", in(reg) at,
            options(readonly, nostack, preserves_flags));
    }
}
