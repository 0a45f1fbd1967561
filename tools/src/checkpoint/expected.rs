//! Which tensors a model of a given configuration must have.

use cerebellum::format::Config;
use cerebellum::format::network::{self, Described, Role, Shape, TensorId};

use super::storage::Layout;

/// A tensor the model needs.
pub(super) struct Expected {
    /// Which one.
    pub id: TensorId,
    /// The canonical name.
    pub name: String,
    /// The shape as used: `[out, in]`, `[rows, columns]` or `[elements]`.
    pub shape: Vec<usize>,
    /// Whether it is the weight of a linear layer, which may be stored the other way round.
    pub linear: bool,
}

impl Expected {
    /// The shape as stored in this layout.
    pub fn stored_shape(&self, layout: Layout) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.linear && layout == Layout::Conv1d {
            shape.reverse();
        }
        shape
    }
}

/// Every tensor that a checkpoint of the model has, in the order the forward pass uses them: the canonical
/// order. Others follow from the configuration.
pub(super) fn expected(config: &Config) -> Vec<Expected> {
    let is_stored = |t: &Described| !matches!(t.id.role, Role::Slopes | Role::Frequencies);
    network::tensors(config).into_iter().filter(is_stored).map(Expected::from).collect()
}

impl From<Described> for Expected {
    fn from(tensor: Described) -> Self {
        let is_matrix = matches!(tensor.shape, Shape::Matrix(_));
        Self {
            id: tensor.id,
            name: tensor.id.name(),
            shape: tensor.dimensions(),
            linear: is_matrix && tensor.id.role.is_linear(),
        }
    }
}
