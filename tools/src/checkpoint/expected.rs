//! Which tensors a model of a given configuration must have.

use cerebellum::format::network::{self, Described, Role, Shape, TensorId};

use super::config::Config;
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

/// Every tensor of the model, in the order the forward pass uses them: the canonical order. The slopes of
/// ALiBi follow from the configuration.
pub(super) fn expected(config: &Config, tied: bool) -> Vec<Expected> {
    let tensors = network::tensors(&config.for_file(tied)).into_iter();
    tensors.filter(|tensor| tensor.id.role != Role::Slopes).map(Expected::from).collect()
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
