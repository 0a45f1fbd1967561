//! The instruction sets that have kernels, by name. Which of them this processor supports is a matter of
//! [`dispatch`](super::dispatch).

use core::fmt;

/// An instruction set that has kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Any processor; slow where a fused multiply-add is emulated.
    Scalar,
    /// The same source with the processor's FMA instruction.
    ScalarFma,
    /// AVX2, FMA and F16C: x86-64 since about 2013.
    Avx2,
    /// AVX2 with VNNI's products of bytes, as AVX-VNNI (since about 2021) or AVX-512 encodes them.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI: Ice Lake, Zen 4 and their successors.
    Avx512Vnni,
    /// NEON: any 64-bit Arm processor.
    Neon,
    /// The same with `sdot`: most since 2018.
    NeonDotprod,
    /// The same with `usdot` and `smmla`: most since 2021.
    NeonI8mm,
    /// Products of pairs of 16 bits: Cortex-M4, M7.
    Dsp,
    /// WebAssembly's vectors of 128 bits.
    Simd128,
    /// The same with the relaxed instructions, where they round once.
    RelaxedSimd,
}

impl Isa {
    /// All of them, the preferred ones last.
    pub const ALL: &[Isa] = &[
        Isa::Scalar,
        Isa::ScalarFma,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512Vnni,
        Isa::Neon,
        Isa::NeonDotprod,
        Isa::NeonI8mm,
        Isa::Dsp,
        Isa::Simd128,
        Isa::RelaxedSimd,
    ];

    /// The name by which it is forced and reported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::ScalarFma => "scalar-fma",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
            Self::NeonDotprod => "neon-dotprod",
            Self::NeonI8mm => "neon-i8mm",
            Self::Dsp => "dsp",
            Self::Simd128 => "simd128",
            Self::RelaxedSimd => "relaxed-simd",
        }
    }

    /// The instruction set of that name; `avx512` is short for `avx512-vnni`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = if name == "avx512" { Self::Avx512Vnni.name() } else { name };
        Self::ALL.iter().copied().find(|isa| isa.name() == name)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}
