//! The floating-point environment our numbers are defined in, whatever the host has set.
//!
//! A host may run with subnormals flushed to zero (audio and game engines do), with another
//! rounding direction, or with trapping exceptions. Any of these changes bits or ends the process. So
//! these hold an [`FpEnv`] while they compute: all exceptions masked, round to nearest (ties to even),
//! subnormals kept.
//!
//! - The border of the C interface (`ffi::boundary`), once for all its functions. A callback of the
//!   host's runs in the host's environment.
//! - Every public function of this crate that computes with floating-point numbers: opening a model,
//!   evaluating, sampling, scores, embeddings, classes, templates, constraints. Closures that a Rust
//!   program hands over run in the default environment or in the program's.
//! - Every worker thread, and every task on a pool of the host's.
//!
//! | processor | registers | what is assumed instead |
//! |---|---|---|
//! | x86, x86-64 with SSE | MXCSR | |
//! | AArch64 | FPCR, FPSR | |
//! | Cortex-M with a floating-point unit | FPSCR | |
//! | WebAssembly | none: the environment is fixed by its specification | |
//! | Miri (which runs no assembly) | none: arithmetic is always the default's | |
//! | others | not touched | the host calls us with the environment a process starts with |
//!
//! **Status flags** (inexact, underflow, ...) come back as they were found: what we raise stays with us.
//!
//! **Ordering.** The compiler knows nothing of these registers and may move arithmetic across the
//! guard's two ends, except arithmetic on values that go through memory: both ends are compiler
//! barriers for memory. Work that takes its inputs from buffers and leaves its results in buffers,
//! as all of ours does, stays inside. A lone scalar computed in the same function might not.

use core::marker::PhantomData;

/// A thread's floating-point environment: control bits and status flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Environment(arch::State);

impl Environment {
    /// This thread's.
    #[inline]
    pub fn current() -> Self {
        Self(arch::state())
    }

    /// The default one, with the flags of this.
    #[inline]
    pub fn with_default_control(self) -> Self {
        Self(arch::with_default_control(self.0))
    }

    /// Makes it this thread's.
    #[inline]
    pub fn set(self) {
        Self::current().change_to(self);
    }

    /// Makes `other` this thread's, which has this one.
    ///
    /// Writing the registers stalls the pipeline on many processors, so they are only written when they
    /// differ.
    #[inline]
    pub fn change_to(self, other: Self) {
        arch::change(self.0, other.0);
    }
}

/// Holds this thread's floating-point environment at the default until dropped.
///
/// Guards nest. The environment belongs to a thread, so the guard is neither `Send` nor `Sync`.
#[must_use = "the host's environment comes back as soon as this is dropped"]
#[derive(Debug)]
pub struct FpEnv {
    host: Environment,
    _of_this_thread: PhantomData<*const ()>,
}

impl FpEnv {
    /// Sets the default environment; the drop, also by unwinding, brings back the host's.
    #[inline]
    pub fn set_default() -> Self {
        let host = Environment::current();
        host.change_to(host.with_default_control());
        Self { host, _of_this_thread: PhantomData }
    }
}

impl Drop for FpEnv {
    #[inline]
    fn drop(&mut self) {
        self.host.set();
    }
}

/// MXCSR: Intel 64 Architectures Software Developer's Manual, volume 1, section 10.2.3.
#[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse", not(miri)))]
mod arch {
    use core::arch::asm;

    /// Control bits and sticky flags share the register.
    pub(super) type State = u32;

    /// All six exceptions masked; rounding, flush-to-zero and denormals-are-zero at 0.
    pub(super) const DEFAULT: State = 0x1F80;
    pub(super) const FLAGS: State = 0x3F;

    #[inline]
    pub(super) fn state() -> State {
        let mut value = 0_u32;
        // SAFETY: SSE is present (cfg); stmxcsr writes 4 bytes to `value`, which outlives it.
        unsafe {
            asm!("stmxcsr dword ptr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags));
        }
        value
    }

    #[inline]
    pub(super) fn with_default_control(state: State) -> State {
        DEFAULT | state & FLAGS
    }

    #[inline]
    pub(super) fn change(from: State, to: State) {
        if from != to {
            // SAFETY: SSE is present (cfg); `to` is a live u32. Its bits are the default's or were
            // read from this register, so none is reserved (a reserved bit would fault).
            unsafe { asm!("ldmxcsr dword ptr [{}]", in(reg) &raw const to, options(nostack)) }
        }
    }
}

/// FPCR and FPSR: Arm Architecture Reference Manual, section C5.2.
#[cfg(target_arch = "aarch64")]
mod arch {
    use core::arch::asm;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct State {
        pub(super) control: u64,
        pub(super) flags: u64,
    }

    /// No trap enabled, round to nearest, subnormals kept, NaN payloads propagated.
    pub(super) const DEFAULT: u64 = 0;

    #[inline]
    pub(super) fn state() -> State {
        let (control, flags): (u64, u64);
        // SAFETY: both registers are readable at every exception level, which changes nothing.
        unsafe {
            asm!("mrs {}, fpcr", out(reg) control, options(nostack, preserves_flags));
            asm!("mrs {}, fpsr", out(reg) flags, options(nostack, preserves_flags));
        }
        State { control, flags }
    }

    #[inline]
    pub(super) fn with_default_control(state: State) -> State {
        State { control: DEFAULT, ..state }
    }

    /// The flags last: none is raised by writing the control bits, whichever way round.
    #[inline]
    pub(super) fn change(from: State, to: State) {
        if from.control != to.control {
            // SAFETY: the bits are zero or were read from this register, so they are valid here.
            unsafe {
                asm!("msr fpcr, {}", in(reg) to.control, options(nostack, preserves_flags));
            }
        }
        if from.flags != to.flags {
            // SAFETY: the bits were read from this register.
            unsafe { asm!("msr fpsr, {}", in(reg) to.flags, options(nostack)) }
        }
    }
}

/// FPSCR: Armv7-M Architecture Reference Manual, section A2.5.3.
#[cfg(all(target_arch = "arm", target_abi = "eabihf", target_os = "none"))]
mod arch {
    use core::arch::asm;

    /// Control bits, flags of comparisons and sticky flags share the register.
    pub(super) type State = u32;

    /// Of comparisons and saturation, and the sticky ones; all else at 0 is rounding to nearest, subnormals kept,
    /// IEEE's float16, no trap.
    const FLAGS: State = 0xF800_009F;

    #[inline]
    pub(super) fn state() -> State {
        let value;
        // SAFETY: the target's processors have the unit, which is on: the convention of calls uses it.
        unsafe { asm!("vmrs {}, fpscr", out(reg) value, options(nostack)) }
        value
    }

    #[inline]
    pub(super) fn with_default_control(state: State) -> State {
        state & FLAGS
    }

    #[inline]
    pub(super) fn change(from: State, to: State) {
        if from != to {
            // SAFETY: as above; the bits are zero or were read from this register.
            unsafe { asm!("vmsr fpscr, {}", in(reg) to, options(nostack)) }
        }
    }
}

/// No register we can set: see the module's table for what is assumed.
#[cfg(not(any(
    all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse", not(miri)),
    target_arch = "aarch64",
    all(target_arch = "arm", target_abi = "eabihf", target_os = "none")
)))]
mod arch {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct State;
    pub(super) fn state() -> State {
        State
    }
    pub(super) fn with_default_control(state: State) -> State {
        state
    }
    pub(super) fn change(_: State, _: State) {}
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
    use super::{Environment, arch};
    use core::hint::black_box;

    /// Flush to zero, denormals are zero, round toward zero; no flag, so that each of ours shows.
    #[cfg(not(target_arch = "aarch64"))]
    const SETTING: arch::State = arch::DEFAULT | 1 << 15 | 1 << 6 | 0b11 << 13;
    /// FZ, and RMode toward zero; no flag.
    #[cfg(target_arch = "aarch64")]
    const SETTING: arch::State = arch::State { control: 1 << 24 | 0b11 << 22, flags: 0 };

    /// Runs `f` with the registers set against us; true if they are still so afterwards.
    pub(crate) fn with_hostile_setting(f: impl FnOnce()) -> bool {
        let (before, hostile) = (Environment::current(), Environment(SETTING));
        hostile.set();
        f();
        let kept = Environment::current() == hostile;
        before.set();
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
