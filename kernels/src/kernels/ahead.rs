//! Streams from memory that are fetched ahead of their reader.

/// How many bytes ahead of its reader a stream from memory is fetched.
///
/// Most processors fetch ahead of a stream by themselves, and better: for them it is nothing
/// (`docs/kernels.md`, "Fetching ahead on Zen 5").
#[derive(Clone, Copy)]
pub(super) struct Ahead(usize);

impl Ahead {
    pub(super) const NOTHING: Self = Self(0);

    /// With 4096 bytes one token's products read a seventh less a second, with 16384 a tenth.
    #[cfg(all(target_arch = "x86_64", feature = "vnni", not(miri)))]
    const ZEN_5: Self = Self(8192);

    /// What is best for the processor that this runs on.
    #[cfg(all(target_arch = "x86_64", feature = "vnni", not(miri)))]
    pub(super) fn best() -> Self {
        use core::sync::atomic::{AtomicUsize, Ordering};

        // Asking takes microseconds in a virtual machine, so it is done once.
        const UNKNOWN: usize = usize::MAX;
        static BEST: AtomicUsize = AtomicUsize::new(UNKNOWN);
        let mut best = BEST.load(Ordering::Relaxed);
        if best == UNKNOWN {
            best = if amd_family() == Some(0x1a) { Self::ZEN_5.0 } else { 0 };
            BEST.store(best, Ordering::Relaxed);
        }
        Self(best)
    }

    /// What is best for the processor that this runs on. All that gain have VNNI.
    #[cfg(all(target_arch = "x86_64", any(not(feature = "vnni"), miri)))]
    pub(super) fn best() -> Self {
        Self::NOTHING
    }

    /// Whether anything is to be fetched.
    #[inline(always)]
    pub(super) fn is_some(self) -> bool {
        self.0 > 0
    }

    /// Fetches what lies so far behind the `bytes` at `from`, which follow those that were read before.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn fetch(self, from: *const u8, bytes: usize) {
        if self.is_some() {
            fetch_lines(from.wrapping_add(self.0), bytes);
        }
    }

    /// The same if what was read before lies `stride` bytes in front, and no more than `bytes` of it: so many
    /// rows ahead that as many bytes of them are read until then.
    #[inline(always)]
    pub(super) fn fetch_row(self, from: *const u8, bytes: usize, stride: usize) {
        if self.is_some() {
            fetch_lines(from.wrapping_add(self.0 / bytes * stride), bytes);
        }
    }
}

/// Prefetches all lines of some bytes into the first level cache.
#[inline(always)]
fn fetch_lines(from: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch never faults and is part of every x86-64; it changes nothing a program sees.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line).cast());
        }
    }
    let _ = (from, bytes);
}

/// The family of a processor of AMD's: 0x19 are Zen 3 and 4, 0x1a is Zen 5.
#[cfg(all(target_arch = "x86_64", feature = "vnni", not(miri)))]
fn amd_family() -> Option<u32> {
    use core::arch::x86_64::__cpuid;

    let vendor = __cpuid(0);
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    let version = __cpuid(1).eax;
    let family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
    (name.as_flattened() == b"AuthenticAMD").then_some(family)
}
