//! Which kernels this processor can run: the one place that knows all tables.

#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(dsp)]
use super::dsp;
use super::isa::Isa;
#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(not(dsp))]
use super::scalar;
use super::table::Kernels;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::wasm;
#[cfg(all(target_arch = "x86_64", feature = "vnni"))]
use super::{avx_vnni, avx512};

impl Isa {
    /// Those that this processor supports, the best one last; [`Isa::Scalar`] always is, unless all processors that
    /// the build is for have [`Isa::Dsp`].
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.iter().copied().filter(|&isa| Kernels::new(isa).is_some())
    }

    /// The best that this processor supports.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }
}

impl Kernels {
    /// The kernels of `isa`, if this processor supports it: the one ladder of choice.
    pub fn new(isa: Isa) -> Option<&'static Self> {
        match isa {
            #[cfg(not(dsp))]
            Isa::Scalar => Some(&scalar::PORTABLE),
            #[cfg(dsp)]
            Isa::Scalar => None,
            #[cfg(any(target_arch = "x86", all(target_arch = "x86_64", feature = "scalar-fma")))]
            Isa::ScalarFma => super::detect::has!("fma").then_some(&scalar::FMA),
            #[cfg(not(any(
                target_arch = "x86",
                all(target_arch = "x86_64", feature = "scalar-fma")
            )))]
            Isa::ScalarFma => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::is_supported().then_some(&avx2::TABLE),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 => None,
            #[cfg(all(target_arch = "x86_64", feature = "vnni"))]
            Isa::AvxVnni => avx_vnni::table(),
            #[cfg(all(target_arch = "x86_64", feature = "vnni"))]
            Isa::Avx512Vnni => avx512::is_supported().then_some(&avx512::TABLE),
            #[cfg(not(all(target_arch = "x86_64", feature = "vnni")))]
            Isa::AvxVnni | Isa::Avx512Vnni => None,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&neon::NEON),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => neon::has_dotprod().then_some(&neon::DOTPROD),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => neon::has_i8mm().then_some(&neon::I8MM),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => None,
            #[cfg(dsp)]
            Isa::Dsp => Some(&dsp::TABLE),
            #[cfg(not(dsp))]
            Isa::Dsp => None,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Isa::Simd128 | Isa::RelaxedSimd => wasm::table(isa),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Isa::Simd128 | Isa::RelaxedSimd => None,
        }
    }

    /// The best that this processor supports.
    pub fn best() -> &'static Self {
        Self::new(Isa::best()).expect("every processor has kernels")
    }
}
