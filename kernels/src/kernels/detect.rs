//! Whether the processor that this runs on has an instruction set: `has!("avx2")`.

#[cfg(all(target_arch = "aarch64", not(target_os = "none")))]
pub(super) use std::arch::is_aarch64_feature_detected as has;
#[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), not(target_os = "none")))]
pub(super) use std::arch::is_x86_feature_detected as has;

/// Without an operating system nobody may be asked, so a build knows what it is for.
#[cfg(all(
    any(target_arch = "aarch64", target_arch = "x86", target_arch = "x86_64"),
    target_os = "none"
))]
macro_rules! has {
    ($feature:tt) => {
        cfg!(target_feature = $feature)
    };
}
#[cfg(all(
    any(target_arch = "aarch64", target_arch = "x86", target_arch = "x86_64"),
    target_os = "none"
))]
pub(super) use has;
