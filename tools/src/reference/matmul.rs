//! The one place that calls the `gemm` crates: matrix products over strided, bounds-checked views.
//!
//! The crate `gemm` itself would choose by type, and needs for it the products of complex numbers too, which
//! take 10 s to compile.

use super::parallel::Parallelism;

/// `out = alpha · out + beta · a · b`: rows, columns, columns of `a`; `out`, and the steps to its next column
/// and row; whether `out` is read; `a` and `b`, each with its steps; `alpha`, `beta`; which are conjugated.
type Gemm<T> = unsafe fn(
    usize,
    usize,
    usize,
    *mut T,
    isize,
    isize,
    bool,
    *const T,
    isize,
    isize,
    *const T,
    isize,
    isize,
    T,
    T,
    bool,
    bool,
    bool,
    gemm_common::Parallelism,
);

/// Numbers that are multiplied here.
pub(crate) trait Element: Copy {
    const ZERO: Self;

    /// The best function for this processor.
    fn gemm() -> Gemm<Self>;
}

impl Element for f32 {
    const ZERO: Self = 0.0;

    fn gemm() -> Gemm<Self> {
        gemm_f32::gemm::f32::get_gemm_fn()
    }
}

impl Element for f64 {
    const ZERO: Self = 0.0;

    fn gemm() -> Gemm<Self> {
        gemm_f64::gemm::f64::get_gemm_fn()
    }
}

/// A read-only `[rows, columns]` matrix inside a slice; rows lie `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a, T> View<'a, T> {
    /// The matrix that begins at `data[0]`.
    ///
    /// # Panics
    /// If the last row would end outside of `data`.
    pub fn new(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        check(data, rows, columns, stride);
        Self { data, rows, columns, stride }
    }
}

/// As [`View`], to be written.
pub(crate) struct ViewMut<'a, T = f32> {
    data: &'a mut [T],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a, T> ViewMut<'a, T> {
    /// The matrix that begins at `data[0]`.
    ///
    /// # Panics
    /// If the last row would end outside of `data`.
    pub fn new(data: &'a mut [T], rows: usize, columns: usize, stride: usize) -> Self {
        check(data, rows, columns, stride);
        Self { data, rows, columns, stride }
    }
}

fn check<T>(data: &[T], rows: usize, columns: usize, stride: usize) {
    assert!(rows > 0 && columns <= stride, "rows overlap or are none");
    let end = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(columns));
    assert!(end.is_some_and(|end| end <= data.len()), "matrix reaches beyond its slice");
}

/// `out = scale · a · b`, with `a: [m, k]`, `b: [k, n]`, `out: [m, n]`.
pub(crate) fn matmul<T: Element>(
    out: ViewMut<T>,
    scale: T,
    a: View<T>,
    b: View<T>,
    parallelism: Parallelism,
) {
    assert_eq!((out.rows, out.columns, a.columns), (a.rows, b.columns, b.rows));
    product(out, scale, a.columns, (a.data, 1, a.stride), (b.data, 1, b.stride), parallelism);
}

/// `out = scale · a · bᵀ`, with `a: [m, k]`, `b: [n, k]`, `out: [m, n]`.
pub(crate) fn matmul_transposed<T: Element>(
    out: ViewMut<T>,
    scale: T,
    a: View<T>,
    b: View<T>,
    parallelism: Parallelism,
) {
    assert_eq!((out.rows, out.columns, a.columns), (a.rows, b.rows, b.columns));
    product(out, scale, a.columns, (a.data, 1, a.stride), (b.data, b.stride, 1), parallelism);
}

/// `out = scale · aᵀ · b`, with `a: [k, m]`, `b: [k, n]`, `out: [m, n]`: sums over rows, such as those of
/// a layer's inputs over tokens. On the calling thread.
pub(crate) fn matmul_of_columns<T: Element>(out: ViewMut<T>, scale: T, a: View<T>, b: View<T>) {
    assert_eq!((out.rows, out.columns, a.rows), (a.columns, b.columns, b.rows));
    let (a, k) = ((a.data, a.stride, 1), a.rows);
    product(out, scale, k, a, (b.data, 1, b.stride), Parallelism::Serial);
}

/// A factor as multiplied: its elements, the step from one column to the next, and from one row to the
/// next.
type Factor<'a, T> = (&'a [T], usize, usize);

/// `out = scale · a · b` with `k` columns in `a`.
fn product<T: Element>(
    out: ViewMut<T>,
    scale: T,
    k: usize,
    (a, a_columns, a_rows): Factor<T>,
    (b, b_columns, b_rows): Factor<T>,
    parallelism: Parallelism,
) {
    // The functions are faster if the columns of what they write are contiguous, so they get the transposed
    // product: `outᵀ = bᵀ · aᵀ`.
    // SAFETY: the callers checked that the shapes agree, and each view was checked on construction
    // to lie inside its slice; `out` is borrowed mutably, so that it overlaps neither factor.
    // It is only written, as the first of the flags says.
    unsafe {
        T::gemm()(
            out.columns,
            out.rows,
            k,
            out.data.as_mut_ptr(),
            out.stride as isize,
            1,
            false,
            b.as_ptr(),
            b_rows as isize,
            b_columns as isize,
            a.as_ptr(),
            a_rows as isize,
            a_columns as isize,
            T::ZERO,
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
