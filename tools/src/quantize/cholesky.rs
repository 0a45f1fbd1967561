//! The Cholesky factorization of a symmetric positive definite matrix.
//!
//! Golub and Van Loan, "Matrix Computations", section 4.2: block column by block column, in binary64.
//! Products run on the current rayon pool, one tile on one thread, so that the result does not depend
//! on the number of threads.

use rayon::prelude::*;

use crate::reference::Parallelism;
use crate::reference::matmul::{View, ViewMut, matmul_transposed};

/// Columns of a block.
const BLOCK: usize = 64;

/// Overwrites the lower triangle of `a` (`[n, n]`) with `L`, `a = L Lᵀ`; `false` if `a` is not positive
/// definite, to working precision.
pub fn cholesky(a: &mut [f64], n: usize) -> bool {
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        subtract_products(a, n, start, width);
        if !factor_diagonal(a, n, start, width) {
            return false;
        }
        divide_below(a, n, start, width);
    }
    true
}

/// Takes the products with the finished columns from the columns `start..start + width`.
fn subtract_products(a: &mut [f64], n: usize, start: usize, width: usize) {
    if start == 0 {
        return;
    }
    // The block's own rows of the finished columns, which all rows below are multiplied with.
    let own: Vec<f64> =
        (start..start + width).flat_map(|row| &a[row * n..][..start]).copied().collect();
    a[start * n..].par_chunks_mut(BLOCK * n).for_each(|rows| {
        let height = rows.len() / n;
        let mut product = [0.0; BLOCK * BLOCK];
        let product = &mut product[..height * width];
        let out = ViewMut::new(product, height, width, width);
        let (finished, own) =
            (View::new(rows, height, start, n), View::new(&own, width, start, start));
        matmul_transposed(out, 1.0, finished, own, Parallelism::Serial);
        for (row, product) in rows.chunks_mut(n).zip(product.chunks(width)) {
            row[start..].iter_mut().zip(product).for_each(|(a, product)| *a -= product);
        }
    });
}

/// Factors the block on the diagonal.
fn factor_diagonal(a: &mut [f64], n: usize, start: usize, width: usize) -> bool {
    for j in start..start + width {
        let sum: f64 = (start..j).map(|k| a[j * n + k] * a[j * n + k]).sum();
        let pivot = a[j * n + j] - sum;
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        a[j * n + j] = pivot.sqrt();
        for i in j + 1..start + width {
            let sum: f64 = (start..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            a[i * n + j] = (a[i * n + j] - sum) / a[j * n + j];
        }
    }
    true
}

/// Solves for the rows below the block on the diagonal.
fn divide_below(a: &mut [f64], n: usize, start: usize, width: usize) {
    let (above, below) = a.split_at_mut((start + width) * n);
    below.par_chunks_mut(n).for_each(|row| {
        for j in start..start + width {
            let factor = &above[j * n..][..=j];
            let sum: f64 = (start..j).map(|k| row[k] * factor[k]).sum();
            row[j] = (row[j] - sum) / factor[j];
        }
    });
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
            assert!(cholesky(&mut l, n));
            for i in 0..n {
                for j in 0..=i {
                    let product: f64 = (0..=j).map(|k| l[i * n + k] * l[j * n + k]).sum();
                    assert!((product - a[i * n + j]).abs() < 1e-10, "{n}: {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn an_indefinite_matrix_is_refused() {
        let n = BLOCK + 2;
        let mut a = matrix(n);
        a[(n - 1) * n + n - 1] = 0.0;
        assert!(!cholesky(&mut a, n));
    }
}
