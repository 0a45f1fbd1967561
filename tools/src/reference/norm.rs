//! Layer norm and RMS norm. Statistics are in double precision.

use cerebellum::format::NormKind;
use cerebellum::format::network::TensorId;

use super::parallel::Parallelism;
use super::weights::{Tensors, Weights};
use crate::checkpoint::Result;

/// Layer norm (Ba, Kiros and Hinton, arXiv 1607.06450) or RMS norm (Zhang and Sennrich, arXiv 1910.07467),
/// which differ in whether the mean is taken off.
#[derive(Clone)]
pub(crate) struct Norm {
    kind: NormKind,
    weight: Vec<f32>,       // (width)
    bias: Option<Vec<f32>>, // (width), of a layer norm
    epsilon: f64,
}

impl Norm {
    /// The norm with this weight.
    pub fn load(tensors: &Tensors<impl Weights>, id: TensorId) -> Result<Self> {
        Self::of_kind(tensors, id, tensors.config().norm.kind)
    }

    /// The norm with this weight, of another kind than the network's others.
    pub fn of_kind(tensors: &Tensors<impl Weights>, id: TensorId, kind: NormKind) -> Result<Self> {
        let epsilon = f64::from(tensors.config().norm.epsilon);
        let (weight, bias) = (tensors.read(id)?, tensors.find(id.bias())?);
        Ok(Self { kind, weight, bias, epsilon })
    }

    /// Elements that it takes together.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// `x`: (tokens, width) → the same.
    pub fn forward(&self, x: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let mut out = x.to_vec();
        parallelism.for_each_chunk(&mut out, self.width(), |_, row| self.normalize(row));
        out
    }

    /// `x`: the input; `grad`: a loss's gradient by the output → by the input; (tokens, width) all.
    pub fn backward(&self, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut out = grad.to_vec();
        for (grad, x) in out.chunks_mut(self.width()).zip(x.chunks(self.width())) {
            self.turn_back(x, grad);
        }
        out
    }

    /// One row of the output, in the place of the input.
    pub fn normalize(&self, row: &mut [f32]) {
        let (mean, scale) = self.statistics(row);
        for (x, weight) in row.iter_mut().zip(&self.weight) {
            *x = ((f64::from(*x) - mean) * scale) as f32 * weight;
        }
        if let Some(bias) = &self.bias {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }

    /// One row of the gradient by the input `x`, in the place of that by the output.
    ///
    /// With `n = (x - mean) · scale` and `g = grad · weight` it is `scale · (g - mean(g) - n · mean(g n))`,
    /// without `mean(g)` where no mean is taken off.
    pub fn turn_back(&self, x: &[f32], grad: &mut [f32]) {
        let (mean, scale) = self.statistics(x);
        let factors = |grad: f32, i: usize| {
            let normalized = (f64::from(x[i]) - mean) * scale;
            (normalized, f64::from(grad) * f64::from(self.weight[i]))
        };
        let (mut sum, mut along) = (0.0, 0.0);
        for (i, &grad) in grad.iter().enumerate() {
            let (normalized, g) = factors(grad, i);
            sum += g;
            along += g * normalized;
        }
        let width = x.len() as f64;
        let (sum, along) = (if self.is_centered() { sum / width } else { 0.0 }, along / width);
        for (i, grad) in grad.iter_mut().enumerate() {
            let (normalized, g) = factors(*grad, i);
            *grad = (scale * (g - sum - normalized * along)) as f32;
        }
    }

    /// What is taken off, and the inverse of the deviation from it.
    fn statistics(&self, row: &[f32]) -> (f64, f64) {
        let n = row.len() as f64;
        let sum = || row.iter().map(|x| f64::from(*x)).sum::<f64>();
        let mean = if self.is_centered() { sum() / n } else { 0.0 };
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
        (mean, 1.0 / (variance + self.epsilon).sqrt())
    }

    fn is_centered(&self) -> bool {
        self.kind == NormKind::Layer
    }
}

/// Norms of queries and of keys: of each head's, or of all heads' together, as wide as their weights are.
#[derive(Clone)]
pub(crate) struct QueryKeyNorms {
    pub query: Norm,
    pub key: Norm,
    /// Widths of all queries, of all keys, and of queries, keys and values.
    pub widths: [usize; 3],
}

impl QueryKeyNorms {
    /// `qkv`: (tokens, (H + 2 K) D) → the same.
    pub fn forward(&self, qkv: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let mut out = qkv.to_vec();
        parallelism.for_each_chunk(&mut out, self.widths[2], |_, row| {
            for (norm, columns) in self.parts() {
                row[columns].chunks_mut(norm.width()).for_each(|row| norm.normalize(row));
            }
        });
        out
    }

    /// As [`Norm::backward`].
    pub fn backward(&self, qkv: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut out = grad.to_vec();
        for (grad, qkv) in out.chunks_mut(self.widths[2]).zip(qkv.chunks(self.widths[2])) {
            for (norm, columns) in self.parts() {
                let rows = qkv[columns.clone()].chunks(norm.width());
                let grads = grad[columns].chunks_mut(norm.width());
                rows.zip(grads).for_each(|(x, grad)| norm.turn_back(x, grad));
            }
        }
        out
    }

    fn parts(&self) -> [(&Norm, std::ops::Range<usize>); 2] {
        let [queries, keys, _] = self.widths;
        [(&self.query, 0..queries), (&self.key, queries..queries + keys)]
    }
}
