//! The float32 reference: the model as trained, which every quantized result is compared with.
//!
//! It favours accuracy and plainness: whole sequences, no cache, sums of norms and softmax and all
//! activations in double precision, matrix products by the `gemm` crate.

mod attention;
mod block;
mod error;
pub(crate) mod layers;
pub(crate) mod matmul;
mod parallel;
mod weights;

pub use error::{Error, Result};
pub use parallel::Parallelism;
pub use weights::Weights;

use cerebellum::format::network::{self, Role, TensorId};
use cerebellum::format::{Config, Positions};

pub(crate) use block::Block;
use layers::{LayerNorm, add, project, scale};

/// Sees, and may change, the input of a matrix product, `[tokens, in]`, by the weight that it enters.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(TensorId, &mut [f32]);

/// A model in float32 memory.
pub struct Reference {
    config: Config,
    parallelism: Parallelism,
    wte: Vec<f32>,         // (vocab_size, n_embd)
    wpe: Option<Vec<f32>>, // (n_positions, n_embd); none with ALiBi
    pub(crate) blocks: Vec<Block>,
    ln_f: LayerNorm,
    head: Option<Vec<f32>>, // (vocab_size, n_embd); none when `wte` serves
}

impl Reference {
    /// Reads all weights, `4 · parameters` bytes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a tensor cannot be read.
    pub fn load(weights: &impl Weights) -> Result<Self> {
        let config = weights.config().clone();
        let outside = |role| TensorId::outside(role).name();
        let blocks = (0..config.n_layer).map(|layer| Block::load(weights, layer));
        Ok(Self {
            parallelism: Parallelism::default(),
            wte: weights.read_f32(&outside(Role::Embedding))?,
            wpe: match config.positions {
                Positions::Learned => Some(weights.read_f32(&outside(Role::Positions))?),
                _ => None,
            },
            blocks: blocks.collect::<Result<_>>()?,
            ln_f: LayerNorm::load(weights, TensorId::outside(Role::FinalNorm))?,
            head: match config.tie_word_embeddings {
                true => None,
                false => Some(weights.read_f32(&outside(Role::Head))?),
            },
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
        self.logits_observed(tokens, &mut |_, _| {})
    }

    /// Logits after the last token: `[vocab_size]`.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn last_logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let x = self.residual(tokens, &mut |_, _| {})?; // (tokens, n_embd)
        Ok(self.finish(None, &x[x.len() - self.config.n_embd..], &mut |_, _| {}))
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
        let mut visit = |id: TensorId, h: &mut [f32]| observe(id, h);
        let x = self.residual(tokens, &mut visit)?; // (tokens, n_embd)
        Ok(self.finish(None, &x, &mut visit))
    }

    /// The residual stream after the last layer: (tokens, n_embd).
    fn residual(&self, tokens: &[u32], visit: Visit) -> Result<Vec<f32>> {
        self.check(tokens)?;
        let mut x = self.embed(&self.wte, tokens); // (tokens, n_embd)
        for block in &self.blocks {
            self.pass(block, &mut x, visit);
        }
        Ok(x)
    }

    /// The embedding, (vocab_size, n_embd).
    pub(crate) fn embedding(&self) -> &[f32] {
        &self.wte
    }

    /// Whether the head uses the embedding.
    pub(crate) fn is_tied(&self) -> bool {
        self.head.is_none()
    }

    /// Token, out of the table `wte`, plus position, scaled: (tokens, n_embd).
    pub(crate) fn embed(&self, wte: &[f32], tokens: &[u32]) -> Vec<f32> {
        let width = self.config.n_embd;
        let mut x = Vec::with_capacity(tokens.len() * width);
        for token in tokens {
            let first = *token as usize * width;
            x.extend_from_slice(&wte[first..first + width]);
        }
        if let Some(wpe) = &self.wpe {
            add(&mut x, wpe);
        }
        scale(&mut x, self.config.embeddings_scale);
        x
    }

    /// Takes the residual stream `x` through one layer.
    pub(crate) fn pass(&self, block: &Block, x: &mut [f32], visit: Visit) {
        block.forward(x, &self.config, self.parallelism, visit);
    }

    /// `x`: (tokens, n_embd), after the last layer → logits, (tokens, vocab_size); with another head than
    /// the model's if one is given.
    pub(crate) fn finish(&self, head: Option<&[f32]>, x: &[f32], visit: Visit) -> Vec<f32> {
        let mut h = self.ln_f.forward(x, self.parallelism);
        visit(network::head(&self.config), &mut h);
        let head = head.unwrap_or(self.head.as_ref().unwrap_or(&self.wte));
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
