//! What a network consists of: the one place that knows its tensors' names, shapes, order and readers.
//!
//! [`tensors`] makes of a [`Config`] the list of tensors in the order in which a token passes them. The
//! file's layout, the model's places, the checkpoint readers, calibration, folding and budgets ask this
//! list, or a [`TensorId`]; none of them looks at a name.

use super::{ALIBI_SLOPES, Config};

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
    /// Query, key and value of all heads `[3 n_embd, n_embd]`.
    AttentionIn,
    /// What the heads gathered, back to the residual stream `[n_embd, n_embd]`.
    AttentionOut,
    /// The norm before the MLP.
    MlpNorm,
    /// The MLP's first matrix `[n_inner, n_embd]`.
    MlpUp,
    /// The gate of a gated MLP `[n_inner, n_embd]`.
    MlpGate,
    /// The MLP's last matrix `[n_embd, n_inner]`.
    MlpDown,
    /// The norm before the head.
    FinalNorm,
    /// A head of its own `[vocab_size, n_embd]`.
    Head,
    /// The slopes of ALiBi `[n_head]`.
    Slopes,
}

/// What enters a matrix. Matrices with the same input read the same quantized rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Input {
    /// The output of the norm before attention.
    AttentionNorm,
    /// What the heads gathered.
    Heads,
    /// The output of the norm before the MLP.
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
            | Self::MlpNorm
            | Self::FinalNorm
            | Self::Slopes => None,
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
            Self::AttentionOut => "attn.c_proj",
            Self::MlpNorm => "ln_2",
            Self::MlpUp => "mlp.c_fc",
            Self::MlpGate => "mlp.c_fc2",
            Self::MlpDown => "mlp.c_proj",
            Self::FinalNorm => "ln_f",
            Self::Head => "lm_head",
            Self::Slopes => ALIBI_SLOPES,
        }
    }
}

/// Roles of a layer, in the order in which a token passes them.
const IN_LAYER: [Role; 7] = [
    Role::AttentionNorm,
    Role::AttentionIn,
    Role::AttentionOut,
    Role::MlpNorm,
    Role::MlpUp,
    Role::MlpGate,
    Role::MlpDown,
];

/// Roles outside of layers.
const OUTSIDE: [Role; 5] =
    [Role::Embedding, Role::Positions, Role::FinalNorm, Role::Head, Role::Slopes];

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

    /// The bias beside it.
    pub const fn bias(self) -> Self {
        Self { part: Part::Bias, ..self }
    }

    /// The canonical name: OpenAI's of GPT-2, `h.N.attn.c_attn.weight` for example; and `h.N.mlp.c_fc2.*`,
    /// the gate of BTLM's MLP.
    pub fn name(self) -> String {
        let name = self.role.name();
        let part = match (self.role, self.part) {
            (Role::Slopes, _) => "",
            (_, Part::Weight) => ".weight",
            (_, Part::Bias) => ".bias",
        };
        match self.layer {
            Some(layer) => format!("h.{layer}.{name}{part}"),
            None => format!("{name}{part}"),
        }
    }

    /// The tensor of a canonical name, if a network of any configuration has it.
    pub fn parse(name: &str) -> Option<Self> {
        if name == ALIBI_SLOPES {
            return Some(Self::outside(Role::Slopes));
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
            Shape::Matrix(shape) | Shape::Table(shape) => shape.to_vec(),
            Shape::Vector(elements) => vec![elements],
        }
    }
}

/// Every tensor of the network, in the order in which a token passes them; the slopes of ALiBi last.
pub fn tensors(config: &Config) -> Vec<Described> {
    let (e, f, v) = (config.n_embd, config.n_inner, config.vocab_size);
    let mut list = List(Vec::new());
    list.push(TensorId::outside(Role::Embedding), Shape::Matrix([v, e]));
    if !config.alibi {
        list.push(TensorId::outside(Role::Positions), Shape::Table([config.n_positions, e]));
    }
    for layer in 0..config.n_layer {
        let id = |role| TensorId::in_layer(layer, role);
        list.norm(id(Role::AttentionNorm), e);
        list.linear(id(Role::AttentionIn), [3 * e, e]);
        list.linear(id(Role::AttentionOut), [e, e]);
        list.norm(id(Role::MlpNorm), e);
        list.linear(id(Role::MlpUp), [f, e]);
        if config.gated_mlp {
            list.linear(id(Role::MlpGate), [f, e]);
        }
        list.linear(id(Role::MlpDown), [e, f]);
    }
    list.norm(TensorId::outside(Role::FinalNorm), e);
    if !config.tie_word_embeddings {
        list.push(TensorId::outside(Role::Head), Shape::Matrix([v, e]));
    }
    if config.alibi {
        list.push(TensorId::outside(Role::Slopes), Shape::Vector(config.n_head));
    }
    list.0
}

/// The matrix that makes logits: a head of its own, or the embedding.
pub fn head(config: &Config) -> TensorId {
    TensorId::outside(if config.tie_word_embeddings { Role::Embedding } else { Role::Head })
}

struct List(Vec<Described>);

impl List {
    fn push(&mut self, id: TensorId, shape: Shape) {
        self.0.push(Described { id, shape });
    }

    fn norm(&mut self, weight: TensorId, width: usize) {
        self.push(weight, Shape::Vector(width));
        self.push(weight.bias(), Shape::Vector(width));
    }

    fn linear(&mut self, weight: TensorId, shape: [usize; 2]) {
        self.push(weight, Shape::Matrix(shape));
        self.push(weight.bias(), Shape::Vector(shape[0]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let roles = IN_LAYER.into_iter().map(|role| TensorId::in_layer(13, role));
        let outside = OUTSIDE.into_iter().map(TensorId::outside);
        for id in roles.chain(outside).flat_map(|id| [id, id.bias()]) {
            // Slopes are one tensor, whatever the part.
            let want = if id.role == Role::Slopes { TensorId::outside(id.role) } else { id };
            assert_eq!(TensorId::parse(&id.name()), Some(want), "{}", id.name());
        }
        for none in
            ["", "h.1.ln_1", "h.x.ln_1.weight", "ln_1.weight", "h.0.wte.weight", "h.0..bias"]
        {
            assert_eq!(TensorId::parse(none), None, "{none}");
        }
    }
}
