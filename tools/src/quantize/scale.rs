//! The scale of a group: the one with the least squared error that a search finds.
//!
//! For weights `w` and importances `a` (1 unless something better is known), the search looks for
//! the float16 scale `s` and the integers `q` that minimize `sum of a * (w - q * s)^2`. Two facts make
//! it short:
//!
//! - for a fixed `s` the best `q` is the nearest integer in range;
//! - for fixed `q` the best `s` is `<w, q> / <q, q>` (products weighted by `a`), and it leaves the
//!   error `<w, w> - <w, q>^2 / <q, q>`.
//!
//! So a grid of trial scales only proposes integers; each proposal is judged by the error at *its*
//! best scale, and the winner alternates between the two facts with the scale as rounded to float16
//! until the error stops falling. The error as a function of the scale has many local minima; the
//! tests compare the one found with the best of all float16 scales.
//!
//! A scale may be negative: the integers reach one further below zero than above, and the sign
//! decides which side of the weights that serves. Every proposal is tried with both signs.
//!
//! Arithmetic is plain binary32 in a fixed order (sums in 8 lanes, no fused operations), so the same
//! weights give the same bits on every machine.

use cerebellum::quant::{EXPONENTS, MAX_GROUP_SIZE, Scheme};
use half::f16;

use super::levels::{Integers, Levels, Table};
use super::trellis::PathLevels;

/// Lanes of every sum. Eight keep the four sums of [`project`] in registers everywhere.
const LANES: usize = 8;
/// Where [`choose_exponent`] puts the exponent of the largest weight.
const TARGET_EXPONENT: i32 = 11;
/// The refinement usually ends after two or three passes.
const MAX_PASSES: usize = 8;

/// The largest weight that every scheme can store: the largest scale it may need is a float16.
pub const MAX_WEIGHT: f32 = 65504.0 * 64.0;

/// The matrix exponent `k` for weights of magnitude up to `max_abs`.
///
/// The largest weight is brought into `[2^11, 2^12)`, so the largest int4 scales lie around 2^8 and
/// the largest int8 scales around 2^4. Float16 is equally precise over its whole normal range
/// (2^-14 to 2^16); this leaves room above for whatever the search does, and at least 18 binary
/// orders of magnitude below before a group's scale becomes subnormal. Where the range of exponents
/// ends first (weights below 2^-7 or from 2^18 on), the scales lie lower or higher, still normal for
/// every matrix whose largest weight is at least 2^-25.
pub fn choose_exponent(max_abs: f32) -> i32 {
    debug_assert!(max_abs.is_finite() && max_abs >= 0.0);
    if max_abs == 0.0 {
        return 0;
    }
    (floor_log2(max_abs) - TARGET_EXPONENT).clamp(*EXPONENTS.start(), *EXPONENTS.end())
}

/// Quantizes one group of at most 128 weights: returns its scale `h`, so that weight `i` is meant as
/// `integers[i] * (h * 2^exponent)`, and writes the integers.
///
/// `importance`, if given, weighs each weight's squared error (non-negative, finite). A group whose
/// weights are all zero, or too small for the smallest float16, gets scale +0 and zeros.
///
/// # Panics
/// If the slices' lengths differ, there are more than 128, or a magnitude exceeds [`MAX_WEIGHT`].
pub fn quantize_group(
    weights: &[f32],
    scheme: Scheme,
    importance: Option<&[f32]>,
    exponent: i32,
    integers: &mut [i8],
) -> f16 {
    assert_eq!(weights.len(), integers.len(), "one integer for each weight");
    let group = Group::new(weights, importance, exponent);
    match scheme.levels() {
        None => quantize_to(Integers::of(scheme), &group, scheme, integers),
        Some(levels) if scheme.is_path() => {
            quantize_to(&PathLevels::new(levels), &group, scheme, integers)
        }
        Some(levels) => quantize_to(Table::new(levels), &group, scheme, integers),
    }
}

fn quantize_to(levels: impl Rounding, group: &Group, scheme: Scheme, integers: &mut [i8]) -> f16 {
    let scale = search(levels, group, scheme);
    let mut nearest = [levels.at_rest(); MAX_GROUP_SIZE];
    if scale != f16::ZERO {
        levels.round(group, scale.to_f32(), &mut nearest);
    }
    integers.iter_mut().zip(nearest).for_each(|(integer, nearest)| *integer = nearest as i8);
    scale
}

/// How a group is rounded.
pub(super) trait Rounding: Levels {
    /// A scale close to the best that there is; 0 if there is none.
    #[inline(always)]
    fn propose(self, group: &Group, reaches: impl Iterator<Item = f32>) -> f32 {
        propose(self, group, reaches)
    }

    /// The integers of least error with this scale.
    #[inline(always)]
    fn round(self, group: &Group, scale: f32, integers: &mut [f32; MAX_GROUP_SIZE]) {
        let weights = &group.weights[..group.padded];
        integers.iter_mut().zip(weights).for_each(|(q, x)| *q = self.nearest(x / scale));
    }
}

impl Rounding for Integers {}

impl Rounding for Table {}

/// The search, compiled twice: wider registers make it faster, and since the source fixes the order
/// of all operations and none may be fused, not different.
fn search(levels: impl Rounding, group: &Group, scheme: Scheme) -> f16 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { search_avx2(levels, group, scheme) };
    }
    search_anywhere(levels, group, scheme)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn search_avx2(levels: impl Rounding, group: &Group, scheme: Scheme) -> f16 {
    search_anywhere(levels, group, scheme)
}

#[inline(always)]
fn search_anywhere(levels: impl Rounding, group: &Group, scheme: Scheme) -> f16 {
    let mut best = Fit { scale: f16::ZERO, error: group.error_of_zeros() };
    let mut scale = to_scale(levels.propose(group, trial_reaches(scheme)));
    for _ in 0..MAX_PASSES {
        if scale == f16::ZERO {
            break;
        }
        let (error, refitted) = evaluate(levels, group, scale.to_f32());
        if error >= best.error {
            break;
        }
        best = Fit { scale, error };
        scale = to_scale(refitted);
    }
    best.scale
}

/// A scale and the squared error it leaves.
struct Fit {
    scale: f16,
    error: f32,
}

/// The weights in units of `2^exponent`, padded with zeros of no importance to whole lanes.
pub(super) struct Group {
    pub weights: [f32; MAX_GROUP_SIZE],
    pub importance: [f32; MAX_GROUP_SIZE],
    /// The weights times their importance.
    weighted: [f32; MAX_GROUP_SIZE],
    /// How many weights there are.
    pub len: usize,
    padded: usize,
}

impl Group {
    fn new(weights: &[f32], importance: Option<&[f32]>, exponent: i32) -> Self {
        let n = weights.len();
        let mut group = Self {
            weights: [0.0; MAX_GROUP_SIZE],
            importance: [0.0; MAX_GROUP_SIZE],
            weighted: [0.0; MAX_GROUP_SIZE],
            len: n,
            padded: n.next_multiple_of(LANES),
        };
        // Exact, unless the weight is so small that its integer is 0 anyway.
        let unit = 1.0 / cerebellum::quant::power_of_two(exponent);
        for (x, w) in group.weights.iter_mut().zip(weights) {
            assert!(w.abs() <= MAX_WEIGHT, "weight {w} is out of range");
            *x = w * unit;
        }
        match importance {
            Some(importance) => group.importance[..n].copy_from_slice(importance),
            None => group.importance[..n].fill(1.0),
        }
        for i in 0..n {
            group.weighted[i] = group.weights[i] * group.importance[i];
        }
        group
    }

    /// The largest magnitude.
    pub fn max_abs(&self) -> f32 {
        self.weights.iter().fold(0.0, |max, w| w.abs().max(max))
    }

    #[inline(always)]
    fn error_of_zeros(&self) -> f32 {
        let mut sums = [0.0; LANES];
        for (x, xa) in lanes(&self.weights, &self.weighted, self.padded) {
            for i in 0..LANES {
                sums[i] += xa[i] * x[i];
            }
        }
        fold(sums)
    }
}

/// The least-squares scale of the best integers that the trial scales propose; 0 for none.
#[inline(always)]
fn propose(levels: impl Levels, group: &Group, reaches: impl Iterator<Item = f32>) -> f32 {
    let max_abs = group.max_abs();
    let mut best = (0.0, 1.0);
    for reach in reaches {
        let inverse = reach / max_abs;
        if !inverse.is_finite() {
            break; // the weights are all zero, or nearly
        }
        for proposal in project(levels, group, inverse) {
            if explains_more(proposal, best) {
                best = proposal;
            }
        }
    }
    let (wq, qq) = best;
    wq / qq
}

/// Whether `<w, q>^2 / <q, q>` of `a` exceeds that of `b`: without dividing, and in binary64, where
/// no product overflows. A proposal of zeros, `(0, 0)`, explains nothing.
#[inline(always)]
fn explains_more(a: (f32, f32), b: (f32, f32)) -> bool {
    let [(a_wq, a_qq), (b_wq, b_qq)] = [a, b].map(|(wq, qq)| (f64::from(wq), f64::from(qq)));
    a_wq * a_wq * b_qq > b_wq * b_wq * a_qq
}

/// What the largest weight may become before clamping, for each trial scale.
///
/// int4: from a range wider than needed to clipping at 60 % of the largest weight, which is where
/// the best scales of Gaussian and heavy-tailed groups lie; a finer grid gains less than 0.1 %.
/// int8: clipping never pays much, so all that is searched is how the grid falls on the weights.
/// Levels: the fewer, the more is clipped.
fn trial_reaches(scheme: Scheme) -> impl Iterator<Item = f32> {
    let (first, step, count) = match scheme {
        Scheme::Int8 => (122.0, 0.5, 24),
        Scheme::Int4 => (5.5, 0.25, 28),
        Scheme::Nl4 => (20.0, 1.0, 28),
        Scheme::Tc3 => (18.0, 1.0, 28),
        Scheme::Tc2 => (18.0, 1.5, 28),
    };
    (0..count).map(move |i| first + step * i as f32)
}

/// `(<w, q>, <q, q>)` of the integers nearest to `w * inverse` and of those nearest to
/// `w * -inverse`, both clamped to the range.
#[inline(always)]
fn project(levels: impl Levels, group: &Group, inverse: f32) -> [(f32, f32); 2] {
    let (mut wq, mut qq) = ([0.0; LANES], [0.0; LANES]);
    let (mut wq_neg, mut qq_neg) = ([0.0; LANES], [0.0; LANES]);
    let importance = group.importance.as_chunks::<LANES>().0;
    let all = lanes(&group.weights, &group.weighted, group.padded).zip(importance);
    for ((x, xa), a) in all {
        for i in 0..LANES {
            let [q, q_neg] = levels.nearest_of_both_signs(x[i] * inverse);
            wq[i] += xa[i] * q;
            qq[i] += a[i] * (q * q);
            wq_neg[i] -= xa[i] * q_neg;
            qq_neg[i] += a[i] * (q_neg * q_neg);
        }
    }
    [(fold(wq), fold(qq)), (fold(wq_neg), fold(qq_neg))]
}

/// The squared error with this scale, and the least-squares scale of its integers.
#[inline(always)]
fn evaluate(levels: impl Rounding, group: &Group, scale: f32) -> (f32, f32) {
    let mut integers = [0.0; MAX_GROUP_SIZE];
    levels.round(group, scale, &mut integers);
    let integers = integers.as_chunks::<LANES>().0;
    let (mut error, mut wq, mut qq) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let importance = group.importance.as_chunks::<LANES>().0;
    let all = lanes(&group.weights, &group.weighted, group.padded).zip(importance);
    for (((x, xa), a), integers) in all.zip(integers) {
        for i in 0..LANES {
            let q = integers[i];
            let difference = x[i] - q * scale;
            error[i] += a[i] * (difference * difference);
            wq[i] += xa[i] * q;
            qq[i] += a[i] * (q * q);
        }
    }
    (fold(error), fold(wq) / fold(qq))
}

/// The nearest float16; +0 for what is too small, too large or not a number.
fn to_scale(scale: f32) -> f16 {
    let scale = f16::from_f32(scale);
    if scale.is_finite() && scale != f16::ZERO { scale } else { f16::ZERO }
}

fn floor_log2(x: f32) -> i32 {
    debug_assert!(x > 0.0);
    // Scaled by an exact power of two, so that subnormals have an exponent field too.
    let (x, shift) = if x < f32::MIN_POSITIVE { (x * (1u64 << 32) as f32, 32) } else { (x, 0) };
    (x.to_bits() >> 23) as i32 - 127 - shift
}

#[inline(always)]
fn lanes<'a>(
    a: &'a [f32; MAX_GROUP_SIZE],
    b: &'a [f32; MAX_GROUP_SIZE],
    padded: usize,
) -> impl Iterator<Item = (&'a [f32; LANES], &'a [f32; LANES])> {
    a[..padded].as_chunks::<LANES>().0.iter().zip(b[..padded].as_chunks::<LANES>().0)
}

/// Adds lanes as a tree.
#[inline(always)]
fn fold(mut sums: [f32; LANES]) -> f32 {
    for half in [4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use cerebellum::quant::{PATH_INPUTS, PathState, QUARTERS, input_at};

    use super::*;

    /// A stream of standard Gaussians: a 64-bit linear congruential generator (Knuth's MMIX
    /// constants) through the Box-Muller transform.
    fn gaussians(seed: u64) -> impl Iterator<Item = f32> {
        let mut state = seed;
        let mut uniform = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32 + 0.5) / (1 << 24) as f32
        };
        std::iter::repeat_with(move || {
            (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos()
        })
    }

    fn groups(size: usize, count: usize, std: f32) -> Vec<Vec<f32>> {
        let mut stream = gaussians(size as u64).map(|g| g * std);
        (0..count).map(|_| stream.by_ref().take(size).collect()).collect()
    }

    /// The definition, in binary64 and without anything of the module above.
    fn squared_error(weights: &[f32], scale: f64, scheme: Scheme) -> f64 {
        if scheme.is_path() {
            return weights.chunks(PATH_INPUTS).map(|path| path_error(path, scale, scheme)).sum();
        }
        let (min, max) = scheme.range();
        let nearest = |w: f64| match scheme.levels() {
            None => (w / scale).round_ties_even().clamp(min.into(), max.into()),
            Some(levels) => {
                let distance = |&&q: &&i8| (w - f64::from(q) * scale).abs();
                let by_distance = |a: &&i8, b: &&i8| distance(a).total_cmp(&distance(b));
                f64::from(*levels.iter().min_by(by_distance).expect("levels"))
            }
        };
        weights.iter().map(|&w| f64::from(w)).map(|w| (w - nearest(w) * scale).powi(2)).sum()
    }

    /// The same of one path, whole: the least error of all ways to each of the states.
    fn path_error(path: &[f32], scale: f64, scheme: Scheme) -> f64 {
        let levels = scheme.levels().expect("levels");
        let mut states = HashMap::from([(PathState::START.index(), (PathState::START, 0.0))]);
        for input in (0..PATH_INPUTS).map(input_at) {
            let mut next = HashMap::<usize, (PathState, f64)>::new();
            for ((state, error), bit) in states.into_values().flat_map(|way| [(way, 0), (way, 1)]) {
                let distance =
                    |&level: &i8| (f64::from(path[input]) - f64::from(level) * scale).powi(2);
                let quarter = levels.iter().skip(state.quarter(bit).into()).step_by(QUARTERS);
                let error = error + quarter.map(distance).fold(f64::INFINITY, f64::min);
                let state = state.next(bit);
                let way = next.entry(state.index()).or_insert((state, error));
                way.1 = way.1.min(error);
            }
            states = next;
        }
        states.into_values().map(|(_, error)| error).fold(f64::INFINITY, f64::min)
    }

    fn power(exponent: i32) -> f64 {
        f64::from(exponent).exp2()
    }

    /// The error that `quantize_group` leaves, from the integers it returned.
    fn search_error(weights: &[f32], scheme: Scheme, exponent: i32) -> f64 {
        let mut q = vec![0; weights.len()];
        let scale = quantize_group(weights, scheme, None, exponent, &mut q);
        let scale = scale.to_f64() * power(exponent);
        weights.iter().zip(&q).map(|(&w, &q)| (f64::from(w) - f64::from(q) * scale).powi(2)).sum()
    }

    /// The least error over every float16 scale that could matter, of both signs.
    fn brute_force_error(weights: &[f32], scheme: Scheme, exponent: i32) -> f64 {
        let max = weights.iter().fold(0.0f32, |m, w| w.abs().max(m));
        let unit = f64::from(max) / power(exponent) / -f64::from(scheme.range().0);
        let [low, high] = [0.4, 2.0].map(|factor| f16::from_f64(unit * factor).to_bits());
        let errors = (low..=high).flat_map(|bits| {
            let scale = f16::from_bits(bits).to_f64() * power(exponent);
            [scale, -scale].map(|scale| squared_error(weights, scale, scheme))
        });
        errors.fold(f64::INFINITY, f64::min)
    }

    /// The rule everyone starts from: the largest weight becomes the largest integer.
    fn plain_error(weights: &[f32], scheme: Scheme) -> f64 {
        let max = weights.iter().fold(0.0f32, |m, w| w.abs().max(m));
        squared_error(weights, f64::from(max) / f64::from(scheme.range().1), scheme)
    }

    #[test]
    fn search_comes_close_to_the_best_of_all_scales() {
        // Bounds on the summed squared error over the optimum's, and over the plain rule's.
        for (scheme, size, over_best, of_plain) in [
            (Scheme::Int4, 32, 1.001, 0.72),
            (Scheme::Int4, 64, 1.001, 0.72),
            (Scheme::Int4, 128, 1.002, 0.72),
            (Scheme::Nl4, 32, 1.01, 0.80),
            (Scheme::Nl4, 64, 1.01, 0.80),
            (Scheme::Tc3, 64, 1.01, 0.85),
            (Scheme::Tc2, 64, 1.01, 0.85),
            (Scheme::Int8, 64, 1.03, 0.88),
            (Scheme::Int8, 128, 1.03, 0.92),
        ] {
            let exponent = choose_exponent(0.09);
            let (mut found, mut best, mut plain) = (0.0, 0.0, 0.0);
            // All levels are tried for each scale, where an integer is only rounded.
            let count = match scheme.levels() {
                Some(_) if scheme.is_path() => 2,
                Some(_) => 30,
                None => 200,
            };
            for group in groups(size, count, 0.02) {
                found += search_error(&group, scheme, exponent);
                best += brute_force_error(&group, scheme, exponent);
                plain += plain_error(&group, scheme);
            }
            let (a, b) = (found / best, found / plain);
            assert!(a >= 0.9999 && a < over_best, "{scheme:?} {size}: {a} of the optimum");
            assert!(b < of_plain, "{scheme:?} {size}: {b} of the plain rule");
        }
    }

    #[test]
    fn outliers_do_not_lead_the_search_astray() {
        let mut stream = gaussians(7);
        for outlier in [3.0, 5.0, 8.0, 20.0, 100.0, -6.0] {
            let mut group: Vec<f32> = stream.by_ref().take(64).collect();
            group[17] = outlier;
            let exponent = choose_exponent(outlier.abs().max(4.0));
            let found = search_error(&group, Scheme::Int4, exponent);
            let best = brute_force_error(&group, Scheme::Int4, exponent);
            assert!(found < 1.05 * best, "outlier {outlier}: {found} against {best}");
        }
    }

    #[test]
    fn the_larger_side_reaches_the_smallest_integer() {
        for (weights, sign) in [([-8.0, 3.0, 7.0, 1.0], 1.0), ([8.0, -3.0, -7.0, 1.0], -1.0)] {
            let mut q = [0; 4];
            let scale = quantize_group(&weights, Scheme::Int4, None, 0, &mut q);
            assert_eq!(scale.to_f32(), sign);
            assert_eq!(q.map(|q| f32::from(q) * sign), weights);
        }
    }

    /// How much the levels save is why they are what they are.
    #[test]
    fn levels_have_less_error_than_as_many_integers() {
        let error = |scheme| -> f64 {
            groups(64, 400, 1.0).iter().map(|group| search_error(group, scheme, -11)).sum()
        };
        assert!(error(Scheme::Nl4) < 0.82 * error(Scheme::Int4));
        let squares: f64 = groups(64, 400, 1.0).iter().flatten().map(|&w| f64::from(w * w)).sum();
        let relative =
            [Scheme::Nl4, Scheme::Tc3, Scheme::Tc2].map(|scheme| error(scheme) / squares);
        // The least that any levels have in the same groups, found in binary64: 0.00643, and 0.0267 and 0.1046 with
        // three and two bits. Along a path it is less.
        for (found, best) in
            relative.into_iter().zip([1.03 * 0.00643, 0.77 * 0.0267, 0.80 * 0.1046])
        {
            assert!(found < best, "{relative:?}");
        }
    }

    /// 128 weights along paths.
    fn path_of(scheme: Scheme) -> Vec<i8> {
        let mut weights = vec![0; 128];
        for path in weights.chunks_mut(PATH_INPUTS) {
            let mut state = PathState::START;
            for place in 0..PATH_INPUTS {
                let bit = (place / 3 % 2) as u8;
                let own = place * 37 % (scheme.count() / QUARTERS);
                path[input_at(place)] = scheme.weight((own * QUARTERS) as u8 + state.quarter(bit));
                state = state.next(bit);
            }
        }
        weights
    }

    #[test]
    fn representable_groups_are_kept_exactly() {
        for scheme in Scheme::ALL {
            for exponent in [-18, -7, 6] {
                let scale = f16::from_f32(1.7).to_f32() * power(exponent) as f32;
                let integers: Vec<i8> = if scheme.is_path() {
                    path_of(scheme)
                } else {
                    (0..128).map(|i| scheme.weight((i * 37 % scheme.count()) as u8)).collect()
                };
                let weights: Vec<f32> = integers.iter().map(|&q| f32::from(q) * scale).collect();
                assert_eq!(search_error(&weights, scheme, exponent), 0.0, "{scheme:?} {exponent}");
            }
        }
    }

    #[test]
    fn zeros_and_next_to_nothing_give_a_positive_zero_scale() {
        for value in [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-20] {
            for size in [1, 5, 32, 128] {
                let mut q = vec![1; size];
                let scale = quantize_group(&vec![value; size], Scheme::Int4, None, -18, &mut q);
                assert_eq!((scale.to_bits(), q), (0, vec![0; size]), "{value}");
            }
        }
    }

    #[test]
    fn single_weights_of_any_size_survive() {
        for value in [1e-7, -3e-4, 0.02, -1.0, 77.0, -65504.0, MAX_WEIGHT] {
            for scheme in Scheme::ALL {
                let (exponent, mut q) = (choose_exponent(f32::abs(value)), [0]);
                let scale = quantize_group(&[value], scheme, None, exponent, &mut q);
                let restored = f64::from(q[0]) * scale.to_f64() * power(exponent);
                let error = (restored / f64::from(value) - 1.0).abs();
                assert!(error < 1e-3, "{value} became {restored} ({scheme:?})");
            }
        }
    }

    #[test]
    fn important_weights_are_kept_better() {
        let (mut with, mut without) = (0.0, 0.0);
        for group in groups(64, 50, 1.0) {
            let importance: Vec<f32> = (0..64).map(|i| if i < 8 { 100.0 } else { 1.0 }).collect();
            let error = |importance: Option<&[f32]>| {
                let mut q = vec![0; 64];
                let scale = quantize_group(&group, Scheme::Int4, importance, 0, &mut q).to_f32();
                (0..8).map(|i| (group[i] - f32::from(q[i]) * scale).powi(2)).sum::<f32>()
            };
            with += error(Some(&importance));
            without += error(None);
        }
        assert!(with < 0.8 * without, "{with} against {without}");
    }

    #[test]
    fn exponents_bring_the_largest_weight_to_its_place() {
        let cases = [(0.0, 0), (1.0, -11), (0.15, -14), (4095.9, 0), (4096.0, 1)];
        for (max, exponent) in cases {
            assert_eq!(choose_exponent(max), exponent, "{max}");
        }
        assert_eq!(choose_exponent(f32::from_bits(1)), -18);
        assert_eq!(choose_exponent(MAX_WEIGHT), 6);
        assert_eq!(floor_log2(f32::from_bits(1)), -149);
    }
}
