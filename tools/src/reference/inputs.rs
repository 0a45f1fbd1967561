//! Where matrices read.

use std::collections::BTreeMap;

use cerebellum::format::Config;
use cerebellum::format::network::{self, Input, Role, TensorId};

/// An input of matrices: which of a layer's, or the head's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InputAt {
    /// `None` for the head's.
    pub layer: Option<usize>,
    pub input: Input,
}

/// Sees, and may change, what matrices read, `[tokens, in]`.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(InputAt, &mut [f32]);

impl InputAt {
    /// What a matrix of the network reads; `None` of a table in which rows are only looked up.
    pub fn of(matrix: TensorId, config: &Config) -> Option<Self> {
        let input = match matrix == network::head(config) {
            true => Role::Head.reads(),
            false => matrix.role.reads(),
        };
        Some(Self { layer: matrix.layer, input: input? })
    }
}

/// The matrices of a network by what they read, in the order in which a token passes them.
pub(crate) fn readers(config: &Config) -> BTreeMap<InputAt, Vec<TensorId>> {
    let mut readers = BTreeMap::<_, Vec<_>>::new();
    for tensor in network::tensors(config) {
        if matches!(tensor.shape, network::Shape::Matrix(_))
            && let Some(at) = InputAt::of(tensor.id, config)
        {
            readers.entry(at).or_default().push(tensor.id);
        }
    }
    readers
}
