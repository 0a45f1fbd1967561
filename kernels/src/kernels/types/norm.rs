//! Norms of a row.

/// Weight, bias and epsilon of a layer norm.
pub struct LayerNorm<'a> {
    /// `[n_embd]`.
    pub weight: &'a [f32],
    /// `[n_embd]`.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// Weight and epsilon of an RMS norm.
pub struct RmsNorm<'a> {
    /// `[n_embd]`.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
}
