//! The float32 reference: the model as trained, which every quantized result is compared with.
//!
//! It favours accuracy and plainness: whole sequences, no cache, sums of norms and softmax and all
//! activations in double precision, matrix products by the `gemm` crate.

mod activation;
mod attention;
mod elementwise;
mod error;
mod inputs;
mod layer;
pub(crate) mod linear;
pub(crate) mod matmul;
mod norm;
mod parallel;
mod rotation;
#[cfg(test)]
mod tests;
mod weights;

pub use error::{Error, Result};
pub use parallel::Parallelism;
pub use weights::Weights;

use cerebellum::format::Config;
use cerebellum::format::network::{Input, Role, TensorId};

pub(crate) use elementwise::{add, scale, squared_norm};
pub(crate) use inputs::{InputAt, Visit, readers};
pub(crate) use layer::{Layer, STREAM, Value};
use linear::project;
pub(crate) use norm::Norm;
pub(crate) use weights::Tensors;

/// A model in float32 memory.
pub struct Reference {
    config: Config,
    parallelism: Parallelism,
    embedding: Vec<f32>,         // (V, E)
    positions: Option<Vec<f32>>, // (n_positions, E), if they are learned
    pub(crate) layers: Vec<Layer>,
    final_norm: Norm,
    head: Option<Vec<f32>>, // (V, E), if it is not the embedding
}

impl Reference {
    /// Reads all weights, `4 · parameters` bytes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a tensor cannot be read.
    pub fn load(weights: &impl Weights) -> Result<Self> {
        let tensors = Tensors::new(weights);
        let config = weights.config().clone();
        let layers = (0..config.n_layer).map(|layer| Layer::load(weights, layer));
        Ok(Self {
            parallelism: Parallelism::default(),
            embedding: tensors.read(TensorId::outside(Role::Embedding))?,
            positions: tensors.find(TensorId::outside(Role::Positions))?,
            layers: layers.collect::<Result<_>>()?,
            final_norm: Norm::load(&tensors, TensorId::outside(Role::FinalNorm))?,
            head: tensors.find(TensorId::outside(Role::Head))?,
            config,
        })
    }

    /// The same model, run on other threads.
    pub fn with_parallelism(self, parallelism: Parallelism) -> Self {
        Self { parallelism, ..self }
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Logits after every token: `[tokens, vocab_size]`, row-major.
    ///
    /// # Errors
    /// [`Error::NoTokens`], [`Error::TooManyTokens`] or [`Error::TokenOutOfRange`].
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let x = self.residual(tokens, &mut |_, _| ())?; // (tokens, E)
        Ok(self.finish(&x, &mut |_, _| ()))
    }

    /// Logits after the last token: `[vocab_size]`.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn last_logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let x = self.residual(tokens, &mut |_, _| ())?; // (tokens, E)
        Ok(self.finish(&x[x.len() - self.config.n_embd..], &mut |_, _| ()))
    }

    /// As [`logits`](Self::logits), and shows `observe` the input of each matrix product before it
    /// is computed: which weight it enters, and the input `[tokens, in]`, row-major. The head comes
    /// last, as the matrix it uses.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn logits_observed(
        &self,
        tokens: &[u32],
        observe: &mut dyn FnMut(TensorId, &[f32]),
    ) -> Result<Vec<f32>> {
        let readers = readers(&self.config);
        let mut visit = |at: InputAt, h: &mut [f32]| {
            readers[&at].iter().for_each(|matrix| observe(*matrix, h));
        };
        let x = self.residual(tokens, &mut visit)?; // (tokens, E)
        Ok(self.finish(&x, &mut visit))
    }

    /// The residual stream after the last layer: (tokens, E).
    fn residual(&self, tokens: &[u32], visit: Visit) -> Result<Vec<f32>> {
        self.check(tokens)?;
        let mut x = self.embed(tokens); // (tokens, E)
        for layer in &self.layers {
            x = self.pass(layer, &x, visit);
        }
        Ok(x)
    }

    /// Token plus position, scaled: (tokens, E).
    pub(crate) fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let width = self.config.n_embd;
        let mut x = Vec::with_capacity(tokens.len() * width);
        for token in tokens {
            let first = *token as usize * width;
            x.extend_from_slice(&self.embedding[first..first + width]);
        }
        if let Some(positions) = &self.positions {
            add(&mut x, positions);
        }
        scale(&mut x, self.config.embeddings_scale);
        x
    }

    /// Takes the residual stream `x` through one layer.
    pub(crate) fn pass(&self, layer: &Layer, x: &[f32], visit: Visit) -> Vec<f32> {
        layer.forward(x, self.parallelism, visit)
    }

    /// `x`: (tokens, E), after the last layer → logits, (tokens, V).
    pub(crate) fn finish(&self, x: &[f32], visit: Visit) -> Vec<f32> {
        let mut h = self.final_norm.forward(x, self.parallelism);
        visit(InputAt { layer: None, input: Input::FinalNorm }, &mut h);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let mut logits = project(head, &h, self.config.n_embd, self.parallelism);
        scale(&mut logits, self.config.logits_scale);
        logits
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        let Config { vocab_size, n_positions, .. } = self.config;
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        if tokens.len() > self.config.max_context() {
            return Err(Error::TooManyTokens { tokens: tokens.len(), n_positions });
        }
        match tokens.iter().position(|token| *token as usize >= vocab_size) {
            None => Ok(()),
            Some(position) => {
                Err(Error::TokenOutOfRange { token: tokens[position], position, vocab_size })
            }
        }
    }
}
