//! Rounding a matrix with regard to what its inputs look like.
//!
//! With `H` the mean of `x xᵀ` over the inputs `x` that a text leads to, the outputs' mean squared error
//! is `(w - q s) H (w - q s)ᵀ` for each row `w`, its integers `q` and scales `s`. Rounding each weight to
//! the nearest integer ignores that errors can cancel. Three steps do not, each row by itself:
//!
//! 1. **Target.** The inputs differ from the float model's, because the matrices before are quantized
//!    and the activations rounded. The weights that come closest to the float model's outputs on the
//!    inputs as they are, are `w + w S H⁻¹`, with `S` the mean of `(x_float - x) xᵀ`. They replace `w`.
//!    (GPTAQ, Li et al., 2025, arXiv 2504.02692; Qronos, Zhang et al., 2025, arXiv 2505.11695.)
//! 2. **Search.** Columns are rounded one after another, each so that it makes up for the errors before
//!    it, as in GPTQ (Frantar et al., 2023, arXiv 2210.17323) and LDLQ (Chee et al., 2023, arXiv
//!    2307.13304); but several beginnings are followed at a time ([`super::k_best`]). The order of columns
//!    comes from sorting them while `H` is factored, as for receivers with several antennas (Wübben et
//!    al., 2001, "sorted QR"), 32 neighbours at a time, which may be a path of levels: the last ones cost
//!    least, the ones before them cost least given that the last can make up for them, and so on. Scales
//!    come from the search of [`super::scale`], weighted for each column by the geometric mean of what an
//!    error costs if nothing makes up for it, `H`'s diagonal, and if all later columns do, `D` of
//!    `H = Mᵀ D M`.
//! 3. **Descent.** Group after group, the scale and then each integer (but not along paths, where none can
//!    move alone) moves to where the error, as it now is over the whole row, is least (coordinate descent,
//!    as in QuantEase, Behdin et al., 2023, arXiv 2309.01885). The error never rises.
//!
//! The second and the third step are done once more from the scales so found; each row keeps the better
//! result.
//!
//! Rows are worked on 32 at a time (`lanes.rs`). How rows make up for one another is said in
//! [`super::feedback`].

use cerebellum::quant::{PathState, Scheme, TileLayout, power_of_two};
use half::f16;

use super::k_best::{Lattice, Search};
use super::lanes::{Lanes, ROWS, dot, dots};
use super::levels::{Integers, Levels, Table};
use super::scale::quantize_group;
use super::trellis::{PathLevels, enter};

/// What is added to `H`'s diagonal, over the diagonal's mean.
pub const DAMPING: f64 = 0.01;

/// Sweeps of descent; more gain next to nothing.
const SWEEPS: usize = 3;

/// How often integers are searched, each time for the scales as descent has left them.
const ROUNDS: usize = 2;

/// Beginnings of a row that the search keeps.
const KEPT: usize = 16;

/// The same for levels along a path, in each of whose states some are kept.
const KEPT_ALONG_PATHS: usize = 32;

/// `H` and what follows from it.
pub struct Metric {
    n: usize,
    /// `H`, damped, `[n, n]`.
    hessian: Vec<f32>,
    lattice: Lattice,
    /// By which the search for scales weighs errors.
    importance: Vec<f32>,
    /// `Sᵀ`, `[n, n]`.
    shift: Option<Vec<f32>>,
}

/// Rows as rounded.
#[derive(Default)]
pub struct Rounded {
    /// `[rows, groups]`.
    pub scales: Vec<f16>,
    /// `[rows, n]`.
    pub integers: Vec<i8>,
    /// How far the targets, without offsets, are from what they were rounded to, `[rows, n]`; only if there were
    /// offsets.
    pub errors: Vec<f32>,
}

/// Rows to be rounded.
#[derive(Clone, Copy)]
pub struct Unrounded<'a> {
    /// `[rows, n]`.
    pub weights: &'a [f32],
    /// What is added to their targets, `[rows, n]`; perhaps nothing.
    pub offsets: &'a [f32],
    pub tiles: TileLayout,
    /// Scales are in units of `2^exponent`.
    pub exponent: i32,
}

impl Metric {
    /// From `H`, `[n, n]`, and perhaps `Sᵀ`. Both may be in any unit; where they are not finite, nothing is
    /// known of the inputs.
    pub fn new(mut hessian: Vec<f64>, shift: Option<Vec<f32>>) -> Self {
        let n = hessian.len().isqrt();
        let mean = (0..n).map(|i| hessian[i * n + i]).sum::<f64>() / n as f64;
        let is_known = mean.is_finite() && hessian.iter().all(|h| h.is_finite());
        // Inputs that are all zero leave nothing to weigh by.
        let (damping, shift) = if is_known && mean >= f64::MIN_POSITIVE {
            // The power of two in it, so that what follows is the same in every unit and binary32 suffices.
            let unit = f64::from_bits(mean.to_bits() & f64::INFINITY.to_bits());
            hessian.iter_mut().for_each(|h| *h /= unit);
            let scaled = |shift: Vec<f32>| -> Vec<f32> {
                shift.iter().map(|&s| (f64::from(s) / unit) as f32).collect()
            };
            (DAMPING * mean / unit, shift.map(scaled))
        } else {
            hessian.fill(0.0);
            (1.0, None)
        };
        let shift = shift.filter(|shift| shift.iter().all(|s| s.is_finite()));
        let lattice = Lattice::along_paths(&mut hessian, damping);
        let mut importance = vec![0.0; n];
        for (&column, &pivot) in lattice.order.iter().zip(&lattice.pivots) {
            importance[column] = (hessian[column * n + column] as f32 * pivot).sqrt();
        }
        let hessian = hessian.iter().map(|&h| h as f32).collect();
        Self { n, hessian, lattice, importance, shift }
    }

    /// Rounds up to 32 rows.
    pub fn round(&self, rows: Unrounded) -> Rounded {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has AVX-512F.
                return unsafe { round_avx512(self, rows) };
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2.
                return unsafe { round_avx2(self, rows) };
            }
        }
        self.round_anywhere(rows)
    }

    #[inline(always)]
    fn round_anywhere(&self, rows: Unrounded) -> Rounded {
        let scheme = rows.tiles.scheme();
        match scheme.levels() {
            None => Rows::new(self, Integers::of(scheme), rows).round(rows),
            Some(levels) if scheme.is_path() => {
                Rows::new(self, &PathLevels::new(levels), rows).round(rows)
            }
            Some(levels) => Rows::new(self, Table::new(levels), rows).round(rows),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn round_avx512(metric: &Metric, rows: Unrounded) -> Rounded {
    metric.round_anywhere(rows)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn round_avx2(metric: &Metric, rows: Unrounded) -> Rounded {
    metric.round_anywhere(rows)
}

/// Up to 32 rows at work. Weights and scales are in units of `2^exponent`.
struct Rows<'a, L> {
    metric: &'a Metric,
    levels: L,
    scheme: Scheme,
    group_size: usize,
    count: usize,
    /// `[n]`, by column.
    weights: Vec<Lanes>,
    /// `[n]`, by column.
    integers: Vec<Lanes>,
    /// `[groups]`, each a float16.
    scales: Vec<Lanes>,
}

/// What rows can be rounded to.
struct Choice {
    /// `(w - q s) H (w - q s)ᵀ`.
    errors: Lanes,
    /// As in `Rows`.
    integers: Vec<Lanes>,
    /// As in `Rows`.
    scales: Vec<Lanes>,
}

impl<'a, L: Levels> Rows<'a, L> {
    #[inline(always)]
    fn new(metric: &'a Metric, levels: L, rows: Unrounded) -> Self {
        let (n, tiles) = (metric.n, rows.tiles);
        let mut lanes = vec![[0.0; ROWS]; n];
        add_rows(&mut lanes, rows.weights, 1.0 / power_of_two(rows.exponent));
        Self {
            metric,
            levels,
            scheme: tiles.scheme(),
            group_size: tiles.group_size(),
            count: rows.weights.len() / n,
            weights: lanes,
            integers: vec![[0.0; ROWS]; n],
            scales: vec![[0.0; ROWS]; tiles.groups()],
        }
    }

    #[inline(always)]
    fn round(mut self, rows: Unrounded) -> Rounded {
        self.search_scales();
        if let Some(shift) = &self.metric.shift {
            self.correct_target(shift);
        }
        add_rows(&mut self.weights, rows.offsets, 1.0 / power_of_two(rows.exponent));
        let mut best = self.choose();
        for _ in 1..ROUNDS {
            let next = self.choose();
            for row in 0..self.count {
                if next.errors[row] < best.errors[row] {
                    best.errors[row] = next.errors[row];
                    let columns = best.integers.iter_mut().zip(&next.integers);
                    columns
                        .chain(best.scales.iter_mut().zip(&next.scales))
                        .for_each(|(best, next)| best[row] = next[row]);
                }
            }
        }
        let errors = self.errors(&best, rows);
        best.finish(self.count, errors)
    }

    /// See [`Rounded`].
    fn errors(&self, choice: &Choice, rows: Unrounded) -> Vec<f32> {
        let (n, unit) = (self.metric.n, power_of_two(rows.exponent));
        let error = |(at, offset): (usize, &f32)| {
            let (row, column) = (at / n, at % n);
            let scale = choice.scales[column / self.group_size][row];
            (self.weights[column][row] - choice.integers[column][row] * scale) * unit - offset
        };
        rows.offsets.iter().enumerate().map(error).collect()
    }

    /// Integers for the scales as they are, and both moved from there.
    #[inline(always)]
    fn choose(&mut self) -> Choice {
        let mut errors = self.search_integers();
        for _ in 0..SWEEPS {
            self.descend(&mut errors);
        }
        let n = self.metric.n;
        let mut pulls = vec![[0.0; ROWS]; n];
        dots(&errors, &self.metric.hessian, n, &mut pulls);
        let mut squares = [0.0; ROWS];
        for (of_column, pull) in errors.iter().zip(pulls) {
            for lane in 0..ROWS {
                squares[lane] += of_column[lane] * pull[lane];
            }
        }
        Choice { errors: squares, integers: self.integers.clone(), scales: self.scales.clone() }
    }

    /// Each group's scale for rounding to the nearest.
    #[inline(always)]
    fn search_scales(&mut self) {
        let (mut weights, mut integers) = (vec![0.0; self.group_size], vec![0; self.group_size]);
        for (group, scales) in self.scales.iter_mut().enumerate() {
            let columns = group * self.group_size..self.metric.n.min((group + 1) * self.group_size);
            let (weights, integers) =
                (&mut weights[..columns.len()], &mut integers[..columns.len()]);
            for row in 0..self.count {
                for (weight, lanes) in weights.iter_mut().zip(&self.weights[columns.clone()]) {
                    *weight = lanes[row];
                }
                let importance = Some(&self.metric.importance[columns.clone()]);
                scales[row] =
                    quantize_group(weights, self.scheme, importance, 0, integers).to_f32();
            }
        }
    }

    /// `w = w + w S H⁻¹`: solves `v Mᵀ D M = w S` by substitution, backwards and forwards.
    #[inline(always)]
    fn correct_target(&mut self, shift: &[f32]) {
        let n = self.metric.n;
        let Lattice { order, factor, pivots } = &self.metric.lattice;
        let mut shifted = vec![[0.0; ROWS]; n];
        dots(&self.weights, shift, n, &mut shifted);
        let mut v: Vec<Lanes> = order.iter().map(|&column| shifted[column]).collect();
        for t in (0..n).rev() {
            let (rest, done) = v.split_at_mut(t);
            for (v, &factor) in rest.iter_mut().zip(&factor[t * n..][..t]) {
                for lane in 0..ROWS {
                    v[lane] -= factor * done[0][lane];
                }
            }
        }
        for t in 0..n {
            let sum = dot(&v[..t], &factor[t * n..][..t]);
            for (v, sum) in v[t].iter_mut().zip(sum) {
                *v = *v / pivots[t] - sum;
            }
        }
        for (&column, v) in order.iter().zip(&v) {
            for (weight, v) in self.weights[column].iter_mut().zip(v) {
                *weight += v;
            }
        }
    }

    fn search<const K: usize>(&self) -> Search<'_, L, K> {
        Search {
            lattice: &self.metric.lattice,
            count: self.count,
            group_size: self.group_size,
            levels: self.levels,
            weights: &self.weights,
            scales: &self.scales,
        }
    }

    /// Searches integers; returns the errors `w - q s` by column.
    #[inline(always)]
    fn search_integers(&mut self) -> Vec<Lanes> {
        let errors = match self.scheme.is_path() {
            true => self.search::<KEPT_ALONG_PATHS>().run(),
            false => self.search::<KEPT>().run(),
        };
        let (mut states, mut before) = ([PathState::START; ROWS], None);
        for &column in &self.metric.lattice.order {
            let scales = &self.scales[column / self.group_size];
            for lane in 0..ROWS {
                let scale = scales[lane];
                let integer = (self.weights[column][lane] - errors[column][lane]) / scale;
                let state = enter(states[lane], before, column);
                let [(integer, state), _] = self.levels.two_nearest(state, integer);
                let is_zero = scale == 0.0;
                self.integers[column][lane] = if is_zero { self.levels.at_rest() } else { integer };
                states[lane] = state;
            }
            before = Some(column);
        }
        errors
    }

    /// One sweep over all groups.
    #[inline(always)]
    fn descend(&mut self, errors: &mut [Lanes]) {
        let n = self.metric.n;
        let mut pulls = vec![[0.0; ROWS]; self.group_size];
        for group in 0..self.scales.len() {
            let first = group * self.group_size;
            let width = self.group_size.min(n - first);
            // How the error would fall if an integer grew, before division by the curvature.
            dots(errors, &self.metric.hessian[first * n..], n, &mut pulls[..width]);
            self.move_scale(group, errors, &mut pulls[..width]);
            if !self.scheme.is_path() {
                self.move_integers(group, errors, &mut pulls[..width]);
            }
        }
    }

    /// Moves each of a group's integers to where the error is least.
    #[inline(always)]
    fn move_integers(&mut self, group: usize, errors: &mut [Lanes], pulls: &mut [Lanes]) {
        let (n, first, width) = (self.metric.n, group * self.group_size, pulls.len());
        for i in 0..width {
            let row = &self.metric.hessian[(first + i) * n + first..][..width];
            let (integers, scales) = (&mut self.integers[first + i], &self.scales[group]);
            let mut change = [0.0; ROWS];
            for lane in 0..ROWS {
                let (integer, scale) = (integers[lane], scales[lane]);
                let best = integer + pulls[i][lane] / (row[i] * scale);
                integers[lane] = self.levels.nearest(if scale == 0.0 { 0.0 } else { best });
                change[lane] = (integer - integers[lane]) * scale;
                errors[first + i][lane] += change[lane];
            }
            for (pull, &h) in pulls[i + 1..width].iter_mut().zip(&row[i + 1..]) {
                for lane in 0..ROWS {
                    pull[lane] += h * change[lane];
                }
            }
        }
    }

    /// Moves a group's scale to the least-squares one, where that lowers the error after rounding to
    /// float16.
    #[inline(always)]
    fn move_scale(&mut self, group: usize, errors: &mut [Lanes], pulls: &mut [Lanes]) {
        let (first, width) = (group * self.group_size, pulls.len());
        let integers = &self.integers[first..first + width];
        let mut curvatures = vec![[0.0; ROWS]; width];
        let hessian = &self.metric.hessian[first * self.metric.n + first..];
        dots(integers, hessian, self.metric.n, &mut curvatures);
        let (mut pull, mut curvature) = ([0.0; ROWS], [0.0; ROWS]);
        for i in 0..width {
            for lane in 0..ROWS {
                pull[lane] += integers[i][lane] * pulls[i][lane];
                curvature[lane] += integers[i][lane] * curvatures[i][lane];
            }
        }
        let mut change = [0.0; ROWS];
        for (lane, scale) in self.scales[group].iter_mut().enumerate() {
            let moved = f16::from_f32(*scale + pull[lane] / curvature[lane]).to_f32();
            let step = moved - *scale;
            let falls = step * (step * curvature[lane] - 2.0 * pull[lane]) < 0.0;
            if falls && moved.is_finite() && moved != 0.0 {
                (*scale, change[lane]) = (moved, step);
            }
        }
        for i in 0..width {
            for lane in 0..ROWS {
                errors[first + i][lane] -= integers[i][lane] * change[lane];
                pulls[i][lane] -= curvatures[i][lane] * change[lane];
            }
        }
    }
}

/// Adds rows, `[rows, n]`, times `unit` to lanes, `[n]`.
#[inline(always)]
fn add_rows(lanes: &mut [Lanes], rows: &[f32], unit: f32) {
    for (row, values) in rows.chunks(lanes.len()).enumerate() {
        for (lanes, value) in lanes.iter_mut().zip(values) {
            lanes[row] += value * unit;
        }
    }
}

impl Choice {
    fn finish(self, count: usize, errors: Vec<f32>) -> Rounded {
        let rows = 0..count;
        let scales =
            rows.clone().flat_map(|row| self.scales.iter().map(move |s| f16::from_f32(s[row])));
        let integers = rows.flat_map(|row| self.integers.iter().map(move |q| q[row] as i8));
        Rounded { scales: scales.collect(), integers: integers.collect(), errors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 72;
    const COUNT: usize = 5;

    /// Inputs of a hidden layer as they are in models: strongly correlated, of unequal size.
    fn inputs(tokens: usize) -> Vec<Vec<f64>> {
        let noise = |i: usize| ((i * 7919 + 13) * (i + 104_729) % 10_007) as f64 / 10_007.0 - 0.5;
        let row = |t: usize| {
            let common = [noise(t), noise(t + 1_000), noise(t + 2_000)];
            let input = |i: usize| {
                let mixed: f64 = (0..3).map(|k| common[k] * noise(31 * i + k)).sum();
                (4.0 * mixed + 0.3 * noise(t * N + i)) * (1.0 + 3.0 * noise(i + 77).abs())
            };
            (0..N).map(input).collect()
        };
        (0..tokens).map(row).collect()
    }

    fn second_moments(inputs: &[Vec<f64>]) -> Vec<f64> {
        let mean = |i: usize, j: usize| inputs.iter().map(|x| x[i] * x[j]).sum::<f64>();
        (0..N * N).map(|at| mean(at / N, at % N) / inputs.len() as f64).collect()
    }

    fn weights() -> Vec<f32> {
        (0..COUNT * N)
            .map(|i| ((i * 2_654_435_761 % 65_537) as f32 / 65_537.0 - 0.5) * 0.1)
            .collect()
    }

    fn rows(weights: &[f32], tiles: TileLayout) -> Unrounded<'_> {
        Unrounded { weights, offsets: &[], tiles, exponent: -16 }
    }

    fn restore(rounded: &Rounded, tiles: TileLayout, exponent: i32) -> Vec<f64> {
        let unit = f64::from(exponent).exp2();
        let weight = |(at, &q): (usize, &i8)| {
            let group = at / N * tiles.groups() + at % N / tiles.group_size();
            f64::from(q) * rounded.scales[group].to_f64() * unit
        };
        rounded.integers.iter().enumerate().map(weight).collect()
    }

    /// Mean squared difference of the outputs.
    fn output_error(inputs: &[Vec<f64>], exact: &[f64], found: &[f64]) -> f64 {
        let rows = exact.chunks(N).zip(found.chunks(N)).map(|(exact, found)| {
            let output = |x: &Vec<f64>| (0..N).map(|i| (exact[i] - found[i]) * x[i]).sum::<f64>();
            inputs.iter().map(|x| output(x).powi(2)).sum::<f64>()
        });
        rows.sum::<f64>() / inputs.len() as f64
    }

    #[test]
    fn outputs_are_kept_better_than_by_rounding_to_the_nearest() {
        let (inputs, weights) = (inputs(400), weights());
        let exact: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        let metric = Metric::new(second_moments(&inputs), None);
        for (group_size, scheme, factor) in [
            (32, Scheme::Int4, 0.5),
            (64, Scheme::Nl4, 0.5),
            (64, Scheme::Tc3, 0.5),
            (128, Scheme::Int8, 0.5),
        ] {
            let tiles = TileLayout::new(COUNT, N, scheme, group_size).unwrap();
            let exponent = -16;
            let found = restore(&metric.round(rows(&weights, tiles)), tiles, exponent);
            let mut nearest = Vec::new();
            for group in weights.chunks(N).flat_map(|row| row.chunks(group_size)) {
                let mut integers = vec![0; group.len()];
                let scale = quantize_group(group, scheme, None, exponent, &mut integers).to_f64();
                let unit = scale * f64::from(exponent).exp2();
                nearest.extend(integers.iter().map(|&q| f64::from(q) * unit));
            }
            let [found, nearest] = [&found, &nearest].map(|w| output_error(&inputs, &exact, w));
            assert!(found < factor * nearest, "{scheme:?} / {group_size}: {found}, {nearest}");
        }
    }

    /// With inputs twice as large as the float model's, the best weights are half as large.
    #[test]
    fn the_target_makes_up_for_other_inputs() {
        let inputs = inputs(400);
        let second = second_moments(&inputs);
        let shift = second.iter().map(|&h| -0.5 * h as f32).collect();
        let metric = Metric::new(second, Some(shift));
        let tiles = TileLayout::new(COUNT, N, Scheme::Int8, 32).unwrap();
        let found = restore(&metric.round(rows(&weights(), tiles)), tiles, -16);
        let half: Vec<f64> = weights().iter().map(|&w| 0.5 * f64::from(w)).collect();
        let zero = vec![0.0; half.len()];
        let [error, all] = [&found, &zero].map(|w| output_error(&inputs, &half, w));
        assert!(error < 0.005 * all, "{error} of {all}"); // damping leaves some
    }

    #[test]
    fn inputs_that_are_zero_or_overflow_do_no_harm() {
        let mut second = second_moments(&inputs(20)); // of rank 20, too
        (0..N).for_each(|i| [i, i * N].iter().for_each(|&at| second[at] = 0.0));
        for second in [second, vec![0.0; N * N], vec![f64::NAN; N * N]] {
            let tiles = TileLayout::new(COUNT, N, Scheme::Int4, 32).unwrap();
            let found =
                restore(&Metric::new(second, None).round(rows(&weights(), tiles)), tiles, -16);
            let difference = found.iter().zip(weights()).map(|(f, w)| (f - f64::from(w)).abs());
            assert!(difference.fold(0.0, f64::max) < 0.1);
        }
    }

    #[test]
    fn the_factors_are_those_of_the_damped_moments() {
        let metric = Metric::new(second_moments(&inputs(100)), None);
        let Lattice { order, factor, pivots } = &metric.lattice;
        let factor = |t: usize, u: usize| match t.cmp(&u) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 1.0,
            std::cmp::Ordering::Greater => f64::from(factor[t * N + u]),
        };
        for (u, &column) in order.iter().enumerate() {
            for (v, &other) in order.iter().enumerate() {
                let terms = (0..N).map(|t| factor(t, u) * f64::from(pivots[t]) * factor(t, v));
                let exact = f64::from(metric.hessian[column * N + other]);
                assert!((terms.sum::<f64>() - exact).abs() < 1e-4, "{u}, {v}");
            }
        }
    }

    #[test]
    fn moments_may_be_in_any_unit() {
        let tiles = TileLayout::new(COUNT, N, Scheme::Int4, 32).unwrap();
        let round = |unit: f64| {
            let second: Vec<f64> = second_moments(&inputs(50)).iter().map(|h| h * unit).collect();
            let shift = second.iter().map(|&h| (0.1 * h) as f32).collect();
            Metric::new(second, Some(shift)).round(rows(&weights(), tiles))
        };
        let found = round(1.0);
        for exponent in [-80, 80] {
            let scaled = round(2.0f64.powi(exponent));
            assert!(found.integers == scaled.integers && found.scales == scaled.scales);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let metric = Metric::new(second_moments(&inputs(100)), None);
        for scheme in [Scheme::Int4, Scheme::Nl4, Scheme::Tc3] {
            let tiles = TileLayout::new(COUNT, N, scheme, 64).unwrap();
            let plain = metric.round_anywhere(rows(&weights(), tiles));
            let fast = metric.round(rows(&weights(), tiles));
            assert!(plain.integers == fast.integers && plain.scales == fast.scales, "{scheme:?}");
        }
    }
}
