//! The configuration of a model: every number the forward pass depends on.

use serde::{Deserialize, Serialize};

use super::FormatError;

/// The family of networks a model belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// GPT-2 and Cerebras-GPT: learned positions, layer norm before each block.
    Gpt2,
}

/// The MLP's non-linearity (`docs/elementary-functions.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * Phi(x)`, exact: Cerebras-GPT.
    Gelu,
    /// The tanh form (Hendrycks & Gimpel, 2016): OpenAI's GPT-2 (`gelu_new`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
}

/// Shape and switches of a model, as the file's header states them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// Number of tokens, `V`.
    pub vocab_size: usize,
    /// Number of learned positions.
    pub n_positions: usize,
    /// Embedding width, `E`.
    pub n_embd: usize,
    /// Attention heads, `H`.
    pub n_head: usize,
    /// Layers.
    pub n_layer: usize,
    /// Inner width of the MLP, `F`.
    pub n_inner: usize,
    /// The MLP's non-linearity.
    pub activation: Activation,
    /// Added to the variance in layer norm.
    pub layer_norm_epsilon: f32,
    /// Divide attention scores by the square root of the head size.
    pub scale_attn_weights: bool,
    /// Divide attention scores by the layer's number, counted from 1, too.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// The end-of-text token, if there is one.
    pub eos_token_id: Option<u32>,
}

impl Config {
    /// Head size, `D`.
    pub fn head_size(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Checks every field against its bounds (`docs/format.md`, "Header").
    pub fn validate(&self) -> Result<(), FormatError> {
        let bounds = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("n_positions", self.n_positions, 1 << 24),
            ("n_embd", self.n_embd, 1 << 20),
            ("n_inner", self.n_inner, 1 << 20),
            ("n_layer", self.n_layer, 1 << 12),
            ("n_head", self.n_head, 1 << 12),
        ];
        for (field, value, most) in bounds {
            if value == 0 || value > most {
                return Err(FormatError::config(field, format!("{value} is not in 1..={most}")));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            let detail = format!("{} does not divide n_embd {}", self.n_head, self.n_embd);
            return Err(FormatError::config("n_head", detail));
        }
        let epsilon = self.layer_norm_epsilon;
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            return Err(FormatError::config("layer_norm_epsilon", format!("{epsilon} is not > 0")));
        }
        match self.eos_token_id {
            Some(eos) if eos as usize >= self.vocab_size => {
                Err(FormatError::config("eos_token_id", format!("{eos} is past the vocabulary")))
            }
            _ => Ok(()),
        }
    }
}
