//! Linear layers.

use cerebellum::format::network::TensorId;

use super::elementwise::add;
use super::matmul::{View, ViewMut, matmul, matmul_transposed};
use super::parallel::Parallelism;
use super::weights::{Tensors, Weights};
use crate::checkpoint::Result;

/// A linear layer, `y = W x + b`.
#[derive(Clone)]
pub(crate) struct Linear {
    /// Its weight's.
    pub id: TensorId,
    pub weight: Vec<f32>,       // (n_out, n_in)
    pub bias: Option<Vec<f32>>, // (n_out)
    n_in: usize,
}

impl Linear {
    /// The layer with this weight.
    pub fn load(tensors: &Tensors<impl Weights>, id: TensorId) -> Result<Self> {
        let (weight, bias) = (tensors.read(id)?, tensors.find(id.bias())?);
        Ok(Self { id, weight, bias, n_in: tensors.columns(id) })
    }

    /// How many outputs it has.
    pub fn outputs(&self) -> usize {
        self.weight.len() / self.n_in
    }

    /// `x`: (tokens, n_in) → (tokens, n_out).
    pub fn forward(&self, x: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let mut out = project(&self.weight, x, self.n_in, parallelism);
        if let Some(bias) = &self.bias {
            parallelism.for_each_chunk(&mut out, bias.len(), |_, row| add(row, bias));
        }
        out
    }

    /// `grad`: a loss's gradient by the output, (tokens, n_out) → by the input, (tokens, n_in).
    pub fn backward(&self, grad: &[f32]) -> Vec<f32> {
        project_back(&self.weight, grad, self.outputs())
    }
}

/// `x`: (tokens, n_in) times `weight`: (n_out, n_in), transposed → (tokens, n_out).
pub(crate) fn project(
    weight: &[f32],
    x: &[f32],
    n_in: usize,
    parallelism: Parallelism,
) -> Vec<f32> {
    let (tokens, n_out) = (x.len() / n_in, weight.len() / n_in);
    let mut out = vec![0.0; tokens * n_out];
    matmul_transposed(
        ViewMut::new(&mut out, tokens, n_out, n_out),
        1.0,
        View::new(x, tokens, n_in, n_in),
        View::new(weight, n_out, n_in, n_in),
        parallelism,
    );
    out
}

/// `y`: (tokens, n_out) times `weight`: (n_out, n_in) → (tokens, n_in). On the calling thread.
pub(crate) fn project_back(weight: &[f32], y: &[f32], n_out: usize) -> Vec<f32> {
    let (tokens, n_in) = (y.len() / n_out, weight.len() / n_out);
    let mut out = vec![0.0; tokens * n_in];
    matmul(
        ViewMut::new(&mut out, tokens, n_in, n_in),
        1.0,
        View::new(y, tokens, n_out, n_out),
        View::new(weight, n_out, n_in, n_in),
        Parallelism::Serial,
    );
    out
}
