//! The Hadamard transform that every row goes through before it is quantized (`docs/numbers.md` section 3).
//!
//! Activations of a language model are uneven: a few channels are many times as large as their neighbours,
//! and set the scale of a group in which all others then round to few integers. The transform spreads each
//! value over its block of 64. Rows of weights go through it too, and since it is its own inverse, products
//! stay what they were: `(H w) . (H x) = w . x`. The idea is QuaRot's (Ashkboos et al., 2024), in blocks.

use core::ops::{Add, Mul, Sub};

/// Elements that are transformed together: a power of 4, so that the factor `1 / sqrt(64)` is exact.
pub const HADAMARD_BLOCK: usize = 64;

/// Transforms every whole block of a row; what is left at its end stays as it is.
///
/// Its own inverse, up to rounding.
pub fn hadamard<T>(row: &mut [T])
where
    T: Copy + Add<Output = T> + Sub<Output = T> + Mul<Output = T> + From<f32>,
{
    for block in row.as_chunks_mut::<HADAMARD_BLOCK>().0 {
        for distance in [1, 2, 4, 8, 16, 32] {
            for pair in block.chunks_exact_mut(2 * distance) {
                let (low, high) = pair.split_at_mut(distance);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
        }
        block.iter_mut().for_each(|x| *x = *x * T::from(0.125));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entry `(i, j)` of the matrix is the parity of the bits that `i` and `j` share, as a sign.
    #[test]
    fn the_transform_is_the_product_with_the_hadamard_matrix() {
        let x: Vec<f64> = (0..150).map(|i| f64::from(i * 37 % 101) - 50.0).collect();
        let mut y = x.clone();
        hadamard(&mut y);
        for (at, found) in y.iter().enumerate() {
            let (block, i) = (at / HADAMARD_BLOCK, at % HADAMARD_BLOCK);
            let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            let row = x[block * HADAMARD_BLOCK..].iter().take(HADAMARD_BLOCK);
            let product = row.enumerate().map(|(j, x)| sign(j) * x).sum::<f64>() / 8.0;
            let wanted = if block < 2 { product } else { x[at] };
            assert!((found - wanted).abs() < 1e-12, "{at}");
        }
        hadamard(&mut y);
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-12));
    }
}
