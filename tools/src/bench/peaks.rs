//! Loops that do nothing but one thing a kernel needs: what they reach bounds the kernel.

use cerebellum::kernels::{Isa, prefetch};
use cerebellum::quant::Scheme;

/// A loop of the least instructions that a multiply-accumulate takes on an instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Its instructions.
    pub name: &'static str,
    /// Multiply-accumulates of one run.
    pub macs: f64,
    run: fn(),
}

impl Peak {
    /// Runs the loop once: a few milliseconds.
    pub fn run(&self) {
        (self.run)();
    }

    /// Products of `scheme`'s weights with int8 activations, summed exactly; `None` where no loop is
    /// written for the instruction set, or this processor does not support it.
    pub fn integer(isa: Isa, scheme: Scheme) -> Option<Self> {
        if !Isa::available().any(|available| available == isa) {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        match (isa, scheme) {
            (Isa::Avx512Vnni, _) => return Some(x86::VNNI_512),
            (Isa::AvxVnni, _) if is_x86_feature_detected!("avxvnni") => return Some(x86::VNNI_VEX),
            (Isa::AvxVnni, _) => return Some(x86::VNNI_256),
            (Isa::Avx2, Scheme::Int4) => return Some(x86::AVX2_INT4),
            (Isa::Avx2, _) => return Some(x86::AVX2_INT8),
            _ => {}
        }
        let _ = scheme;
        None
    }

    /// Fused multiply-adds of floats, which attention is made of; `None` as for [`Peak::integer`].
    pub fn float(isa: Isa) -> Option<Self> {
        if !Isa::available().any(|available| available == isa) {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        match isa {
            Isa::Avx512Vnni => return Some(x86::FMA_512),
            Isa::Avx2 | Isa::AvxVnni => return Some(x86::FMA_256),
            _ => {}
        }
        None
    }
}

/// Reads all of a buffer, a cache line after the other.
pub fn read(buffer: &[u64]) -> u64 {
    or_lines(buffer, |_| ())
}

/// The same, and tells the processor of each line `AHEAD` bytes before.
pub fn read_ahead<const AHEAD: usize>(buffer: &[u64]) -> u64 {
    or_lines(buffer, |line| prefetch(line.as_ptr().cast::<u8>().wrapping_add(AHEAD)))
}

#[inline(always)]
fn or_lines(buffer: &[u64], also: impl Fn(&[u64; LINE])) -> u64 {
    let mut ors = [0u64; LINE];
    for line in buffer.as_chunks::<LINE>().0 {
        also(line);
        for (or, word) in ors.iter_mut().zip(line) {
            *or |= word;
        }
    }
    ors.into_iter().fold(0, |all, or| all | or)
}

/// Words of a cache line.
const LINE: usize = 8;
/// Bytes of a cache line.
pub(super) const LINE_BYTES: usize = LINE * size_of::<u64>();

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    use super::Peak;

    const ITERATIONS: usize = 1 << 20;
    /// Independent sums of a loop, enough to hide any latency: registers 0 to 11.
    const CHAINS: usize = 12;

    /// A loop over the given instructions for each of the registers 0 to 11. In assembly, because a
    /// compiler would compute the same product only once.
    macro_rules! peak {
        ($const:ident, $run:ident, $name:literal, $macs:literal, $($instruction:literal),+) => {
            pub const $const: Peak = Peak {
                name: $name,
                macs: (ITERATIONS * CHAINS * $macs) as f64,
                run: $run,
            };

            fn $run() {
                // SAFETY: `Peak` hands the loop out only where the processor supports the kernels of
                // that instruction set; the registers that change are named.
                unsafe {
                    asm!(
                        "vpxor xmm13, xmm13, xmm13",
                        "vpxor xmm14, xmm14, xmm14",
                        ".p2align 6",
                        "2:",
                        concat!(
                            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\n",
                            $($instruction, "\n",)+
                            ".endr"
                        ),
                        "dec {n}",
                        "jnz 2b",
                        n = inout(reg) ITERATIONS => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _,
                        options(nomem, nostack),
                    );
                }
            }
        };
    }

    peak!(VNNI_512, vnni_512, "vpdpbusd zmm", 64, "vpdpbusd zmm\\i, zmm13, zmm14");
    peak!(VNNI_256, vnni_256, "vpdpbusd ymm", 32, "{{evex}} vpdpbusd ymm\\i, ymm13, ymm14");
    peak!(VNNI_VEX, vnni_vex, "vpdpbusd ymm", 32, "{{vex}} vpdpbusd ymm\\i, ymm13, ymm14");
    peak!(
        AVX2_INT4,
        avx2_int4,
        "vpmaddubsw ymm, vpaddw ymm",
        32,
        "vpmaddubsw ymm12, ymm13, ymm14",
        "vpaddw ymm\\i, ymm\\i, ymm12"
    );
    peak!(
        AVX2_INT8,
        avx2_int8,
        "vpsignb ymm, vpmaddubsw ymm, vpmaddwd ymm, vpaddd ymm",
        32,
        "vpsignb ymm12, ymm13, ymm14",
        "vpmaddubsw ymm12, ymm13, ymm12",
        "vpmaddwd ymm12, ymm12, ymm14",
        "vpaddd ymm\\i, ymm\\i, ymm12"
    );
    peak!(FMA_512, fma_512, "vfmadd231ps zmm", 16, "vfmadd231ps zmm\\i, zmm13, zmm14");
    peak!(FMA_256, fma_256, "vfmadd231ps ymm", 8, "vfmadd231ps ymm\\i, ymm13, ymm14");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_runs_and_every_word_is_read() {
        for isa in Isa::available() {
            for scheme in [Scheme::Int4, Scheme::Int8] {
                let peaks = [Peak::integer(isa, scheme), Peak::float(isa)];
                peaks.into_iter().flatten().for_each(|peak| peak.run());
            }
        }
        let mut buffer = vec![0; 5 * LINE];
        for (i, word) in buffer.iter_mut().enumerate() {
            *word = 1 << i;
        }
        assert_eq!(read(&buffer), (1 << 40) - 1);
        assert_eq!(read_ahead::<1024>(&buffer), (1 << 40) - 1);
    }
}
