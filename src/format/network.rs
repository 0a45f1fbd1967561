//! What a network consists of: the one place that knows its tensors' names, shapes, order and readers.
//!
//! [`tensors`] makes of a [`Config`] the list of tensors in the order in which a token passes them. The
//! file's layout, the model's places, the checkpoint readers, calibration and budgets ask this
//! list, or a [`TensorId`]; none of them looks at a name.

use alloc::string::String;
use alloc::vec::Vec;

use super::{ALIBI_SLOPES, Biases, Config, MlpKind, NormKind, Positions, QueryKeyNorm};

/// What a tensor does in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// The table of the tokens' embeddings `[vocab_size, n_embd]`; also the head when the two are tied.
    Embedding,
    /// The table of the positions' embeddings `[n_positions, n_embd]`.
    Positions,
    /// The norm before attention.
    AttentionNorm,
    /// Query, key and value of all heads `[(H + 2 K) D, n_embd]`.
    AttentionIn,
    /// The norm of queries: of each `[D]`, or of all heads' together `[H D]`.
    QueryNorm,
    /// The norm of keys: of each `[D]`, or of all heads' together `[K D]`.
    KeyNorm,
    /// What the heads gathered, back to the residual stream `[n_embd, H D]`.
    AttentionOut,
    /// The norm after attention.
    AttentionOutNorm,
    /// The norm before the MLP.
    MlpNorm,
    /// The MLP's first matrix `[n_inner, n_embd]`.
    MlpUp,
    /// The gate of a gated MLP `[n_inner, n_embd]`.
    MlpGate,
    /// The MLP's last matrix `[n_embd, n_inner]`.
    MlpDown,
    /// The norm after the MLP.
    MlpOutNorm,
    /// The norm before the head.
    FinalNorm,
    /// A head of its own `[vocab_size, n_embd]`.
    Head,
    /// The slopes of ALiBi `[H]`.
    Slopes,
    /// The inverse frequencies of rotated positions `[bases, pairs]`.
    Frequencies,
}

/// What enters a matrix. Matrices with the same input read the same quantized rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Input {
    /// The output of the norm before attention; the residual stream where there is no such norm.
    AttentionNorm,
    /// What the heads gathered.
    Heads,
    /// The output of the norm before the MLP; the residual stream where there is no such norm.
    MlpNorm,
    /// The MLP's hidden units.
    Hidden,
    /// The output of the last norm.
    FinalNorm,
}

impl Input {
    /// The norm whose output it is, if it is one's.
    pub fn norm(self) -> Option<Role> {
        match self {
            Self::AttentionNorm => Some(Role::AttentionNorm),
            Self::MlpNorm => Some(Role::MlpNorm),
            Self::FinalNorm => Some(Role::FinalNorm),
            Self::Heads | Self::Hidden => None,
        }
    }
}

impl Role {
    /// What its matrix multiplies; `None` of a table whose rows are looked up, and of what is no matrix. A
    /// tied embedding is looked up and multiplies what a head does.
    pub fn reads(self) -> Option<Input> {
        match self {
            Self::AttentionIn => Some(Input::AttentionNorm),
            Self::AttentionOut => Some(Input::Heads),
            Self::MlpUp | Self::MlpGate => Some(Input::MlpNorm),
            Self::MlpDown => Some(Input::Hidden),
            Self::Head => Some(Input::FinalNorm),
            Self::Embedding
            | Self::Positions
            | Self::AttentionNorm
            | Self::QueryNorm
            | Self::KeyNorm
            | Self::AttentionOutNorm
            | Self::MlpNorm
            | Self::MlpOutNorm
            | Self::FinalNorm
            | Self::Slopes
            | Self::Frequencies => None,
        }
    }

    /// Whether it is a linear layer's: a matrix with a bias.
    pub fn is_linear(self) -> bool {
        self.reads().is_some() && self != Self::Head
    }

    /// Its name in a layer `h.N`, or outside of layers, without the part's.
    const fn name(self) -> &'static str {
        match self {
            Self::Embedding => "wte",
            Self::Positions => "wpe",
            Self::AttentionNorm => "ln_1",
            Self::AttentionIn => "attn.c_attn",
            Self::QueryNorm => "attn.q_norm",
            Self::KeyNorm => "attn.k_norm",
            Self::AttentionOut => "attn.c_proj",
            Self::AttentionOutNorm => "attn.ln_out",
            Self::MlpNorm => "ln_2",
            Self::MlpUp => "mlp.c_fc",
            Self::MlpGate => "mlp.c_fc2",
            Self::MlpDown => "mlp.c_proj",
            Self::MlpOutNorm => "mlp.ln_out",
            Self::FinalNorm => "ln_f",
            Self::Head => "lm_head",
            Self::Slopes => ALIBI_SLOPES,
            Self::Frequencies => ROPE_FREQUENCIES,
        }
    }
}

/// Roles of a layer, in the order in which a token passes them.
const IN_LAYER: [Role; 11] = [
    Role::AttentionNorm,
    Role::AttentionIn,
    Role::QueryNorm,
    Role::KeyNorm,
    Role::AttentionOut,
    Role::AttentionOutNorm,
    Role::MlpNorm,
    Role::MlpUp,
    Role::MlpGate,
    Role::MlpDown,
    Role::MlpOutNorm,
];

/// Roles outside of layers.
const OUTSIDE: [Role; 4] = [Role::Embedding, Role::Positions, Role::FinalNorm, Role::Head];

/// Roles of which there is one tensor, whose name is all of it.
const SINGLE: [Role; 2] = [Role::Slopes, Role::Frequencies];

/// The name of the tensor with the inverse frequencies of rotated positions.
const ROPE_FREQUENCIES: &str = "rope.inverse_frequencies";

/// Which tensor of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The matrix, the table, or a norm's factors.
    Weight,
    /// What is added.
    Bias,
}

/// Which tensor of a network: what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TensorId {
    /// The layer, from 0; `None` outside of layers.
    pub layer: Option<usize>,
    /// What it does.
    pub role: Role,
    /// Which of the role's tensors.
    pub part: Part,
}

impl TensorId {
    /// The weight of a role outside of layers.
    pub const fn outside(role: Role) -> Self {
        Self { layer: None, role, part: Part::Weight }
    }

    /// The weight of a role in a layer.
    pub const fn in_layer(layer: usize, role: Role) -> Self {
        Self { layer: Some(layer), role, part: Part::Weight }
    }

    /// The bias that belongs to it.
    pub const fn bias(self) -> Self {
        Self { part: Part::Bias, ..self }
    }

    /// The canonical name: OpenAI's of GPT-2, `h.N.attn.c_attn.weight` for example; `h.N.mlp.c_fc2.*` for
    /// the gate, as BTLM has it; and names in their manner for what neither has.
    pub fn name(self) -> String {
        let name = self.role.name();
        let part = match self.part {
            _ if SINGLE.contains(&self.role) => "",
            Part::Weight => ".weight",
            Part::Bias => ".bias",
        };
        match self.layer {
            Some(layer) => format!("h.{layer}.{name}{part}"),
            None => format!("{name}{part}"),
        }
    }

    /// The tensor of a canonical name, if a network of any configuration has it.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(role) = SINGLE.iter().find(|role| role.name() == name) {
            return Some(Self::outside(*role));
        }
        let (rest, part) = match name.strip_suffix(".weight") {
            Some(rest) => (rest, Part::Weight),
            None => (name.strip_suffix(".bias")?, Part::Bias),
        };
        let (layer, rest, roles) = match rest.strip_prefix("h.").and_then(|r| r.split_once('.')) {
            Some((layer, rest)) => (Some(layer.parse().ok()?), rest, &IN_LAYER[..]),
            None => (None, rest, &OUTSIDE[..]),
        };
        let role = *roles.iter().find(|role| role.name() == rest)?;
        Some(Self { layer, role, part })
    }
}

/// A tensor's shape, and with it how the file stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `[out, in]`, quantized.
    Matrix([usize; 2]),
    /// `[rows, columns]` in float16.
    Table([usize; 2]),
    /// `[elements]` in float32.
    Vector(usize),
    /// `[bases, pairs]` in float64.
    Frequencies([usize; 2]),
}

/// A tensor that a network has.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Which one.
    pub id: TensorId,
    /// Its shape.
    pub shape: Shape,
}

impl Described {
    /// Dimensions, as they are used.
    pub fn dimensions(&self) -> Vec<usize> {
        match self.shape {
            Shape::Matrix(shape) | Shape::Table(shape) | Shape::Frequencies(shape) => {
                shape.to_vec()
            }
            Shape::Vector(elements) => vec![elements],
        }
    }
}

/// Every tensor of the network, in the order in which a token passes them; last what follows from the
/// configuration: the slopes of ALiBi, or the inverse frequencies of rotated positions.
pub fn tensors(config: &Config) -> Vec<Described> {
    let (e, v) = (config.n_embd, config.vocab_size);
    let (attention, mlp) = (&config.attention, &config.mlp);
    let mut list = List { tensors: Vec::new(), norm: config.norm.kind };
    list.push(TensorId::outside(Role::Embedding), Shape::Matrix([v, e]));
    if config.positions == Positions::Learned {
        list.push(TensorId::outside(Role::Positions), Shape::Table([config.n_positions, e]));
    }
    for layer in 0..config.n_layer {
        let id = |role| TensorId::in_layer(layer, role);
        if config.norm.place.is_before() {
            list.norm(id(Role::AttentionNorm), e);
        }
        let biased = attention.biases != Biases::None;
        list.linear(id(Role::AttentionIn), [attention.qkv_width(), e], biased);
        let (d, q, k) = (attention.head_size, attention.query_width(), attention.kv_width());
        match attention.query_key_norm {
            QueryKeyNorm::None => {}
            QueryKeyNorm::Head => list.query_key_norms(layer, d, d),
            QueryKeyNorm::Width => list.query_key_norms(layer, q, k),
        }
        list.linear(id(Role::AttentionOut), [e, q], attention.biases == Biases::Both);
        if config.norm.place.is_after() {
            list.norm(id(Role::AttentionOutNorm), e);
        }
        if config.norm.place.is_before() {
            list.norm(id(Role::MlpNorm), e);
        }
        list.linear(id(Role::MlpUp), [mlp.inner, e], mlp.biases);
        if mlp.kind == MlpKind::Gated {
            list.linear(id(Role::MlpGate), [mlp.inner, e], mlp.biases);
        }
        list.linear(id(Role::MlpDown), [e, mlp.inner], mlp.biases);
        if config.norm.place.is_after() {
            list.norm(id(Role::MlpOutNorm), e);
        }
    }
    list.norm(TensorId::outside(Role::FinalNorm), e);
    if !config.tie_word_embeddings {
        list.push(TensorId::outside(Role::Head), Shape::Matrix([v, e]));
    }
    match &config.positions {
        Positions::Learned => {}
        Positions::Alibi { .. } => {
            list.push(TensorId::outside(Role::Slopes), Shape::Vector(attention.heads));
        }
        Positions::Rope { pairs, factors } => {
            let shape = Shape::Frequencies([factors.len(), *pairs]);
            list.push(TensorId::outside(Role::Frequencies), shape);
        }
    }
    list.tensors
}

/// The matrix that makes logits: a head of its own, or the embedding.
pub fn head(config: &Config) -> TensorId {
    TensorId::outside(if config.tie_word_embeddings { Role::Embedding } else { Role::Head })
}

struct List {
    tensors: Vec<Described>,
    /// What norms compute, and so whether they have biases.
    norm: NormKind,
}

impl List {
    fn push(&mut self, id: TensorId, shape: Shape) {
        self.tensors.push(Described { id, shape });
    }

    fn norm(&mut self, weight: TensorId, width: usize) {
        self.push(weight, Shape::Vector(width));
        if self.norm == NormKind::Layer {
            self.push(weight.bias(), Shape::Vector(width));
        }
    }

    /// RMS norms, whatever the others are.
    fn query_key_norms(&mut self, layer: usize, query: usize, key: usize) {
        self.push(TensorId::in_layer(layer, Role::QueryNorm), Shape::Vector(query));
        self.push(TensorId::in_layer(layer, Role::KeyNorm), Shape::Vector(key));
    }

    fn linear(&mut self, weight: TensorId, shape: [usize; 2], biased: bool) {
        self.push(weight, Shape::Matrix(shape));
        if biased {
            self.push(weight.bias(), Shape::Vector(shape[0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let roles = IN_LAYER.into_iter().map(|role| TensorId::in_layer(13, role));
        let outside = OUTSIDE.into_iter().map(TensorId::outside);
        let single = SINGLE.into_iter().map(TensorId::outside);
        for id in roles.chain(outside).flat_map(|id| [id, id.bias()]).chain(single) {
            assert_eq!(TensorId::parse(&id.name()), Some(id), "{}", id.name());
        }
        for none in
            ["", "h.1.ln_1", "h.x.ln_1.weight", "ln_1.weight", "h.0.wte.weight", "h.0..bias"]
        {
            assert_eq!(TensorId::parse(none), None, "{none}");
        }
    }
}
