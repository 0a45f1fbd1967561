//! What the core can do at most, measured by loops that do nothing else.

use std::arch::asm;
use std::hint::black_box;

use super::{Bench, Limit, stream};

const ITERATIONS: usize = 1 << 17;
/// Independent accumulators of a loop: registers 0 to 11.
const CHAINS: usize = 12;

/// The limits that this processor has.
pub fn all() -> Vec<Bench> {
    assert!(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"));
    vec![
        limit("limit: vpmaddubsw, vpaddw", Limit::Int4, 32 * CHAINS, Box::new(int4)),
        limit(
            "limit: vpsignb, vpmaddubsw, vpmaddwd, vpaddd",
            Limit::Int8,
            32 * CHAINS,
            Box::new(int8),
        ),
        limit("limit: vfmadd231ps", Limit::Float, 8 * CHAINS, Box::new(float)),
        memory(),
    ]
}

fn limit(name: &str, limit: Limit, macs: usize, run: Box<dyn FnMut()>) -> Bench {
    Bench {
        name: name.into(),
        macs: (macs * ITERATIONS) as f64,
        bytes: 0.0,
        limit,
        defines_limit: true,
        run,
        seconds: Vec::new(),
    }
}

/// A loop over the given instructions for each of the registers 0 to 11.
macro_rules! peak {
    ($name:ident, $($instruction:literal),+) => {
        fn $name() {
            // SAFETY: `all` has checked for AVX2 and FMA; only the registers named are changed.
            unsafe {
                asm!(
                    "vpxor ymm13, ymm13, ymm13",
                    "vpxor ymm14, ymm14, ymm14",
                    ".p2align 5",
                    "2:",
                    ".irp a, ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11",
                    $($instruction,)+
                    ".endr",
                    "dec {n}",
                    "jnz 2b",
                    n = inout(reg) ITERATIONS => _,
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                    out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                    out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                    out("ymm12") _, out("ymm13") _, out("ymm14") _,
                    options(nomem, nostack),
                );
            }
        }
    };
}

peak!(int4, "vpmaddubsw ymm12, ymm13, ymm14", "vpaddw \\a, \\a, ymm12");
peak!(
    int8,
    "vpsignb ymm12, ymm13, ymm14",
    "vpmaddubsw ymm12, ymm13, ymm12",
    "vpmaddwd ymm12, ymm12, ymm14",
    "vpaddd \\a, \\a, ymm12"
);
peak!(float, "vfmadd231ps \\a, ymm13, ymm14");

/// Reads a buffer that is larger than every cache.
fn memory() -> Bench {
    let buffer = stream();
    let run = move || {
        let [mut a, mut b, mut c, mut d] = [0u64; 4];
        for line in buffer.chunks_exact(64) {
            let word =
                |i: usize| u64::from_le_bytes(line[8 * i..][..8].try_into().expect("8 bytes"));
            a |= word(0) | word(1);
            b |= word(2) | word(3);
            c |= word(4) | word(5);
            d |= word(6) | word(7);
        }
        black_box(a | b | c | d);
    };
    Bench {
        name: "limit: reading memory".into(),
        macs: 0.0,
        bytes: buffer.len() as f64,
        limit: Limit::Memory,
        defines_limit: true,
        run: Box::new(run),
        seconds: Vec::new(),
    }
}
