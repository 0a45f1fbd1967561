//! Integers for rows of a matrix by the K-best search.
//!
//! With `H = Mᵀ D M`, `M` unit lower triangular and `D` diagonal, a row's error is
//! `Σ D_t (e_t + Σ_u<t M_tu e_u)²`, where `e = w - q s` are the errors of its weights: the integers of a
//! column `t` can make up for the errors of the columns before it. Rounding each to the nearest after they
//! have been made up for (GPTQ, LDLQ) is Babai's nearest plane algorithm (Chen et al., 2025, arXiv
//! 2507.18553), which never looks back. Here K beginnings of a row are kept, those of the least error, and
//! each goes on with the two integers nearest to its target (with one, if the other is out of range): the
//! M-algorithm (Anderson and Mohan, 1984, "Sequential coding algorithms"), which decoders of lattices call
//! K-best (Guo and Nilsson, 2006). With K = 1 it is Babai's.
//!
//! Columns go in blocks: within one, each path carries what the block's later columns have to make up for;
//! of the steps before, only errors are kept. Paths soon have a common beginning, of which they share the
//! products.

use std::ops::Range;

use cerebellum::quant::{PATH_INPUTS, PathState, input_at};

use super::cholesky::cholesky;
use super::lanes::{Lanes, ROWS, dots};
use super::levels::Levels;
use super::trellis::enter;

/// Columns of a block.
const BLOCK: usize = 64;

/// What a search goes by. Columns are numbered in its order.
pub struct Lattice {
    /// The matrix's columns.
    pub order: Vec<usize>,
    /// `M`, `[n, n]`; its diagonal and what is above are not looked at.
    pub factor: Vec<f32>,
    /// The diagonal of `D`.
    pub pivots: Vec<f32>,
}

impl Lattice {
    /// `matrix`, `[n, n]`, with `damping` added to its diagonal, ten times more as long as it is not positive
    /// definite. The last column has the smallest diagonal, the one before it the smallest that the last leaves,
    /// and so on.
    pub fn factor(matrix: &mut [f64], damping: f64) -> Self {
        let n = matrix.len().isqrt();
        Self::factor_from((0..n).collect(), 1, matrix, damping)
    }

    /// The same, but the columns of a path stay together, in its order, and the last path is the one of the
    /// smallest trace; a path that the matrix ends within is the first.
    pub fn along_paths(matrix: &mut [f64], damping: f64) -> Self {
        let n = matrix.len().isqrt();
        let paths = (0..n).step_by(PATH_INPUTS);
        let columns = |path| (0..PATH_INPUTS).rev().map(move |place| path + input_at(place));
        let start = paths.flat_map(columns).filter(|&column| column < n).collect();
        Self::factor_from(start, PATH_INPUTS, matrix, damping)
    }

    /// Columns in the order `start`, but for units of `unit` that are sorted.
    fn factor_from(start: Vec<usize>, unit: usize, matrix: &mut [f64], mut damping: f64) -> Self {
        let n = start.len();
        let (mut order, factor) = loop {
            (0..n).for_each(|i| matrix[i * n + i] += damping);
            let row = |&i: &usize| start.iter().map(move |&j| i * n + j);
            let mut factor: Vec<f64> = start.iter().flat_map(row).map(|at| matrix[at]).collect();
            if let Some(order) = cholesky(&mut factor, n, unit) {
                break (order, factor);
            }
            damping *= 10.0;
        };
        // `H = L Lᵀ` read backwards is `H = Mᵀ D M`.
        order.reverse();
        order.iter_mut().for_each(|column| *column = start[*column]);
        let at = |p: usize, q: usize| factor[(n - 1 - q) * n + n - 1 - p];
        let mut unit = vec![0.0; n * n];
        for t in 0..n {
            (0..t).for_each(|u| unit[t * n + u] = (at(t, u) / at(t, t)) as f32);
        }
        let pivots = (0..n).map(|t| at(t, t).powi(2) as f32).collect();
        Self { order, factor: unit, pivots }
    }
}

/// Up to 32 rows, of which integers are searched, with `K` paths that are kept of each.
pub struct Search<'a, L, const K: usize> {
    pub lattice: &'a Lattice,
    /// How many rows there are.
    pub count: usize,
    pub group_size: usize,
    /// The integers that there are.
    pub levels: L,
    /// `[n]`, by the matrix's columns.
    pub weights: &'a [Lanes],
    /// `[groups]`.
    pub scales: &'a [Lanes],
}

/// The beginning of a row, within a block.
#[derive(Clone, Copy)]
struct Path {
    /// The error so far; infinite if there is no such path.
    cost: f32,
    /// The path that this one was when the block began.
    origin: usize,
    /// Where it is on the levels' path.
    state: PathState,
    /// What each of the block's columns has to make up for.
    feedback: [f32; BLOCK],
    /// The errors of the block's columns so far.
    errors: [f32; BLOCK],
}

/// The errors of all rows' paths before the current block.
struct Trail<const K: usize> {
    /// Of the steps in which the paths of each row agree.
    settled: Vec<Lanes>,
    /// Of the steps after those, path by path.
    open: [Vec<Lanes>; K],
    /// In how many steps the paths of a row agree.
    agreed: Vec<usize>,
}

impl<L: Levels, const K: usize> Search<'_, L, K> {
    /// The errors `w - q s` of the best integers found, `[n]`, by the matrix's columns.
    #[inline(always)]
    pub fn run(&self) -> Vec<Lanes> {
        let (trail, paths) = self.walk();
        let mut best = [0; ROWS];
        for (best, paths) in best.iter_mut().zip(&paths) {
            let least = (0..K).min_by(|&a, &b| paths[a].cost.total_cmp(&paths[b].cost));
            *best = least.expect("K paths");
        }
        let mut errors = vec![[0.0; ROWS]; self.weights.len()];
        for (step, &column) in self.lattice.order.iter().enumerate() {
            errors[column] = trail.at(step, &best);
        }
        errors
    }

    #[inline(always)]
    fn walk(&self) -> (Trail<K>, Vec<[Path; K]>) {
        let n = self.weights.len();
        let none = Path {
            cost: f32::INFINITY,
            origin: 0,
            state: PathState::START,
            feedback: [0.0; BLOCK],
            errors: [0.0; BLOCK],
        };
        let mut paths = vec![[none; K]; self.count];
        paths.iter_mut().for_each(|paths| paths[0].cost = 0.0);
        let mut trail = Trail::new(self.count);
        for start in (0..n).step_by(BLOCK) {
            let block = start..n.min(start + BLOCK);
            trail.feedback(&self.lattice.factor[start * n..], n, block.len(), &mut paths);
            let corner = self.corner(&block);
            for (row, paths) in paths.iter_mut().enumerate() {
                // What is no path agrees with the first, which is always one.
                paths.iter_mut().enumerate().for_each(|(k, path)| {
                    path.origin = if path.cost < f32::INFINITY { k } else { 0 };
                });
                for (i, step) in block.clone().enumerate() {
                    self.extend(paths, row, step, i, &corner[i]);
                }
            }
            trail.follow(&paths, &block);
        }
        (trail, paths)
    }

    /// `M` within a block, transposed: what the error of a column is to each later one.
    #[inline(always)]
    fn corner(&self, block: &Range<usize>) -> [[f32; BLOCK]; BLOCK] {
        let n = self.weights.len();
        let mut corner = [[0.0; BLOCK]; BLOCK];
        for (i, step) in block.clone().enumerate() {
            for (later, factor) in corner[i][..block.len()].iter_mut().enumerate().skip(i + 1) {
                *factor = self.lattice.factor[(block.start + later) * n + step];
            }
        }
        corner
    }

    /// Takes a row's paths one step further, to column `i` of the block, whose error changes what later ones
    /// have to make up for by `factors`.
    #[inline(always)]
    fn extend(
        &self,
        paths: &mut [Path; K],
        row: usize,
        step: usize,
        i: usize,
        factors: &[f32; BLOCK],
    ) {
        let (column, before) = (self.lattice.order[step], step.checked_sub(1));
        let before = before.map(|step| self.lattice.order[step]);
        paths.iter_mut().for_each(|path| path.state = enter(path.state, before, column));
        let (costs, errors, states) = self.candidates(paths, row, step, i);
        let ranks = ranks(&costs);
        let is_kept = |way: usize, k: usize| ranks[way][k] < K as u32;
        // A path goes on in its place with the nearest integer, which is never worse than the second: products
        // of an integer and a float16 are exact. What is kept of the second goes where a path ends.
        let mut ending = (0..K).filter(|&k| !is_kept(NEAREST, k));
        let mut chosen: [_; K] = std::array::from_fn(|k| (NEAREST, k));
        for k in (0..K).filter(|&k| is_kept(SECOND, k)) {
            let place = ending.next().expect("as many paths end as begin");
            paths[place] = paths[k];
            chosen[place] = (SECOND, k);
        }
        for (path, (way, k)) in paths.iter_mut().zip(chosen) {
            let error = errors[way][k];
            (path.cost, path.state) = (costs[way][k], states[way][k]);
            path.errors[i] = error;
            // Of the whole block, for the sake of vectors; nobody reads what lies behind.
            for (feedback, factor) in path.feedback.iter_mut().zip(factors) {
                *feedback += error * factor;
            }
        }
    }

    /// Costs, errors and states of the paths with the integer nearest to their target, then of those with the second
    /// nearest. A cost is infinite where there is no such path, and where it is not a number.
    #[inline(always)]
    fn candidates(
        &self,
        paths: &[Path; K],
        row: usize,
        step: usize,
        i: usize,
    ) -> (Ways<f32, K>, Ways<f32, K>, Ways<PathState, K>) {
        let (column, pivot) = (self.lattice.order[step], self.lattice.pivots[step]);
        let weight = self.weights[column][row];
        let scale = self.scales[column / self.group_size][row];
        let (mut costs, mut errors) = ([[f32::INFINITY; K]; 2], [[weight; K]; 2]);
        let mut states = [[PathState::START; K]; 2];
        let wanted: [f32; K] = std::array::from_fn(|k| weight + paths[k].feedback[i]);
        let cost = |k: usize, integer: f32| {
            let miss = wanted[k] - integer * scale;
            (paths[k].cost + pivot * miss * miss).min(f32::INFINITY)
        };
        if scale == 0.0 {
            costs[NEAREST] = std::array::from_fn(|k| cost(k, 0.0));
            return (costs, errors, states);
        }
        for k in 0..K {
            let ways = self.levels.two_nearest(paths[k].state, wanted[k] / scale);
            for (way, (integer, state)) in ways.into_iter().enumerate() {
                states[way][k] = state;
                if way == NEAREST || !integer.is_nan() {
                    costs[way][k] = cost(k, integer);
                    errors[way][k] = weight - integer * scale;
                }
            }
        }
        (costs, errors, states)
    }
}

/// A value of each path with the nearest integer, and with the second nearest.
type Ways<T, const K: usize> = [[T; K]; 2];

/// Which of [`Ways`].
const NEAREST: usize = 0;
const SECOND: usize = 1;

/// How many are better than each; of equals, the first is.
#[inline(always)]
fn ranks<const K: usize>(costs: &Ways<f32, K>) -> Ways<u32, K> {
    let mut ranks = [[0; K]; 2];
    for other in 0..2 * K {
        let cost = costs[other / K][other % K];
        // Without branches, not even those of overflow checks, so that all are compared at once.
        for (way, ranks) in ranks.iter_mut().enumerate() {
            for k in 0..K {
                let before =
                    (cost < costs[way][k]) | (cost == costs[way][k]) & (other < way * K + k);
                ranks[k] = u32::wrapping_add(ranks[k], u32::from(before));
            }
        }
    }
    ranks
}

impl<const K: usize> Trail<K> {
    fn new(count: usize) -> Self {
        Self {
            settled: Vec::new(),
            open: std::array::from_fn(|_| Vec::new()),
            agreed: vec![0; count],
        }
    }

    /// What the next `width` columns have to make up for, by their rows of `M`.
    #[inline(always)]
    fn feedback(&self, factors: &[f32], n: usize, width: usize, paths: &mut [[Path; K]]) {
        let (mut shared, mut own) = ([[0.0; ROWS]; BLOCK], [[0.0; ROWS]; BLOCK]);
        dots(&self.settled, factors, n, &mut shared[..width]);
        for (k, errors) in self.open.iter().enumerate() {
            dots(errors, &factors[self.settled.len()..], n, &mut own[..width]);
            for (row, paths) in paths.iter_mut().enumerate() {
                for (i, feedback) in paths[k].feedback.iter_mut().enumerate() {
                    *feedback = shared[i][row] + own[i][row];
                }
            }
        }
    }

    /// Goes on behind a block: its errors come last, after those of the path that each path comes from.
    #[inline(always)]
    fn follow(&mut self, paths: &[[Path; K]], block: &Range<usize>) {
        for at in 0..self.open[0].len() {
            let before: [Lanes; K] = std::array::from_fn(|k| self.open[k][at]);
            for (k, open) in self.open.iter_mut().enumerate() {
                for (row, paths) in paths.iter().enumerate() {
                    open[at][row] = before[paths[k].origin][row];
                }
            }
        }
        for (k, open) in self.open.iter_mut().enumerate() {
            open.extend((0..block.len()).map(|i| lanes(paths, |paths| paths[k].errors[i])));
        }
        for (agreed, paths) in self.agreed.iter_mut().zip(paths) {
            if paths.iter().all(|path| path.origin == paths[0].origin) {
                *agreed = block.start;
            }
        }
        let agreed = self.agreed.iter().min().expect("a row") - self.settled.len();
        for (k, open) in self.open.iter_mut().enumerate() {
            let agreed = open.drain(..agreed);
            if k == 0 {
                self.settled.extend(agreed);
            }
        }
    }

    /// The errors of a step, of one path for each row.
    #[inline(always)]
    fn at(&self, step: usize, paths: &[usize; ROWS]) -> Lanes {
        match step.checked_sub(self.settled.len()) {
            None => self.settled[step],
            Some(at) => std::array::from_fn(|row| self.open[paths[row]][at][row]),
        }
    }
}

/// A value of each row; 0 where there is none.
#[inline(always)]
fn lanes<const K: usize>(paths: &[[Path; K]], value: impl Fn(&[Path; K]) -> f32) -> Lanes {
    let mut lanes = [0.0; ROWS];
    lanes.iter_mut().zip(paths).for_each(|(lane, paths)| *lane = value(paths));
    lanes
}

#[cfg(test)]
mod tests {
    use cerebellum::quant::{QUARTERS, Scheme, place_in_path};

    use super::super::levels::{Integers, Table};
    use super::super::trellis::PathLevels;
    use super::*;

    const COUNT: usize = 5;
    const K: usize = 16;

    fn integers() -> Integers {
        Integers::of(Scheme::Int4)
    }

    /// Numbers between -0.5 and 0.5.
    fn noise(i: usize) -> f32 {
        ((i * 7919 + 13) * (i + 104_729) % 10_007) as f32 / 10_007.0 - 0.5
    }

    /// Errors of `n` columns that make up for each other in part, as neighbours do most.
    fn lattice(n: usize) -> Lattice {
        let factor = |t: usize, u: usize| 3.0 * noise(t * n + u) / (1.0 + t.abs_diff(u) as f32);
        Lattice {
            order: (0..n).map(|i| (i * 7 + 3) % n).collect(),
            factor: (0..n * n).map(|at| factor(at / n, at % n)).collect(),
            pivots: (0..n).map(|t| 1.5 + noise(t)).collect(),
        }
    }

    fn weights(n: usize) -> Vec<Lanes> {
        (0..n).map(|i| std::array::from_fn(|row| 10.0 * noise(i * ROWS + row))).collect()
    }

    fn search_of<'a, L: Levels>(
        levels: L,
        lattice: &'a Lattice,
        weights: &'a [Lanes],
        scales: &'a [Lanes],
    ) -> Search<'a, L, K> {
        let group_size = weights.len() / scales.len();
        Search { lattice, count: COUNT, group_size, levels, weights, scales }
    }

    fn search<'a>(
        lattice: &'a Lattice,
        weights: &'a [Lanes],
        scales: &'a [Lanes],
    ) -> Search<'a, Integers, K> {
        search_of(integers(), lattice, weights, scales)
    }

    /// `Σ D_t (e_t + Σ_u<t M_tu e_u)²` of errors in the search's order.
    fn cost(lattice: &Lattice, errors: &[f32]) -> f64 {
        let n = errors.len();
        let term = |t: usize| {
            let made_up: f64 =
                (0..t).map(|u| f64::from(lattice.factor[t * n + u]) * f64::from(errors[u])).sum();
            f64::from(lattice.pivots[t]) * (f64::from(errors[t]) + made_up).powi(2)
        };
        (0..n).map(term).sum()
    }

    /// The least cost that integers can have after these errors.
    fn exhaustive<L>(
        search: &Search<L, K>,
        weights: &[i8],
        row: usize,
        errors: &mut Vec<f32>,
    ) -> f64 {
        let step = errors.len();
        let Some(&column) = search.lattice.order.get(step) else {
            return cost(search.lattice, errors);
        };
        let mut least = f64::INFINITY;
        for &weight in weights {
            errors.push(search.weights[column][row] - f32::from(weight) * search.scales[0][row]);
            least = least.min(exhaustive(search, weights, row, errors));
            errors.pop();
        }
        least
    }

    /// Rounding to the nearest, each after what came before it was made up for.
    fn babai<L: Levels>(search: &Search<L, K>, row: usize) -> f64 {
        let n = search.weights.len();
        let mut errors: Vec<f32> = Vec::new();
        for (step, &column) in search.lattice.order.iter().enumerate() {
            let factors = &search.lattice.factor[step * n..][..step];
            let feedback: f32 = factors.iter().zip(&errors).map(|(m, e)| m * e).sum();
            let (weight, scale) =
                (search.weights[column][row], search.scales[column / search.group_size][row]);
            errors.push(weight - search.levels.nearest((weight + feedback) / scale) * scale);
        }
        cost(search.lattice, &errors)
    }

    /// The errors of each row, in the search's order.
    fn found<L: Levels>(search: &Search<L, K>) -> Vec<Vec<f32>> {
        let by_column = search.run();
        let of_row =
            |row| search.lattice.order.iter().map(|&column| by_column[column][row]).collect();
        (0..COUNT).map(of_row).collect()
    }

    #[test]
    fn the_cost_of_each_path_is_that_of_its_errors_over_all_blocks() {
        for n in [1, BLOCK - 1, BLOCK, 5 * BLOCK + 9] {
            let (lattice, weights) = (lattice(n), weights(n));
            let scales = [[0.9; ROWS]];
            let (trail, paths) = search(&lattice, &weights, &scales).walk();
            for (row, paths) in paths.iter().enumerate() {
                for (k, path) in paths.iter().enumerate().filter(|(_, path)| path.cost < 1e30) {
                    let errors: Vec<f32> =
                        (0..n).map(|step| trail.at(step, &[k; ROWS])[row]).collect();
                    let exact = cost(&lattice, &errors);
                    let difference = (f64::from(path.cost) - exact).abs();
                    assert!(difference < 1e-4 * exact, "{n}: {}, {exact}", path.cost);
                }
            }
        }
    }

    #[test]
    fn paths_settle_even_where_there_is_but_one() {
        let n = 12 * BLOCK;
        let (lattice, weights) = (lattice(n), weights(n));
        let mut scales = [[0.9; ROWS]];
        scales[0][1] = 0.0;
        let (trail, paths) = search(&lattice, &weights, &scales).walk();
        assert!(trail.settled.len() >= n / 2, "{}", trail.settled.len());
        assert!(paths[1][1..].iter().all(|path| path.cost == f32::INFINITY));
    }

    #[test]
    fn what_is_no_number_does_no_harm() {
        let n = BLOCK + 3;
        let (mut lattice, mut weights) = (lattice(n), weights(n));
        weights[5][0] = f32::NAN;
        weights[9][1] = f32::MAX;
        lattice.pivots[7] = f32::INFINITY;
        let scales = [[0.9; ROWS]];
        assert_eq!(search(&lattice, &weights, &scales).run().len(), n);
    }

    #[test]
    fn errors_are_those_of_integers_in_range() {
        let n = 2 * BLOCK;
        let (lattice, weights) = (lattice(n), weights(n));
        // Weights beyond the range, of a negative scale, and a group without any.
        let scales = [[0.3; ROWS], [-0.9; ROWS], [0.0; ROWS], [0.9; ROWS]];
        let search = search(&lattice, &weights, &scales);
        for (column, errors) in search.run().iter().enumerate() {
            let scale = scales[column / search.group_size][0];
            for row in 0..COUNT {
                let units = weights[column][row] - errors[row];
                if scale == 0.0 {
                    assert!(units == 0.0);
                } else {
                    let integer = units / scale;
                    assert!((integer - integer.round()).abs() < 1e-4, "{integer}");
                    assert!((-8.0..=7.0).contains(&integer.round()));
                }
            }
        }
    }

    #[test]
    fn few_columns_have_the_best_integers() {
        fn check<L: Levels>(levels: L, weights: &[i8], scale: f32) {
            let n = 4;
            let (lattice, rows, scales) = (lattice(n), super::tests::weights(n), [[scale; ROWS]]);
            let search = search_of(levels, &lattice, &rows, &scales);
            for (row, errors) in found(&search).iter().enumerate() {
                let best = exhaustive(&search, weights, row, &mut Vec::new());
                let cost = cost(&lattice, errors);
                assert!(cost <= best * (1.0 + 1e-5), "{row}: {cost}, {best}");
            }
        }
        check(integers(), &[-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7], 0.9);
        let levels = Scheme::Nl4.levels().unwrap();
        check(Table::new(levels), levels, -0.2);
    }

    /// The least cost that levels along a path can have after these errors.
    fn exhaustive_along_path(
        search: &Search<&PathLevels, K>,
        levels: &[i8],
        row: usize,
        state: PathState,
        errors: &mut Vec<f32>,
    ) -> f64 {
        let step = errors.len();
        let Some(&column) = search.lattice.order.get(step) else {
            return cost(search.lattice, errors);
        };
        let before = step.checked_sub(1).map(|step| search.lattice.order[step]);
        let state = enter(state, before, column);
        let mut least = f64::INFINITY;
        for bit in [0, 1] {
            let quarter = levels.iter().skip(state.quarter(bit).into()).step_by(QUARTERS);
            for &level in quarter {
                errors.push(search.weights[column][row] - f32::from(level) * search.scales[0][row]);
                let found = exhaustive_along_path(search, levels, row, state.next(bit), errors);
                least = least.min(found);
                errors.pop();
            }
        }
        least
    }

    #[test]
    fn few_columns_have_the_best_path() {
        // Of the second step the path reaches one input, past those of steps that there are not.
        let n = 5;
        for scheme in [Scheme::Tc3, Scheme::Tc2] {
            let levels = scheme.levels().unwrap();
            let (along, lattice) =
                (PathLevels::new(levels), Lattice { order: (0..n).collect(), ..lattice(n) });
            let (rows, scales) = (weights(n), [[-0.2; ROWS]]);
            let search = search_of(&along, &lattice, &rows, &scales);
            for (row, errors) in found(&search).iter().enumerate() {
                let (start, mut none) = (PathState::START, Vec::new());
                let best = exhaustive_along_path(&search, levels, row, start, &mut none);
                let cost = cost(&lattice, errors);
                // Of each quarter only the nearest level is tried.
                assert!(
                    cost >= best * (1.0 - 1e-5) && cost <= 1.1 * best,
                    "{scheme:?} {row}: {cost}, {best}"
                );
            }
        }
    }

    /// What the order of columns is for: paths from their beginning to their end, but for units that are sorted.
    #[test]
    fn columns_follow_the_paths() {
        let n = 2 * PATH_INPUTS + 9;
        let entry =
            |i: usize, j: usize| noise(i.min(j) * n + i.max(j)) + if i == j { 99.0 } else { 0.0 };
        let mut matrix: Vec<f64> = (0..n * n).map(|at| entry(at / n, at % n).into()).collect();
        let order = Lattice::along_paths(&mut matrix, 0.0).order;
        let path = |column: &usize| column / PATH_INPUTS;
        assert!(order[..9].iter().all(|column| path(column) == 2), "{order:?}");
        for unit in order.chunk_by(|a, b| path(a) == path(b)) {
            assert!(unit.is_sorted_by_key(|&column| place_in_path(column)), "{order:?}");
            assert_eq!(unit.len(), if path(&unit[0]) == 2 { 9 } else { PATH_INPUTS });
        }
    }

    #[test]
    fn many_columns_are_better_than_without_looking_back() {
        let n = 300;
        let (lattice, weights, scales) = (lattice(n), weights(n), [[0.9; ROWS]]);
        let search = search(&lattice, &weights, &scales);
        for (row, errors) in found(&search).iter().enumerate() {
            let (cost, babai) = (cost(&lattice, errors), babai(&search, row));
            assert!(cost < 0.9 * babai, "{row}: {cost}, {babai}");
        }
    }
}
