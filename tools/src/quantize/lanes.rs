//! Arithmetic on 32 rows at a time, as lanes of vectors. No operation is fused, and every sum has a fixed
//! order, so that wider registers make it faster and not different.

/// Rows that are worked on together: two panels.
pub const ROWS: usize = 32;

/// A value for each of 32 rows.
pub type Lanes = [f32; ROWS];

/// `Σ values[i] · factors[i]` in each lane: even and odd terms apart, so that additions overlap.
#[inline(always)]
pub fn dot(values: &[Lanes], factors: &[f32]) -> Lanes {
    let (mut even, mut odd) = ([0.0; ROWS], [0.0; ROWS]);
    let pairs = values.as_chunks::<2>();
    let factor_pairs = factors.as_chunks::<2>();
    for ([a, b], [fa, fb]) in pairs.0.iter().zip(factor_pairs.0) {
        for lane in 0..ROWS {
            even[lane] += a[lane] * fa;
            odd[lane] += b[lane] * fb;
        }
    }
    for (a, fa) in pairs.1.iter().zip(factor_pairs.1) {
        for lane in 0..ROWS {
            even[lane] += a[lane] * fa;
        }
    }
    for lane in 0..ROWS {
        even[lane] += odd[lane];
    }
    even
}

/// `Σ values[i] · factors[i]` for each row of `factors`, `[out.len(), stride]`, of which as many columns count
/// as there are values. Two rows at a time, so that values are read half as often; each is summed in order,
/// but the last of an odd number as [`dot`] does.
#[inline(always)]
pub fn dots(values: &[Lanes], factors: &[f32], stride: usize, out: &mut [Lanes]) {
    let row = |i: usize| &factors[i * stride..][..values.len()];
    let (pairs, last) = out.as_chunks_mut::<2>();
    for (pair, out) in pairs.iter_mut().enumerate() {
        let (mut first, mut second) = ([0.0; ROWS], [0.0; ROWS]);
        let factors = row(2 * pair).iter().zip(row(2 * pair + 1));
        for (values, (a, b)) in values.iter().zip(factors) {
            for lane in 0..ROWS {
                first[lane] += values[lane] * a;
                second[lane] += values[lane] * b;
            }
        }
        *out = [first, second];
    }
    let done = 2 * pairs.len();
    last.iter_mut().for_each(|out| *out = dot(values, row(done)));
}
