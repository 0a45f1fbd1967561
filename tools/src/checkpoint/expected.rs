//! Which tensors a model of a given configuration must have, and which stored ones they consist of.

use std::ops::Range;

use cerebellum::format::Config;
use cerebellum::format::network::{self, Described, Role, Shape, TensorId};

use super::names::{Names, Rows};
use super::storage::Layout;
use super::tensor::Order;

/// A tensor the model needs.
pub(crate) struct Expected {
    /// Which one.
    pub id: TensorId,
    /// The canonical name.
    pub name: String,
    /// The shape as used: `[out, in]`, `[rows, columns]` or `[elements]`.
    pub shape: Vec<usize>,
    /// Whether it is the weight of a linear layer, which may be stored the other way round.
    pub linear: bool,
    /// The stored tensors that it consists of, in order.
    pub pieces: Vec<ExpectedPiece>,
    /// What is added to its elements.
    pub offset: f32,
}

/// A stored tensor of which a tensor consists, whole or in part.
pub(crate) struct ExpectedPiece {
    /// The stored name without prefixes.
    pub name: String,
    /// Rows, or elements of a vector, that the stored tensor has.
    pub stored_rows: usize,
    /// Those of them that belong to this tensor.
    pub taken: Range<usize>,
    /// In which order they stand.
    pub order: Order,
}

impl Expected {
    fn new(tensor: Described, config: &Config, names: &Names) -> Self {
        let shape = tensor.dimensions();
        let is_matrix = matches!(tensor.shape, Shape::Matrix(_));
        let pieces = names.pieces(tensor.id).into_iter();
        let piece = |(name, rows)| ExpectedPiece::new(name, rows, shape[0], config);
        Self {
            id: tensor.id,
            name: tensor.id.name(),
            pieces: pieces.map(piece).collect(),
            linear: is_matrix && tensor.id.role.is_linear(),
            offset: if is_norm(tensor.id.role) { names.norm_offset } else { 0.0 },
            shape,
        }
    }

    /// The shape of a piece as stored in this layout.
    pub fn stored_shape(&self, piece: usize, layout: Layout) -> Vec<usize> {
        let mut shape = self.shape.clone();
        shape[0] = self.pieces[piece].stored_rows;
        if self.linear && layout == Layout::Conv1d {
            shape.reverse();
        }
        shape
    }
}

impl ExpectedPiece {
    /// The piece of a tensor of so many rows.
    fn new(name: String, rows: Rows, all: usize, config: &Config) -> Self {
        let attention = &config.attention;
        let (heads, head_size) = (attention.heads, attention.head_size);
        let whole = |rows, order| (rows, 0..rows, order);
        let (stored_rows, taken, order) = match rows {
            Rows::All => whole(all, Order::Plain),
            Rows::Queries => whole(attention.query_width(), Order::Plain),
            Rows::InterleavedQueries => {
                whole(attention.query_width(), Order::Interleaved { head_size })
            }
            Rows::Keys | Rows::Values => whole(attention.kv_width(), Order::Plain),
            Rows::InterleavedKeys => whole(attention.kv_width(), Order::Interleaved { head_size }),
            Rows::ByHead => whole(all, Order::ByHead { heads, head_size }),
            Rows::FirstHalf => (2 * all, 0..all, Order::Plain),
            Rows::SecondHalf => (2 * all, all..2 * all, Order::Plain),
        };
        Self { name, stored_rows, taken, order }
    }
}

fn is_norm(role: Role) -> bool {
    matches!(
        role,
        Role::AttentionNorm
            | Role::QueryNorm
            | Role::KeyNorm
            | Role::AttentionOutNorm
            | Role::MlpNorm
            | Role::MlpOutNorm
            | Role::FinalNorm
    )
}

/// Every tensor that a checkpoint of the model has, in the order the forward pass uses them: the canonical
/// order. Others follow from the configuration.
pub(crate) fn expected(config: &Config, names: &Names) -> Vec<Expected> {
    let is_stored = |t: &Described| !matches!(t.id.role, Role::Slopes | Role::Frequencies);
    let tensors = network::tensors(config).into_iter().filter(is_stored);
    tensors.map(|tensor| Expected::new(tensor, config, names)).collect()
}
