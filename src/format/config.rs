//! The configuration of a model: every number the forward pass depends on.

use serde::{Deserialize, Serialize};

use super::FormatError;
use crate::kernels::Activation;

/// The family of networks a model belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// GPT-2 and Cerebras-GPT: learned positions, layer norm before each block.
    Gpt2,
    /// BTLM, JAIS and muP variants of Cerebras-GPT (Dey et al., 2023): GPT-2 with ALiBi, a gated MLP
    /// and multipliers, each of which a model may also lack.
    Btlm,
}

/// Shape and switches of a model, as the file's header states them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// Number of tokens, `V`.
    pub vocab_size: usize,
    /// Number of learned positions; with ALiBi, the length the model was trained on.
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
    /// Scores fall with distance (ALiBi, Press et al., 2022) instead of learned positions.
    #[serde(default)]
    pub alibi: bool,
    /// The length of text that the slopes were trained on, if they shrink for longer ones as the length
    /// grows (`docs/numbers.md` section 7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alibi_train_len: Option<usize>,
    /// The MLP has a gate: `c_proj(c_fc(x) * activation(c_fc2(x)))`.
    #[serde(default)]
    pub gated_mlp: bool,
    /// What embeddings are multiplied by.
    #[serde(default = "one")]
    pub embeddings_scale: f32,
    /// What logits are multiplied by.
    #[serde(default = "one")]
    pub logits_scale: f32,
    /// Divide attention scores by the head size rather than by its square root.
    #[serde(default)]
    pub scale_qk_dot_by_d: bool,
}

fn one() -> f32 {
    1.0
}

/// The most positions of a cache where the model itself sets no limit.
const MAX_CONTEXT: usize = 1 << 24;

impl Config {
    /// Head size, `D`.
    pub fn head_size(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// The most tokens in a sequence: learned positions end, ALiBi goes on.
    pub fn max_context(&self) -> usize {
        if self.alibi { MAX_CONTEXT } else { self.n_positions }
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
            ("alibi_train_len", self.alibi_train_len.unwrap_or(1), MAX_CONTEXT),
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
        let factors = [
            ("layer_norm_epsilon", self.layer_norm_epsilon),
            ("embeddings_scale", self.embeddings_scale),
            ("logits_scale", self.logits_scale),
        ];
        for (field, value) in factors {
            if !(value > 0.0 && value.is_finite()) {
                return Err(FormatError::config(field, format!("{value} is not > 0")));
            }
        }
        match self.eos_token_id {
            Some(eos) if eos as usize >= self.vocab_size => {
                Err(FormatError::config("eos_token_id", format!("{eos} is past the vocabulary")))
            }
            _ => Ok(()),
        }
    }
}
