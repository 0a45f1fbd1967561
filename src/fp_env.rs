//! The floating-point environment our numbers are defined in, whatever the host has set.
//!
//! A host may run with subnormals flushed to zero (audio and game engines do), with another
//! rounding direction, or with trapping exceptions. Any of these changes bits. So every entry into
//! the library and every worker thread holds an [`FpEnv`] while it computes: all exceptions masked,
//! round to nearest (ties to even), subnormals kept.
//!
//! | processor | register | what is assumed instead |
//! |---|---|---|
//! | x86, x86-64 with SSE | MXCSR | |
//! | AArch64 | FPCR | |
//! | WebAssembly | none: the environment is fixed by its specification | |
//! | Miri (which runs no assembly) | none: arithmetic is always the default's | |
//! | others | not touched | the host calls us with the environment a process starts with |
//!
//! **Status flags** (inexact, underflow, ...) are neither cleared nor restored: they gather what we
//! raised, as after any call that does arithmetic.
//!
//! **Ordering.** The compiler knows nothing of this register and may move arithmetic across the
//! guard's two ends, except arithmetic on values that go through memory: both ends are compiler
//! barriers for memory. Work that takes its inputs from buffers and leaves its results in buffers,
//! as all of ours does, stays inside. A lone scalar computed in the same function might not.

use std::marker::PhantomData;

/// Holds this thread's floating-point environment at the default until dropped.
///
/// Guards nest. The register belongs to a thread, so the guard is neither `Send` nor `Sync`.
#[must_use = "the host's environment comes back as soon as this is dropped"]
#[derive(Debug)]
pub struct FpEnv {
    host: arch::Control,
    _of_this_thread: PhantomData<*const ()>,
}

impl FpEnv {
    /// Sets the default environment; the drop, also by unwinding, brings back the host's.
    ///
    /// Writing the register stalls the pipeline on many processors, so it is only written when the
    /// host's setting is not the default already.
    #[inline]
    pub fn set_default() -> Self {
        let host = arch::control();
        set(host, arch::DEFAULT);
        Self { host, _of_this_thread: PhantomData }
    }
}

impl Drop for FpEnv {
    #[inline]
    fn drop(&mut self) {
        set(arch::control(), self.host);
    }
}

#[inline]
fn set(current: arch::Control, wanted: arch::Control) {
    if current != wanted {
        arch::set_control(wanted);
    }
}

/// MXCSR: Intel 64 Architectures Software Developer's Manual, volume 1, section 10.2.3.
#[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse", not(miri)))]
mod arch {
    use std::arch::asm;

    pub(super) type Control = u32;

    /// All six exceptions masked; rounding, flush-to-zero and denormals-are-zero at 0.
    pub(super) const DEFAULT: Control = 0x1F80;
    /// The six sticky flags share the register with the control bits.
    const STATUS_FLAGS: u32 = 0x3F;

    #[inline]
    fn mxcsr() -> u32 {
        let mut value = 0_u32;
        // SAFETY: SSE is present (cfg); stmxcsr writes 4 bytes to `value`, which outlives it.
        unsafe {
            asm!("stmxcsr dword ptr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags));
        }
        value
    }

    #[inline]
    pub(super) fn control() -> Control {
        mxcsr() & !STATUS_FLAGS
    }

    #[inline]
    pub(super) fn set_control(control: Control) {
        let value = control | (mxcsr() & STATUS_FLAGS);
        // SAFETY: SSE is present (cfg); `value` is a live u32. Its bits are the default's or were
        // read from this register, so none is reserved (a reserved bit would fault).
        unsafe { asm!("ldmxcsr dword ptr [{}]", in(reg) &raw const value, options(nostack)) }
    }
}

/// FPCR: Arm Architecture Reference Manual, section C5.2. Status flags live apart, in FPSR.
#[cfg(target_arch = "aarch64")]
mod arch {
    use std::arch::asm;

    pub(super) type Control = u64;

    /// No trap enabled, round to nearest, subnormals kept, NaN payloads propagated.
    pub(super) const DEFAULT: Control = 0;

    #[inline]
    pub(super) fn control() -> Control {
        let value: u64;
        // SAFETY: FPCR is readable at every exception level and reading it changes nothing.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nostack, preserves_flags)) }
        value
    }

    #[inline]
    pub(super) fn set_control(control: Control) {
        // SAFETY: the bits are zero or were read from this register, so they are valid here.
        unsafe { asm!("msr fpcr, {}", in(reg) control, options(nostack, preserves_flags)) }
    }
}

/// No register we can set: see the module's table for what is assumed.
#[cfg(not(any(
    all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse", not(miri)),
    target_arch = "aarch64"
)))]
mod arch {
    pub(super) type Control = ();
    pub(super) const DEFAULT: Control = ();
    pub(super) fn control() -> Control {}
    pub(super) fn set_control((): Control) {}
}

/// What a careless host does to the register; shared with the tests of the worker threads.
#[cfg(all(
    test,
    any(
        all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse", not(miri)),
        target_arch = "aarch64"
    )
))]
pub(crate) mod hostile {
    use super::arch;
    use std::hint::black_box;

    /// Flush to zero, denormals are zero, round toward zero.
    #[cfg(not(target_arch = "aarch64"))]
    const SETTING: arch::Control = arch::DEFAULT | 1 << 15 | 1 << 6 | 0b11 << 13;
    /// FZ, and RMode toward zero.
    #[cfg(target_arch = "aarch64")]
    const SETTING: arch::Control = 1 << 24 | 0b11 << 22;

    /// Runs `f` with the register set against us; true if it is still so afterwards.
    pub(crate) fn with_hostile_setting(f: impl FnOnce()) -> bool {
        let before = arch::control();
        arch::set_control(SETTING);
        f();
        let kept = arch::control() == SETTING;
        arch::set_control(before);
        kept
    }

    /// Bits of a subnormal product, a product with a subnormal operand, and an inexact sum: each
    /// comes out differently in some non-default setting.
    pub(crate) fn sensitive_bits() -> [u32; 3] {
        let product = |a: f32, b: f32| black_box(black_box(a) * black_box(b)).to_bits();
        let sum = |a: f32, b: f32| black_box(black_box(a) + black_box(b)).to_bits();
        [product(f32::MIN_POSITIVE, 0.5), product(f32::from_bits(1), 4.0), sum(1.0, 1e-7)]
    }

    /// By IEEE 754: 2^-127; 2^-147; 1 + 2^-23, since 1e-7 is more than half of 2^-23.
    pub(crate) const DEFAULT_BITS: [u32; 3] = [0x0040_0000, 4, 0x3F80_0001];
}

#[cfg(all(
    test,
    any(
        all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse", not(miri)),
        target_arch = "aarch64"
    )
))]
mod tests {
    use super::hostile::{DEFAULT_BITS, sensitive_bits, with_hostile_setting};
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    #[test]
    fn hostile_setting_changes_each_result() {
        assert_eq!(sensitive_bits(), DEFAULT_BITS);
        let mut bits = [0; 3];
        with_hostile_setting(|| bits = sensitive_bits());
        assert_eq!(bits, [0, 0, 0x3F80_0000]);
    }

    #[test]
    fn default_inside_and_host_setting_back_after() {
        let mut bits = [0; 3];
        let kept = with_hostile_setting(|| {
            let _env = FpEnv::set_default();
            bits = sensitive_bits();
        });
        assert_eq!(bits, DEFAULT_BITS);
        assert!(kept, "the host's setting was lost");
    }

    #[test]
    fn host_setting_back_after_unwinding() {
        let kept = with_hostile_setting(|| {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let _env = FpEnv::set_default();
                resume_unwind(Box::new(()));
            }));
            assert!(unwound.is_err());
        });
        assert!(kept, "the host's setting was lost");
    }

    #[test]
    fn guards_nest() {
        let mut bits = [0; 3];
        let kept = with_hostile_setting(|| {
            let _outer = FpEnv::set_default();
            drop(FpEnv::set_default());
            bits = sensitive_bits();
        });
        assert_eq!(bits, DEFAULT_BITS);
        assert!(kept, "the host's setting was lost");
    }
}
