//! The kernels: every loop whose speed matters, one table of functions per instruction set.
//!
//! [`scalar`] defines what each function computes, bit for bit; other tables compute the same faster.
//! All but the matrix products stands once, in `generic`, over the trait of `vector`; the folder of an
//! instruction set has that trait (`vector`), the functions made of it (`bodies`) and its products.
//! A [`Kernels`] can be had only for an instruction set that this processor supports: holding one is
//! the proof that its functions may be called.
//!
//! Each of these knows only those before it: `types`, what kernels take; `detect`, what the processor has;
//! `ahead`, how far ahead of a stream it wants memory to be fetched; `isa`, the names of instruction sets;
//! `table`, the functions of one; `scalar`, `generic` and the instruction sets; `dispatch`, the choice among all.

/// A body repeated for each of some numbers, where the compiler would not unroll a loop.
#[cfg(target_arch = "x86_64")]
macro_rules! unrolled {
    ($i:ident in $($number:literal),+ => $body:block) => {
        $({ let $i = $number; $body })+
    };
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128"),
    test
))]
mod ahead;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(all(target_arch = "x86_64", feature = "vnni"))]
mod avx512;
#[cfg(all(target_arch = "x86_64", feature = "vnni"))]
mod avx_vnni;
mod detect;
mod dispatch;
#[cfg(any(dsp, test))]
mod dsp;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128"),
    test
))]
mod generic;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod portable;
mod prefetch;
pub mod scalar;
mod table;
#[cfg(test)]
mod tests;
mod types;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128"),
    test
))]
mod vector;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

pub use self::isa::Isa;
pub use self::prefetch::prefetch;
pub use self::table::{Kernels, Work};
pub use self::types::*;
