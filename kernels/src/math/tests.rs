//! Errors are measured against the f64 functions of the `libm` crate (a port of musl's).

use super::*;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

type Function = fn(f32) -> f32;

/// A function on an interval, and the errors allowed there.
struct Case {
    name: &'static str,
    function: Function,
    oracle: fn(f64) -> f64,
    interval: [f32; 2],
    /// In units in the last place of the exact result.
    ulps: f64,
    relative: f64,
    absolute: f64,
}

fn exact_gelu(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x * FRAC_1_SQRT_2)
}

fn exact_gelu_tanh(x: f64) -> f64 {
    // (1 + tanh u) / 2 without its cancellation; `tanh_form_agrees` compares the two.
    x / (1.0 + libm::exp(-2.0 * gelu_tanh_argument(x)))
}

fn gelu_tanh_argument(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)
}

fn exact_silu(x: f64) -> f64 {
    x / (1.0 + libm::exp(-x))
}

/// No bound of this kind.
const ANY: f64 = f64::INFINITY;

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "exp2", function: exp2, oracle: libm::exp2, interval: [-126.0, 127.99999], ulps: 0.9, relative: 7e-8, absolute: ANY },
    Case { name: "exp", function: exp, oracle: libm::exp, interval: [EXP_UNDERFLOW, 88.72283], ulps: 1.1, relative: 9e-8, absolute: ANY },
    Case { name: "silu", function: silu, oracle: exact_silu, interval: [-86.0, f32::MAX], ulps: 2.5, relative: 2e-7, absolute: ANY },
    Case { name: "silu, x < -86", function: silu, oracle: exact_silu, interval: [f32::MIN, -86.0], ulps: ANY, relative: ANY, absolute: 3e-36 },
    Case { name: "gelu, x > 0", function: gelu, oracle: exact_gelu, interval: [0.0, f32::MAX], ulps: 8.0, relative: 5e-7, absolute: ANY },
    Case { name: "gelu, -1..0", function: gelu, oracle: exact_gelu, interval: [-1.0, -0.0], ulps: 10.0, relative: 9e-7, absolute: 1.5e-7 },
    Case { name: "gelu, -3..-1", function: gelu, oracle: exact_gelu, interval: [-3.0, -1.0], ulps: ANY, relative: 1.5e-5, absolute: 1.5e-7 },
    Case { name: "gelu, -6..-3", function: gelu, oracle: exact_gelu, interval: [-6.0, -3.0], ulps: ANY, relative: 2e-4, absolute: 5e-8 },
    Case { name: "gelu, x < -6", function: gelu, oracle: exact_gelu, interval: [f32::MIN, -6.0], ulps: ANY, relative: ANY, absolute: 1e-11 },
    Case { name: "gelu_tanh, x > 0", function: gelu_tanh, oracle: exact_gelu_tanh, interval: [0.0, f32::MAX], ulps: 8.0, relative: 5e-7, absolute: ANY },
    Case { name: "gelu_tanh, -1..0", function: gelu_tanh, oracle: exact_gelu_tanh, interval: [-1.0, -0.0], ulps: 10.0, relative: 9e-7, absolute: 1.5e-7 },
    Case { name: "gelu_tanh, -3..-1", function: gelu_tanh, oracle: exact_gelu_tanh, interval: [-3.0, -1.0], ulps: ANY, relative: 2e-5, absolute: 1.5e-7 },
    Case { name: "gelu_tanh, -5..-3", function: gelu_tanh, oracle: exact_gelu_tanh, interval: [-5.0, -3.0], ulps: ANY, relative: 2e-4, absolute: 8e-8 },
    Case { name: "gelu_tanh, x < -5", function: gelu_tanh, oracle: exact_gelu_tanh, interval: [f32::MIN, -5.0], ulps: ANY, relative: ANY, absolute: 1e-9 },
];

/// An integer that grows with x and counts every f32, with both zeros at 0.
fn rank(x: f32) -> i64 {
    let magnitude = i64::from(x.to_bits() & 0x7fff_ffff);
    if x.is_sign_negative() { -magnitude } else { magnitude }
}

fn from_rank(rank: i64) -> f32 {
    let magnitude = f32::from_bits(rank.unsigned_abs() as u32);
    if rank < 0 { -magnitude } else { magnitude }
}

/// Every `stride`-th f32 from `low`, and `high`.
fn floats(low: f32, high: f32, stride: usize) -> impl Iterator<Item = f32> {
    (rank(low)..=rank(high)).step_by(stride).map(from_rank).chain([high])
}

/// The spacing of f32 at `exact`.
fn ulp(exact: f64) -> f64 {
    let exponent = libm::ilogb(exact).clamp(-126, 127);
    libm::exp2(f64::from(exponent - 23))
}

/// The largest value seen, and the argument that gave it.
#[derive(Clone, Copy, Default)]
struct Worst {
    value: f64,
    at: f32,
}

impl Worst {
    fn see(&mut self, value: f64, at: f32) {
        // A NaN, as from a wrong infinity, is worst of all and stays.
        if value > self.value || value.is_nan() {
            *self = Worst { value, at };
        }
    }
}

/// Measures every `stride`-th f32 of each case that `wanted` lets through, and prints a table.
fn sweep(stride: usize, wanted: fn(f32) -> bool) {
    let mut failures = Vec::new();
    for case in CASES {
        let (mut ulps, mut relative, mut absolute) =
            (Worst::default(), Worst::default(), Worst::default());
        let [low, high] = case.interval;
        for x in floats(low, high, stride).filter(|&x| wanted(x)) {
            let exact = (case.oracle)(f64::from(x));
            let error = (f64::from((case.function)(x)) - exact).abs();
            absolute.see(error, x);
            if exact.abs() >= f64::from(f32::MIN_POSITIVE) {
                ulps.see(error / ulp(exact), x);
                relative.see(error / exact.abs(), x);
            }
        }
        println!(
            "{:18} {:9.3} ulp at {:e}, relative {:.2e} at {:e}, absolute {:.2e} at {:e}",
            case.name,
            ulps.value,
            ulps.at,
            relative.value,
            relative.at,
            absolute.value,
            absolute.at
        );
        let within = ulps.value <= case.ulps
            && relative.value <= case.relative
            && absolute.value <= case.absolute;
        if !within {
            failures.push(case.name);
        }
    }
    assert!(failures.is_empty(), "error bounds exceeded by {failures:?}");
}

#[test]
fn errors_stay_in_bounds() {
    sweep(9_973, |_| true);
}

/// `cargo test -p cerebellum-kernels math::tests::errors_of_every_f32 -- --ignored --nocapture`
///
/// Below 1e-9 the results no longer depend on the polynomials, and from 256 on they are constants
/// or the argument itself: there, one in 997.
#[test]
#[ignore = "700 million arguments per function: takes minutes"]
fn errors_of_every_f32() {
    sweep(1, |x| (1e-9..256.0).contains(&x.abs()) || rank(x) % 997 == 0);
}

#[test]
fn tanh_form_agrees() {
    for x in floats(-10.0, 10.0, 99_991).map(f64::from) {
        let with_tanh = 0.5 * x * (1.0 + libm::tanh(gelu_tanh_argument(x)));
        assert!((with_tanh - exact_gelu_tanh(x)).abs() < 1e-14, "at {x}");
    }
}

#[test]
fn exp2_is_exact_at_integers() {
    for n in -126..=127 {
        assert_eq!(f64::from(exp2(n as f32)), libm::exp2(f64::from(n)), "2^{n}");
    }
}

/// Where one reduced interval ends and the next begins, rounding may cost one step back, no more.
#[test]
fn exponentials_join_across_reductions() {
    for n in -126..127 {
        let seam = f64::from(n) + 0.5;
        for (name, function, seam) in [
            ("exp2", exp2 as Function, seam as f32),
            ("exp", exp, (seam * std::f64::consts::LN_2) as f32),
        ] {
            let middle = rank(seam);
            for r in middle - 500..middle + 500 {
                let (x, next) = (from_rank(r), from_rank(r + 1));
                let step = rank(function(next)) - rank(function(x));
                assert!(step >= -1, "{name} falls by {step} after {x:e}");
            }
        }
    }
}

#[test]
fn exponentials_underflow_to_zero_and_never_to_a_subnormal() {
    for (name, function, least) in [("exp2", exp2 as Function, -126.0), ("exp", exp, EXP_UNDERFLOW)]
    {
        let first = rank(least);
        for x in (first..first + 100_000).map(from_rank) {
            assert!(function(x) >= f32::MIN_POSITIVE, "{name}({x:e}) is subnormal");
        }
        for x in floats(f32::MIN, from_rank(first - 1), 99_991) {
            assert_eq!(function(x).to_bits(), 0, "{name}({x:e}) is not +0");
        }
    }
}

#[test]
fn special_values() {
    const INF: f32 = f32::INFINITY;
    const TINY: f32 = f32::from_bits(1); // the least subnormal
    type Row = (&'static str, Function, &'static [(f32, f32)]);
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ("exp2", exp2, &[(0.0, 1.0), (-0.0, 1.0), (TINY, 1.0), (-TINY, 1.0), (-126.00001, 0.0),
            (128.0, INF), (f32::MAX, INF), (f32::MIN, 0.0), (INF, INF), (-INF, 0.0)]),
        ("exp", exp, &[(0.0, 1.0), (-0.0, 1.0), (TINY, 1.0), (-TINY, 1.0), (-87.4, 0.0),
            (88.722_84, INF), (f32::MAX, INF), (f32::MIN, 0.0), (INF, INF), (-INF, 0.0)]),
        ("relu", relu, &[(0.0, 0.0), (-0.0, -0.0), (TINY, TINY), (-TINY, 0.0), (-1.0, 0.0), (2.0, 2.0),
            (f32::MAX, f32::MAX), (f32::MIN, 0.0), (INF, INF), (-INF, 0.0)]),
        ("silu", silu, &[(0.0, 0.0), (-0.0, -0.0), (100.0, 100.0), (-100.0, -0.0),
            (f32::MAX, f32::MAX), (f32::MIN, -0.0), (INF, INF)]),
        ("gelu", gelu, &[(0.0, 0.0), (-0.0, -0.0), (GELU_LIMIT, GELU_LIMIT), (-GELU_LIMIT, 0.0),
            (1e20, 1e20), (-1e20, 0.0), (f32::MAX, f32::MAX), (f32::MIN, 0.0), (INF, INF), (-INF, 0.0)]),
        ("gelu_tanh", gelu_tanh, &[(0.0, 0.0), (-0.0, -0.0), (GELU_TANH_LIMIT, GELU_TANH_LIMIT),
            (-GELU_TANH_LIMIT, 0.0), (1e20, 1e20), (-1e20, 0.0), (f32::MAX, f32::MAX), (f32::MIN, 0.0),
            (INF, INF), (-INF, 0.0)]),
    ];
    for (name, function, values) in rows {
        for &(x, expected) in *values {
            let got = function(x);
            assert_eq!(got.to_bits(), expected.to_bits(), "{name}({x:e}) = {got:e}");
        }
    }
    assert!(silu(-INF).is_nan());
}

const ALL: [(&str, Function); 6] = [
    ("exp2", exp2),
    ("exp", exp),
    ("relu", relu),
    ("silu", silu),
    ("gelu", gelu),
    ("gelu_tanh", gelu_tanh),
];

#[test]
fn nan_stays_nan() {
    for (name, function) in ALL {
        for bits in (0x7f80_0001..=0x7fff_ffffu32).step_by(4_093) {
            for sign in [0, 1 << 31] {
                let nan = f32::from_bits(bits | sign);
                assert!(function(nan).is_nan(), "{name} swallows the NaN {:#x}", bits | sign);
            }
        }
    }
}

#[test]
fn finite_arguments_give_finite_activations() {
    for (name, function) in ALL.into_iter().filter(|(name, _)| !name.starts_with("exp")) {
        for x in floats(f32::MIN, f32::MAX, 9_973) {
            let y = function(x);
            assert!(y.is_finite() && y.abs() <= x.abs(), "{name}({x:e}) = {y:e}");
        }
    }
}

/// The contract itself: a port, a compiler or a rewrite that changes one rounding fails here.
#[test]
fn bits_are_pinned() {
    let digests = ALL.map(|(name, function)| {
        let mut hasher = crc32fast::Hasher::new();
        for x in floats(f32::NEG_INFINITY, f32::INFINITY, 9_973) {
            let y = function(x);
            let y = if y.is_nan() { f32::NAN } else { y };
            hasher.update(&y.to_bits().to_le_bytes());
        }
        (name, hasher.finalize())
    });
    let pinned: [(&str, u32); 6] = [
        ("exp2", 0x97e02aa1),
        ("exp", 0x199f1dd2),
        ("relu", 0xb1d24ce5),
        ("silu", 0x53b3a9c3),
        ("gelu", 0x3f96a980),
        ("gelu_tanh", 0xf5eddec5),
    ];
    assert_eq!(digests, pinned);
}

/// Compiled for hardware FMA the loops become vector code; without it `mul_add` is a library call.
#[cfg(target_arch = "x86_64")]
#[test]
fn vector_code_gives_the_same_bits() {
    #[target_feature(enable = "avx2,fma")]
    fn apply(function: impl Fn(f32) -> f32, values: &mut [f32]) {
        values.iter_mut().for_each(|x| *x = function(*x));
    }
    fn check(name: &str, function: impl Fn(f32) -> f32) {
        let arguments: Vec<f32> = floats(f32::NEG_INFINITY, f32::INFINITY, 9_973).collect();
        let mut results = arguments.clone();
        // SAFETY: the caller has detected AVX2 and FMA.
        unsafe { apply(&function, &mut results) };
        for (x, got) in arguments.into_iter().zip(results) {
            let expected = function(x);
            let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
            assert!(same, "{name}({x:e}) is {expected:e} in scalar code, {got:e} in vector code");
        }
    }
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        println!("not run: this processor has no AVX2 and FMA");
        return;
    }
    check("exp2", exp2);
    check("exp", exp);
    check("relu", relu);
    check("silu", silu);
    check("gelu", gelu);
    check("gelu_tanh", gelu_tanh);
}
