//! The float32 reference: the model as trained, which every quantized result is compared with.
//!
//! It favours accuracy and plainness: whole sequences, no cache, sums of norms and softmax and all
//! activations in double precision, matrix products by the `gemm` crate.

mod attention;
mod error;
mod layers;
mod matmul;
mod parallel;
mod weights;

pub use error::{Error, Result};
pub use parallel::Parallelism;
pub use weights::Weights;

use crate::checkpoint::{Config, names};
use attention::Heads;
use layers::{LayerNorm, Linear, activate, add, multiply, project, scale};

/// A model in float32 memory.
pub struct Reference {
    config: Config,
    parallelism: Parallelism,
    wte: Vec<f32>,         // (vocab_size, n_embd)
    wpe: Option<Vec<f32>>, // (n_positions, n_embd); none with ALiBi
    blocks: Vec<Block>,
    ln_f: LayerNorm,
    head: Option<Vec<f32>>, // (vocab_size, n_embd); none when `wte` serves
}

/// One layer: attention and MLP, each behind a layer norm and around a residual connection.
struct Block {
    ln_1: LayerNorm,
    heads: Heads,
    c_attn: Linear,    // n_embd → 3 · n_embd
    attn_proj: Linear, // n_embd → n_embd
    ln_2: LayerNorm,
    c_fc: Linear,         // n_embd → n_inner
    gate: Option<Linear>, // n_embd → n_inner
    mlp_proj: Linear,     // n_inner → n_embd
}

impl Reference {
    /// Reads all weights, `4 · parameters` bytes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a tensor cannot be read.
    pub fn load(weights: &impl Weights) -> Result<Self> {
        let config = weights.config().clone();
        let blocks = (0..config.n_layer).map(|layer| Block::load(weights, layer));
        Ok(Self {
            parallelism: Parallelism::default(),
            wte: weights.read_f32(names::EMBEDDING)?,
            wpe: match config.alibi {
                None => Some(weights.read_f32(names::POSITIONS)?),
                Some(_) => None,
            },
            blocks: blocks.collect::<Result<_>>()?,
            ln_f: LayerNorm::load(weights, "ln_f")?,
            head: match weights.is_tied() {
                true => None,
                false => Some(weights.read_f32(names::HEAD)?),
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
        let x = self.hidden(tokens, &mut |_, _| {})?; // (tokens, n_embd)
        Ok(self.project_head(&x[x.len() - self.config.n_embd..]))
    }

    /// As [`logits`](Self::logits), and shows `observe` the input of each matrix product before it
    /// is computed: the canonical name of the weight, and the input `[tokens, in]`, row-major. The
    /// head comes last, under the name of the matrix it uses. This is what calibration measures.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn logits_observed(
        &self,
        tokens: &[u32],
        observe: &mut dyn FnMut(&str, &[f32]),
    ) -> Result<Vec<f32>> {
        let x = self.hidden(tokens, observe)?; // (tokens, n_embd)
        observe(if self.head.is_some() { names::HEAD } else { names::EMBEDDING }, &x);
        Ok(self.project_head(&x))
    }

    /// What the head sees: (tokens, n_embd).
    fn hidden(&self, tokens: &[u32], observe: &mut dyn FnMut(&str, &[f32])) -> Result<Vec<f32>> {
        self.check(tokens)?;
        let mut x = self.embed(tokens); // (tokens, n_embd)
        for block in &self.blocks {
            block.forward(&mut x, &self.config, self.parallelism, observe);
        }
        Ok(self.ln_f.forward(&x, self.parallelism))
    }

    /// Token plus position, scaled: (tokens, n_embd).
    fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let width = self.config.n_embd;
        let mut x = Vec::with_capacity(tokens.len() * width);
        for token in tokens {
            let first = *token as usize * width;
            x.extend_from_slice(&self.wte[first..first + width]);
        }
        if let Some(wpe) = &self.wpe {
            add(&mut x, wpe);
        }
        scale(&mut x, self.config.embeddings_scale);
        x
    }

    /// `x`: (tokens, n_embd) → (tokens, vocab_size).
    fn project_head(&self, x: &[f32]) -> Vec<f32> {
        let head = self.head.as_ref().unwrap_or(&self.wte);
        let mut logits = project(head, x, self.config.n_embd, self.parallelism);
        scale(&mut logits, self.config.logits_scale);
        logits
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        let Config { vocab_size, n_positions, alibi, .. } = self.config;
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        if alibi.is_none() && tokens.len() > n_positions {
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

impl Block {
    fn load(weights: &impl Weights, layer: usize) -> Result<Self> {
        let config = weights.config();
        let norm = |part: &str| LayerNorm::load(weights, &format!("h.{layer}.{part}"));
        let linear = |part: &str| Linear::load(weights, &format!("h.{layer}.{part}"));
        Ok(Self {
            ln_1: norm("ln_1")?,
            heads: Heads {
                n_head: config.n_head,
                head_dim: config.head_dim(),
                scale: config.attention_scale(layer),
            },
            c_attn: linear("attn.c_attn")?,
            attn_proj: linear("attn.c_proj")?,
            ln_2: norm("ln_2")?,
            c_fc: linear("mlp.c_fc")?,
            gate: if config.gated_mlp { Some(linear("mlp.c_fc2")?) } else { None },
            mlp_proj: linear("mlp.c_proj")?,
        })
    }

    /// Adds attention, then the MLP, to the residual stream `x`: (tokens, n_embd).
    fn forward(
        &self,
        x: &mut [f32],
        config: &Config,
        parallelism: Parallelism,
        observe: &mut dyn FnMut(&str, &[f32]),
    ) {
        let mut linear = |layer: &Linear, input: &[f32]| {
            observe(&layer.name, input);
            layer.forward(input, parallelism)
        };
        let h = self.ln_1.forward(x, parallelism); // (tokens, n_embd)
        let qkv = linear(&self.c_attn, &h); // (tokens, 3 · n_embd)
        let h = self.heads.attend(&qkv, config.alibi, parallelism); // (tokens, n_embd)
        let h = linear(&self.attn_proj, &h); // (tokens, n_embd)
        add(x, &h);

        let h = self.ln_2.forward(x, parallelism); // (tokens, n_embd)
        let mut up = linear(&self.c_fc, &h); // (tokens, n_inner)
        let h = match &self.gate {
            None => {
                activate(config.activation, &mut up, parallelism);
                up
            }
            Some(gate) => {
                let mut gate = linear(gate, &h); // (tokens, n_inner)
                activate(config.activation, &mut gate, parallelism);
                multiply(&mut gate, &up);
                gate
            }
        };
        let h = linear(&self.mlp_proj, &h); // (tokens, n_embd)
        add(x, &h);
    }
}
