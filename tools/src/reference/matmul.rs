//! The one place that calls the `gemm` crate: matrix products over strided, bounds-checked views.

use super::parallel::Parallelism;

/// A read-only `[rows, columns]` matrix inside a slice; rows lie `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> View<'a> {
    /// The matrix that begins at `data[0]`.
    ///
    /// # Panics
    /// If the last row would end outside of `data`.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        check(data, rows, columns, stride);
        Self { data, rows, columns, stride }
    }
}

/// As [`View`], to be written.
pub(super) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> ViewMut<'a> {
    /// The matrix that begins at `data[0]`.
    ///
    /// # Panics
    /// If the last row would end outside of `data`.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        check(data, rows, columns, stride);
        Self { data, rows, columns, stride }
    }
}

fn check(data: &[f32], rows: usize, columns: usize, stride: usize) {
    assert!(rows > 0 && columns <= stride, "rows overlap or are none");
    let end = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(columns));
    assert!(end.is_some_and(|end| end <= data.len()), "matrix reaches beyond its slice");
}

/// `out = scale · a · b`, with `a: [m, k]`, `b: [k, n]`, `out: [m, n]`.
pub(super) fn matmul(out: ViewMut, scale: f32, a: View, b: View, parallelism: Parallelism) {
    assert_eq!((out.rows, out.columns, a.columns), (a.rows, b.columns, b.rows));
    product(out, scale, a, b, (1, b.stride), parallelism);
}

/// `out = scale · a · bᵀ`, with `a: [m, k]`, `b: [n, k]`, `out: [m, n]`.
pub(super) fn matmul_transposed(
    out: ViewMut,
    scale: f32,
    a: View,
    b: View,
    parallelism: Parallelism,
) {
    assert_eq!((out.rows, out.columns, a.columns), (a.rows, b.rows, b.columns));
    product(out, scale, a, b, (b.stride, 1), parallelism);
}

/// `b_strides` are the steps from one column to the next, and from one row to the next, of the
/// right factor as multiplied.
fn product(
    out: ViewMut,
    scale: f32,
    a: View,
    b: View,
    b_strides: (usize, usize),
    parallelism: Parallelism,
) {
    let (m, n, k) = (out.rows, out.columns, a.columns);
    // SAFETY: the callers checked that the shapes agree, and each view was checked on construction
    // to lie inside its slice; `out` is borrowed mutably, so that it overlaps neither factor.
    // `read_dst` is false, so that `out` is only written.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.stride as isize,
            false,
            a.data.as_ptr(),
            1,
            a.stride as isize,
            b.data.as_ptr(),
            b_strides.0 as isize,
            b_strides.1 as isize,
            0.0,
            scale,
            false,
            false,
            false,
            parallelism.gemm(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition, with strides wider than the rows.
    #[test]
    fn products_equal_the_definition() {
        let (m, n, k, stride) = (3, 5, 4, 7);
        let data = |seed: usize, len: usize| -> Vec<f32> {
            (0..len).map(|i| ((i * 31 + seed * 17) % 23) as f32 - 11.0).collect()
        };
        let (a, b) = (data(1, m * stride), data(2, 5 * stride));
        let mut out = vec![f32::NAN; m * stride];
        for parallelism in [Parallelism::Serial, Parallelism::Rayon] {
            let a_view = View::new(&a, m, k, stride);
            let b_view = View::new(&b, k, n, stride);
            matmul(ViewMut::new(&mut out, m, n, stride), 0.5, a_view, b_view, parallelism);
            let sum = |i: usize, j: usize| {
                (0..k).map(|l| a[i * stride + l] * b[l * stride + j]).sum::<f32>()
            };
            (0..m * n)
                .for_each(|c| assert_eq!(out[c / n * stride + c % n], 0.5 * sum(c / n, c % n)));

            let b_view = View::new(&b, n, k, stride);
            matmul_transposed(
                ViewMut::new(&mut out, m, n, stride),
                0.5,
                a_view,
                b_view,
                parallelism,
            );
            let sum = |i: usize, j: usize| {
                (0..k).map(|l| a[i * stride + l] * b[j * stride + l]).sum::<f32>()
            };
            (0..m * n)
                .for_each(|c| assert_eq!(out[c / n * stride + c % n], 0.5 * sum(c / n, c % n)));
        }
    }

    #[test]
    #[should_panic(expected = "beyond its slice")]
    fn a_view_outside_of_its_slice_panics() {
        View::new(&[0.0; 8], 2, 4, 5);
    }
}
