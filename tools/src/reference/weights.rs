//! Where the reference takes its weights from.

use std::collections::BTreeMap;

use cerebellum::format::Config;
use cerebellum::format::network::{self, TensorId};

use crate::checkpoint::{Checkpoint, Result};

/// A model's shape and its tensors in float32.
pub trait Weights {
    /// Every number beside the tensors that the logits depend on.
    fn config(&self) -> &Config;

    /// ALiBi's slopes `[H]`; empty without ALiBi.
    ///
    /// # Errors
    /// If they cannot be read.
    fn slopes(&self) -> Result<Vec<f32>>;

    /// Inverse frequencies of rotated positions `[bases, pairs]`; empty where none are rotated.
    ///
    /// # Errors
    /// If they cannot be read.
    fn frequencies(&self) -> Result<Vec<f64>>;

    /// All values of a tensor, row by row: of a linear layer's matrix `[out, in]`.
    ///
    /// # Errors
    /// If there is no such tensor, or its values cannot be read.
    fn read(&self, id: TensorId) -> Result<Vec<f32>>;
}

impl Weights for Checkpoint {
    fn config(&self) -> &Config {
        self.config()
    }

    fn slopes(&self) -> Result<Vec<f32>> {
        Ok(self.derived().slopes.clone())
    }

    fn frequencies(&self) -> Result<Vec<f64>> {
        Ok(self.derived().frequencies.clone())
    }

    fn read(&self, id: TensorId) -> Result<Vec<f32>> {
        self.read_matrix(&id.name())
    }
}

/// Weights together with the list of the tensors that their network has.
pub(crate) struct Tensors<'a, W> {
    pub weights: &'a W,
    shapes: BTreeMap<TensorId, Vec<usize>>,
}

impl<'a, W: Weights> Tensors<'a, W> {
    pub fn new(weights: &'a W) -> Self {
        let tensors = network::tensors(weights.config()).into_iter();
        Self { weights, shapes: tensors.map(|t| (t.id, t.dimensions())).collect() }
    }

    pub fn config(&self) -> &'a Config {
        self.weights.config()
    }

    pub fn has(&self, id: TensorId) -> bool {
        self.shapes.contains_key(&id)
    }

    /// How many inputs a matrix of the network has.
    pub fn columns(&self, id: TensorId) -> usize {
        self.shapes[&id][1]
    }

    /// All values of a tensor that every network of the kind has.
    pub fn read(&self, id: TensorId) -> Result<Vec<f32>> {
        self.weights.read(id)
    }

    /// All values of a tensor, if the network has it.
    pub fn find(&self, id: TensorId) -> Result<Option<Vec<f32>>> {
        self.has(id).then(|| self.read(id)).transpose()
    }
}
