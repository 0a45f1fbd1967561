//! Second moments of a matrix's inputs, summed tile by tile.
//!
//! The sums are the same for any number of threads: tokens come in waves of a fixed size, a tile's
//! products of one wave are one matrix product on one thread, and each tile adds its waves in order.

use rayon::prelude::*;

use crate::reference::matmul::{View, ViewMut, matmul_of_columns};

/// Rows and columns of a tile.
const TILE: usize = 128;

/// Sums over the tokens of a text, of the float model's inputs `x` to a matrix and of the quantized
/// model's inputs `y` to the same matrix; `n` inputs each.
pub struct Moments {
    n: usize,
    tokens: usize,
    tiles: Vec<Tile>,
    /// Sums of `x` and of `y`, `[n]` each.
    sums: [Vec<f64>; 2],
}

/// A tile of a sum of products.
struct Tile {
    row: usize,
    column: usize,
    /// Of `y yᵀ`, or of `y (x - y)ᵀ`.
    shift: bool,
    /// `[TILE, TILE]` or what the edge leaves of it, row-major.
    sums: Vec<f64>,
}

impl Moments {
    /// No tokens yet.
    pub fn new(n: usize) -> Self {
        Self::with_shift(n, true)
    }

    /// The same for sums of one model's values alone, by [`add_alone`](Self::add_alone).
    pub fn alone(n: usize) -> Self {
        Self::with_shift(n, false)
    }

    fn with_shift(n: usize, shift: bool) -> Self {
        let mut tiles = Vec::new();
        for (row, column) in
            (0..n).step_by(TILE).flat_map(|i| (0..n).step_by(TILE).map(move |j| (i, j)))
        {
            let sums = vec![0.0; TILE.min(n - row) * TILE.min(n - column)];
            if shift {
                tiles.push(Tile { row, column, shift, sums: sums.clone() });
            }
            if column <= row {
                tiles.push(Tile { row, column, shift: false, sums });
            }
        }
        Self { n, tokens: 0, tiles, sums: [vec![0.0; n], vec![0.0; n]] }
    }

    /// Adds tokens: `x` and `y`, `[tokens, n]`. `x` is overwritten.
    pub fn add(&mut self, x: &mut [f32], y: &[f32]) {
        for (sum, rows) in self.sums.iter_mut().zip([&*x, y]) {
            for row in rows.chunks(self.n) {
                sum.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            }
        }
        x.iter_mut().zip(y).for_each(|(x, y)| *x -= y);
        self.add_products(x, y);
    }

    /// Adds tokens: `y`, `[tokens, n]`, to sums without a shift.
    pub fn add_alone(&mut self, y: &[f32]) {
        self.add_products(&[], y);
    }

    fn add_products(&mut self, x: &[f32], y: &[f32]) {
        let (n, tokens) = (self.n, y.len() / self.n);
        self.tokens += tokens;
        self.tiles
            .par_iter_mut()
            .for_each(|tile| tile.add(if tile.shift { x } else { y }, y, n, tokens));
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.n
    }

    /// The mean of `y yᵀ`, `[n, n]`: the Hessian of the squared error of the outputs, up to a factor.
    pub fn second(&self) -> Vec<f64> {
        let mut matrix = vec![0.0; self.n * self.n];
        for tile in self.tiles.iter().filter(|tile| !tile.shift) {
            tile.for_each(self.n, |row, column, sum| {
                let mean = sum / self.tokens as f64;
                matrix[row * self.n + column] = mean;
                matrix[column * self.n + row] = mean;
            });
        }
        matrix
    }

    /// The mean of `y (x - y)ᵀ`, `[n, n]`: how the error of what came before goes with the input.
    pub fn shift(&self) -> Vec<f32> {
        let mut matrix = vec![0.0; self.n * self.n];
        for tile in self.tiles.iter().filter(|tile| tile.shift) {
            tile.for_each(self.n, |row, column, sum| {
                matrix[row * self.n + column] = (sum / self.tokens as f64) as f32;
            });
        }
        matrix
    }

    /// The means of `x` and of `y`, `[n]` each.
    pub fn means(&self) -> [Vec<f64>; 2] {
        let mean = |sums: &Vec<f64>| sums.iter().map(|sum| sum / self.tokens as f64).collect();
        [mean(&self.sums[0]), mean(&self.sums[1])]
    }
}

impl Tile {
    /// Adds the products of columns of `y` with columns of `other`, both `[tokens, n]`.
    fn add(&mut self, other: &[f32], y: &[f32], n: usize, tokens: usize) {
        let (height, width) = (TILE.min(n - self.row), TILE.min(n - self.column));
        let mut wave = [0.0; TILE * TILE];
        let wave = &mut wave[..height * width];
        matmul_of_columns(
            ViewMut::new(wave, height, width, width),
            1.0,
            View::new(&y[self.row..], tokens, height, n),
            View::new(&other[self.column..], tokens, width, n),
        );
        self.sums.iter_mut().zip(wave).for_each(|(sum, wave)| *sum += f64::from(*wave));
    }

    fn for_each(&self, n: usize, mut visit: impl FnMut(usize, usize, f64)) {
        let width = TILE.min(n - self.column);
        for (index, &sum) in self.sums.iter().enumerate() {
            visit(self.row + index / width, self.column + index % width, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_equal_the_definition() {
        let (n, tokens) = (TILE + 3, 20);
        let data = |seed: usize| -> Vec<f32> {
            (0..tokens * n).map(|i| ((i * 31 + seed * 17) % 23) as f32 - 11.0).collect()
        };
        let (x, y) = (data(1), data(2));
        let mut moments = Moments::new(n);
        for (x, y) in x.chunks(n * 8).zip(y.chunks(n * 8)) {
            moments.add(&mut x.to_vec(), y);
        }
        let mean = |value: &dyn Fn(usize) -> f32| {
            (0..tokens).map(|t| f64::from(value(t * n))).sum::<f64>() / tokens as f64
        };
        let (second, shift) = (moments.second(), moments.shift());
        for (i, j) in [(0, 0), (5, TILE + 1), (TILE + 2, 7), (TILE, TILE)] {
            assert_eq!(second[i * n + j], mean(&|t| y[t + i] * y[t + j]));
            let expected = mean(&|t| y[t + i] * (x[t + j] - y[t + j])) as f32;
            assert_eq!(shift[i * n + j], expected);
        }
        assert_eq!(moments.means()[0][9], mean(&|t| x[t + 9]));
        assert_eq!(moments.means()[1][9], mean(&|t| y[t + 9]));
    }
}
