//! The instructions that the compiler does not use by itself.

use crate::quant::PANEL_ROWS;

#[cfg(dsp)]
pub(super) use self::real::{add_scaled, smlad};
#[cfg(not(dsp))]
pub(super) use self::written_out::{add_scaled, smlad};

/// One value for each of a panel's rows.
pub(super) type Lanes<T> = [T; PANEL_ROWS];
/// Float16 scales, little-endian, as they lie in a panel.
pub(super) type Scales = [u8; 2 * PANEL_ROWS];

#[cfg(dsp)]
mod real {
    use core::arch::{asm, naked_asm};

    use super::{Lanes, Scales};

    /// `sum + x0 * y0 + x1 * y1` of the signed halves of two words.
    #[inline(always)]
    pub fn smlad(x: u32, y: u32, sum: i32) -> i32 {
        let result;
        // SAFETY: every processor of this target has the instruction, which touches registers and a flag.
        unsafe {
            asm!("smlad {}, {}, {}, {}", out(reg) result, in(reg) x, in(reg) y, in(reg) sum,
                options(pure, nomem, nostack));
        }
        result
    }

    /// `acc = fma(n, scales * scale, acc)` of 16 rows.
    #[inline(always)]
    pub fn add_scaled(acc: &mut Lanes<f32>, n: &Lanes<i32>, scales: &Scales, scale: f32) {
        // SAFETY: the references are valid for what the function reads and writes.
        unsafe { add_scaled_rows(acc.as_mut_ptr(), n.as_ptr(), scales.as_ptr(), scale) }
    }

    /// Two rows in 17 instructions; written whole, because the compiler knows no register of the unit in `asm!`.
    ///
    /// # Safety
    /// `acc` is valid for reading and writing 16 values, `n` and `scales` for reading as many.
    #[unsafe(naked)]
    unsafe extern "C" fn add_scaled_rows(
        acc: *mut f32,
        n: *const i32,
        scales: *const u8,
        scale: f32,
    ) {
        naked_asm!(
            ".fpu fpv4-sp-d16",
            "movs r3, #8",
            // Two float16, exact in float32, times the factor.
            "0: ldr r12, [r2], #4",
            "vmov s1, r12",
            "vcvtt.f32.f16 s2, s1",
            "vcvtb.f32.f16 s1, s1",
            "vmul.f32 s1, s1, s0",
            "vmul.f32 s2, s2, s0",
            "vldmia r1!, {{s3, s4}}",
            "vcvt.f32.s32 s3, s3",
            "vcvt.f32.s32 s4, s4",
            "vldr s5, [r0]",
            "vldr s6, [r0, #4]",
            "vfma.f32 s5, s3, s1",
            "vfma.f32 s6, s4, s2",
            "vstmia r0!, {{s5, s6}}",
            "subs r3, #1",
            "bne 0b",
            "bx lr",
        )
    }
}

#[cfg(not(dsp))]
mod written_out {
    use super::{Lanes, Scales};
    use crate::float::fma;
    use crate::kernels::scalar::f16_to_f32;

    pub fn smlad(x: u32, y: u32, sum: i32) -> i32 {
        let product = |shift: u32| i32::from((x >> shift) as i16) * i32::from((y >> shift) as i16);
        sum + product(0) + product(16)
    }

    pub fn add_scaled(acc: &mut Lanes<f32>, n: &Lanes<i32>, scales: &Scales, scale: f32) {
        for (r, &h) in scales.as_chunks().0.iter().enumerate() {
            acc[r] = fma(n[r] as f32, f16_to_f32(u16::from_le_bytes(h)) * scale, acc[r]);
        }
    }
}
