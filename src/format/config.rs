//! The configuration of a model: every number and choice that the forward pass depends on.

use alloc::vec::Vec;

use serde::Serialize;

use super::FormatError;
use super::json::{Json, Reader, members, names};
use crate::float;
use crate::kernels::Activation;
use crate::number::Shortest;

/// The family of networks that a model belongs to. It is for people: what is computed, the other fields of
/// [`Config`] say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// GPT-2 and Cerebras-GPT: learned positions, layer norm before each block.
    Gpt2,
    /// BTLM, JAIS and muP variants of Cerebras-GPT (Dey et al., 2023): GPT-2 with ALiBi, a gated MLP
    /// and multipliers, each of which a model may also lack.
    Btlm,
    /// Llama 2 and 3, SmolLM2, TinyLlama: RMS norms, rotated positions, a gated MLP.
    Llama,
    /// Llama with windows in all layers.
    Mistral,
    /// Llama with biases at query, key and value.
    Qwen2,
    /// Llama with norms of each query and key.
    Qwen3,
    /// Four norms a layer, windows in most layers, two bases of rotation.
    Gemma3,
    /// Llama with some layers whose positions are not rotated.
    SmolLm3,
    /// Llama with multipliers.
    Granite,
    /// Norms after attention and MLP only, norms of queries and keys over their whole width.
    Olmo2,
    /// Llama.
    Phi3,
    /// Pythia: layer norms, a part of each head rotated, attention and MLP side by side.
    GptNeox,
}

names!(Architecture { Gpt2 = "gpt2", Btlm = "btlm", Llama = "llama", Mistral = "mistral", Qwen2 = "qwen2", Qwen3 = "qwen3", Gemma3 = "gemma3", SmolLm3 = "smollm3", Granite = "granite", Olmo2 = "olmo2", Phi3 = "phi3", GptNeox = "gptneox" });

/// Shape and choices of a model, as the file's header states them.
///
/// [`Config::gpt2`] makes one, whose fields can then be set.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// Number of tokens, `V`.
    pub vocab_size: usize,
    /// Rows of the table of learned positions; without one, the length that the model was trained on.
    pub n_positions: usize,
    /// Width of the residual stream, `E`.
    pub n_embd: usize,
    /// Layers.
    pub n_layer: usize,
    /// The norms.
    pub norm: Norm,
    /// How a token's place in the text enters.
    pub positions: Positions,
    /// Attention.
    pub attention: Attention,
    /// The MLP.
    pub mlp: Mlp,
    /// The residual stream.
    pub residual: Residual,
    /// What embeddings are multiplied by.
    pub embeddings_scale: f32,
    /// What logits are multiplied by.
    pub logits_scale: f32,
    /// The output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// The end-of-text token, if there is one.
    pub eos_token_id: Option<u32>,
}

members!(Config {
    architecture,
    vocab_size,
    n_positions,
    n_embd,
    n_layer,
    norm,
    positions,
    attention,
    mlp,
    residual,
    embeddings_scale,
    logits_scale,
    tie_word_embeddings,
    eos_token_id
});

/// The norms of a network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Norm {
    /// What they compute.
    pub kind: NormKind,
    /// Where a layer has them.
    pub place: NormPlace,
    /// Added to the variance, or to the mean square.
    pub epsilon: f32,
}

members!(Norm { kind, place, epsilon });

/// What a norm computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormKind {
    /// Layer norm, with weight and bias (Ba et al., 2016).
    Layer,
    /// RMS norm, with a weight (Zhang & Sennrich, 2019).
    Rms,
}

names!(NormKind { Layer = "layer", Rms = "rms" });

/// Where a layer has norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormPlace {
    /// Before attention and before the MLP.
    Before,
    /// After attention and after the MLP, before their outputs are added to the residual stream.
    After,
    /// Both: four norms a layer.
    Both,
}

names!(NormPlace { Before = "before", After = "after", Both = "both" });

impl NormPlace {
    /// Whether attention and MLP read a norm's output rather than the residual stream.
    pub fn is_before(self) -> bool {
        self != Self::After
    }

    /// Whether the outputs of attention and MLP pass a norm.
    pub fn is_after(self) -> bool {
        self != Self::Before
    }
}

/// How a token's place in the text enters the network.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Positions {
    /// A table of embeddings, added to the tokens'.
    Learned,
    /// Scores fall with the distance between query and key (ALiBi, Press et al., 2022).
    Alibi {
        /// The length of text that the slopes were trained on, if they shrink for longer ones as the
        /// length grows (`docs/numbers.md` section 7).
        train_len: Option<usize>,
    },
    /// Queries and keys are rotated (RoPE, Su et al., 2021; `docs/numbers.md` section 12). The file has
    /// the inverse frequencies of each base.
    Rope {
        /// Pairs of dimensions of a head that are rotated: dimension `i` with `i + pairs`.
        pairs: usize,
        /// What cosine and sine are multiplied by, a factor for each base.
        factors: Vec<f64>,
    },
}

impl Json for Positions {
    fn read(reader: &mut Reader) -> Self {
        match reader.variant() {
            (name, Some(mut content)) if name == "alibi" => {
                Self::Alibi { train_len: content.object().member("train_len") }
            }
            (name, Some(mut content)) if name == "rope" => {
                let object = content.object();
                Self::Rope { pairs: object.member("pairs"), factors: object.member("factors") }
            }
            (name, content) => {
                if name != "learned" || content.is_some() {
                    reader.unknown(&name);
                }
                Self::Learned
            }
        }
    }
}

/// Attention, its heads, and how layers differ in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attention {
    /// Query heads, `H`.
    pub heads: usize,
    /// Heads of keys and values, `K`; each serves `H / K` query heads (Ainslie et al., 2023).
    pub kv_heads: usize,
    /// Size of a head, `D`.
    pub head_size: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Divide scores by the layer's number, counted from 1, too.
    pub scale_by_layer: bool,
    /// RMS norms of queries and keys.
    pub query_key_norm: QueryKeyNorm,
    /// Which of its two linear layers have biases.
    pub biases: Biases,
    /// The kinds of layers; at least one.
    pub kinds: Vec<LayerKind>,
    /// Which of the kinds each layer is; empty if all are of the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<u8>,
}

members!(Attention { heads, kv_heads, head_size, scale, scale_by_layer, query_key_norm, biases, kinds } or_default { layers });

/// How a layer's attention differs from that of other layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LayerKind {
    /// The positions that a query sees, its own among them; `None` if it sees all until its own.
    pub window: Option<usize>,
    /// The base by which positions are rotated, counted from 0; `None` if they are not.
    pub base: Option<usize>,
}

members!(LayerKind { window, base });

/// RMS norms of queries and keys, before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryKeyNorm {
    /// There are none.
    None,
    /// Over each head, with one weight for all heads.
    Head,
    /// Over all heads together.
    Width,
}

names!(QueryKeyNorm { None = "none", Head = "head", Width = "width" });

/// Which linear layers of attention have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Biases {
    /// None.
    None,
    /// The one that makes queries, keys and values.
    Input,
    /// Both.
    Both,
}

names!(Biases { None = "none", Input = "input", Both = "both" });

impl Json for Activation {
    fn read(reader: &mut Reader) -> Self {
        Self::ALL[reader.choice(&Self::ALL.map(Self::name))]
    }
}

/// The MLP.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mlp {
    /// What it computes.
    pub kind: MlpKind,
    /// Its inner width, `F`.
    pub inner: usize,
    /// Its non-linearity.
    pub activation: Activation,
    /// Its linear layers have biases.
    pub biases: bool,
}

members!(Mlp { kind, inner, activation, biases });

/// What an MLP computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MlpKind {
    /// `down(activation(up(x)))`.
    Plain,
    /// `down(up(x) * activation(gate(x)))` (Shazeer, 2020).
    Gated,
}

names!(MlpKind { Plain = "plain", Gated = "gated" });

/// How the outputs of attention and MLP enter the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Residual {
    /// In which order.
    pub order: ResidualOrder,
    /// What they are multiplied by.
    pub scale: f32,
}

members!(Residual { order, scale });

/// In which order attention and MLP read and change the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResidualOrder {
    /// The MLP reads what attention has added to: `y = x + attention(x)`, `y + mlp(y)`.
    Sequential,
    /// Both read the same: `x + attention(x) + mlp(x)`.
    Parallel,
}

names!(ResidualOrder { Sequential = "sequential", Parallel = "parallel" });

/// The most positions of a cache where the model itself sets no limit.
const MAX_CONTEXT: usize = 1 << 24;
/// The most positions that are rotated: up to there the error of their angles is stated
/// (`docs/numbers.md` section 12).
const MAX_ROTATED: usize = 1 << 20;
/// The most kinds of layers, and the most bases of rotation.
pub(crate) const MAX_KINDS: usize = 8;

impl Config {
    /// A GPT-2 of this size with a head of its own: heads of `n_embd / n_head`, an inner width of `4 n_embd`,
    /// the tanh GELU, layer norms with an epsilon of 1e-5, biases everywhere.
    pub fn gpt2(
        vocab_size: usize,
        n_positions: usize,
        n_embd: usize,
        n_head: usize,
        n_layer: usize,
    ) -> Self {
        let head_size = n_embd / n_head.max(1);
        Self {
            architecture: Architecture::Gpt2,
            vocab_size,
            n_positions,
            n_embd,
            n_layer,
            norm: Norm { kind: NormKind::Layer, place: NormPlace::Before, epsilon: 1e-5 },
            positions: Positions::Learned,
            attention: Attention {
                heads: n_head,
                kv_heads: n_head,
                head_size,
                scale: 1.0 / float::sqrt(head_size as f32),
                scale_by_layer: false,
                query_key_norm: QueryKeyNorm::None,
                biases: Biases::Both,
                kinds: vec![LayerKind { window: None, base: None }],
                layers: Vec::new(),
            },
            mlp: Mlp {
                kind: MlpKind::Plain,
                inner: 4 * n_embd,
                activation: Activation::GeluTanh,
                biases: true,
            },
            residual: Residual { order: ResidualOrder::Sequential, scale: 1.0 },
            embeddings_scale: 1.0,
            logits_scale: 1.0,
            tie_word_embeddings: false,
            eos_token_id: None,
        }
    }

    /// The most tokens in a sequence: learned and rotated positions end, ALiBi goes on.
    pub fn max_context(&self) -> usize {
        match self.positions {
            Positions::Alibi { .. } => MAX_CONTEXT,
            _ => self.n_positions,
        }
    }

    /// How a layer differs from others.
    pub fn layer_kind(&self, layer: usize) -> LayerKind {
        self.attention.kinds[self.kind_index(layer)]
    }

    /// Which of the kinds a layer is.
    pub(crate) fn kind_index(&self, layer: usize) -> usize {
        self.attention.layers.get(layer).map_or(0, |&kind| usize::from(kind))
    }

    /// Checks every field against its bounds (`docs/format.md`, "Header").
    pub fn validate(&self) -> Result<(), FormatError> {
        let attention = &self.attention;
        check_ranges(&[
            ("vocab_size", self.vocab_size, 1 << 24),
            ("n_positions", self.n_positions, 1 << 24),
            ("n_embd", self.n_embd, 1 << 20),
            ("n_layer", self.n_layer, 1 << 12),
            ("mlp.inner", self.mlp.inner, 1 << 20),
            ("attention.heads", attention.heads, 1 << 12),
            ("attention.kv_heads", attention.kv_heads, 1 << 12),
            ("attention.head_size", attention.head_size, 1 << 12),
        ])?;
        check_positive(&[
            ("norm.epsilon", self.norm.epsilon),
            ("embeddings_scale", self.embeddings_scale),
            ("logits_scale", self.logits_scale),
            ("attention.scale", attention.scale),
            ("residual.scale", self.residual.scale),
        ])?;
        attention.validate(self.n_layer)?;
        self.positions.validate(attention)?;
        if self.positions.bases() > 0 {
            check_ranges(&[("n_positions", self.n_positions, MAX_ROTATED)])?;
        }
        match self.eos_token_id {
            Some(eos) if eos as usize >= self.vocab_size => {
                Err(FormatError::config("eos_token_id", format!("{eos} is past the vocabulary")))
            }
            _ => Ok(()),
        }
    }
}

impl Positions {
    /// How many bases of rotation there are.
    pub fn bases(&self) -> usize {
        match self {
            Self::Rope { factors, .. } => factors.len(),
            _ => 0,
        }
    }

    fn validate(&self, attention: &Attention) -> Result<(), FormatError> {
        match self {
            Self::Learned => {}
            Self::Alibi { train_len } => {
                check_ranges(&[("positions.alibi", train_len.unwrap_or(1), MAX_CONTEXT)])?;
            }
            Self::Rope { pairs, factors } => {
                check_ranges(&[
                    ("positions.rope.pairs", *pairs, attention.head_size / 2),
                    ("positions.rope.factors", factors.len(), MAX_KINDS),
                ])?;
                if let Some(factor) = factors.iter().find(|f| !(**f > 0.0 && f.is_finite())) {
                    let detail = format!("{} is not > 0", Shortest(*factor as f32));
                    return Err(FormatError::config("positions.rope.factors", detail));
                }
            }
        }
        match attention.kinds.iter().filter_map(|kind| kind.base).find(|&b| b >= self.bases()) {
            Some(base) => {
                let detail = format!("base {base} is not one of {}", self.bases());
                Err(FormatError::config("attention.kinds", detail))
            }
            None => Ok(()),
        }
    }
}

impl Attention {
    /// Query heads that share a head of keys and values.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Width of all queries side by side.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Width of all keys side by side, and of all values.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_size
    }

    /// Width of all queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }

    fn validate(&self, n_layer: usize) -> Result<(), FormatError> {
        if !self.heads.is_multiple_of(self.kv_heads) {
            let detail =
                format!("{} does not divide attention.heads {}", self.kv_heads, self.heads);
            return Err(FormatError::config("attention.kv_heads", detail));
        }
        check_ranges(&[
            ("attention.heads * head_size", self.query_width(), 1 << 20),
            ("attention.kinds", self.kinds.len(), MAX_KINDS),
        ])?;
        if let Some(window) = self.kinds.iter().filter_map(|kind| kind.window).find(|&w| w == 0) {
            let detail = format!("a window of {window} positions");
            return Err(FormatError::config("attention.kinds", detail));
        }
        if !self.layers.is_empty() && self.layers.len() != n_layer {
            let detail = format!("{} kinds of {n_layer} layers", self.layers.len());
            return Err(FormatError::config("attention.layers", detail));
        }
        match self.layers.iter().find(|&&kind| usize::from(kind) >= self.kinds.len()) {
            Some(kind) => {
                let detail = format!("kind {kind} is not one of {}", self.kinds.len());
                Err(FormatError::config("attention.layers", detail))
            }
            None => Ok(()),
        }
    }
}

fn check_ranges(ranges: &[(&'static str, usize, usize)]) -> Result<(), FormatError> {
    match ranges.iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
        Some((field, value, most)) => {
            Err(FormatError::config(field, format!("{value} is not in 1..={most}")))
        }
        None => Ok(()),
    }
}

fn check_positive(factors: &[(&'static str, f32)]) -> Result<(), FormatError> {
    match factors.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
        Some((field, value)) => {
            Err(FormatError::config(field, format!("{} is not > 0", Shortest(*value))))
        }
        None => Ok(()),
    }
}
