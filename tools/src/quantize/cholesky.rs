//! The Cholesky factorization of a symmetric positive definite matrix, smallest pivots first.
//!
//! Golub and Van Loan, "Matrix Computations", sections 4.2.6 to 4.2.9, in binary64: block column by block
//! column, the pivots of a block one after another (as LAPACK's `dpstrf` does for the largest). Products
//! run on the current rayon pool, one tile on one thread, so that the result does not depend on the number
//! of threads.

use rayon::prelude::*;

use crate::reference::Parallelism;
use crate::reference::matmul::{View, ViewMut, matmul_transposed};

/// Columns of a block.
const BLOCK: usize = 64;

/// Rows whose next column is worth a thread's while.
const ROWS_PER_TASK: usize = 512;

/// Overwrites the lower triangle of `a` (`[n, n]`, given whole) with `L` of `P a Pᵀ = L Lᵀ`, what is above
/// with nothing of use, and returns the rows of `a` in their new order: each next unit of `unit` neighbours, which
/// stay together, has the smallest trace of the Schur complement that the ones before it leave; what is no whole
/// unit stays last. `None` if `a` is not positive definite, to working precision.
pub fn cholesky(a: &mut [f64], n: usize, unit: usize) -> Option<Vec<usize>> {
    assert!(BLOCK.is_multiple_of(unit), "a block of whole units");
    let mut order: Vec<usize> = (0..n).collect();
    for start in (0..n).step_by(BLOCK) {
        let end = n.min(start + BLOCK);
        let mut rest: Vec<f64> = (start..n).map(|i| a[i * n + i]).collect();
        for j in start..end {
            if j % unit == 0 && j + unit <= n {
                let trace = |&at: &usize| rest[at - start..][..unit].iter().sum::<f64>();
                let units = (j..=n - unit).step_by(unit);
                let smallest = units.min_by(|x, y| trace(x).total_cmp(&trace(y)));
                let pivot = smallest.expect("j is one");
                for (column, other) in (j..j + unit).zip(pivot..) {
                    swap(a, n, column, other);
                    order.swap(column, other);
                    rest.swap(column - start, other - start);
                }
            }
            if !(rest[j - start] > 0.0 && rest[j - start].is_finite()) {
                return None;
            }
            let root = rest[j - start].sqrt();
            a[j * n + j] = root;
            let (above, below) = a.split_at_mut((j + 1) * n);
            let own = &above[j * n + start..j * n + j];
            let rows = below.par_chunks_mut(n).zip(&mut rest[j + 1 - start..]);
            rows.with_min_len(ROWS_PER_TASK).for_each(|(row, rest)| {
                let sum: f64 = row[start..j].iter().zip(own).map(|(a, b)| a * b).sum();
                row[j] = (row[j] - sum) / root;
                *rest -= row[j] * row[j];
            });
        }
        subtract_products(a, n, start, end);
    }
    Some(order)
}

/// Exchanges rows and columns `i <= j`: before column `i` there is `L`, whose rows go along; from there on the
/// matrix is symmetric still.
fn swap(a: &mut [f64], n: usize, i: usize, j: usize) {
    if i != j {
        let (above, below) = a.split_at_mut(j * n);
        above[i * n..][..n].swap_with_slice(&mut below[..n]);
        a[i * n..].chunks_mut(n).for_each(|row| row.swap(i, j));
    }
}

/// Takes the products of the finished columns `start..end` from what is right of them.
fn subtract_products(a: &mut [f64], n: usize, start: usize, end: usize) {
    let (width, left) = (end - start, n - end);
    if left == 0 {
        return;
    }
    let finished: Vec<f64> =
        (end..n).flat_map(|row| &a[row * n + start..][..width]).copied().collect();
    a[end * n..].par_chunks_mut(BLOCK * n).enumerate().for_each_init(
        Vec::new,
        |product, (tile, rows)| {
            let height = rows.len() / n;
            product.resize(height * left, 0.0);
            let own = &finished[tile * BLOCK * width..][..height * width];
            let out = ViewMut::new(product, height, left, left);
            let (own, all) =
                (View::new(own, height, width, width), View::new(&finished, left, width, width));
            matmul_transposed(out, 1.0, own, all, Parallelism::Serial);
            for (row, product) in rows.chunks_mut(n).zip(product.chunks(left)) {
                row[end..].iter_mut().zip(product).for_each(|(a, product)| *a -= product);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A symmetric matrix with a dominant diagonal, over several blocks.
    fn matrix(n: usize) -> Vec<f64> {
        let entry = |i: usize, j: usize| {
            let (low, high) = (i.min(j), i.max(j));
            ((low * 37 + high * 11) % 19) as f64 / 19.0 - 0.5 + if i == j { n as f64 } else { 0.0 }
        };
        (0..n * n).map(|at| entry(at / n, at % n)).collect()
    }

    #[test]
    fn the_factor_multiplied_with_itself_is_the_matrix() {
        for n in [1, BLOCK - 1, BLOCK, 2 * BLOCK + 5] {
            let a = matrix(n);
            let mut l = a.clone();
            let order = cholesky(&mut l, n, 1).unwrap();
            for i in 0..n {
                for j in 0..=i {
                    let product: f64 = (0..=j).map(|k| l[i * n + k] * l[j * n + k]).sum();
                    assert!((product - a[order[i] * n + order[j]]).abs() < 1e-10, "{n}: {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn each_pivot_is_the_least_that_is_left() {
        let n = BLOCK + 30;
        let mut l = matrix(n);
        (0..n).for_each(|i| l[i * n + i] += (i * 7919 % 101) as f64);
        let a = l.clone();
        let order = cholesky(&mut l, n, 1).unwrap();
        for j in 0..n {
            let left = |i: usize| {
                let sum: f64 = (0..j).map(|k| l[i * n + k].powi(2)).sum();
                a[order[i] * n + order[i]] - sum
            };
            assert!((j..n).all(|i| left(j) <= left(i) + 1e-9), "{j}");
        }
    }

    #[test]
    fn an_indefinite_matrix_is_refused() {
        let n = BLOCK + 2;
        let mut a = matrix(n);
        a[(n - 1) * n + n - 1] = 0.0;
        assert!(cholesky(&mut a, n, 1).is_none());
    }
}
