//! Where the reference takes its weights from.

use crate::checkpoint::{Checkpoint, Config, Result};

/// A model's shape and its tensors in float32, by their canonical names.
pub trait Weights {
    /// Every number beside the tensors that the logits depend on.
    fn config(&self) -> &Config;

    /// Whether the embedding is also the head.
    fn is_tied(&self) -> bool;

    /// All values of a tensor; those of the embedding, the head and the positions row by row.
    ///
    /// # Errors
    /// If there is no such tensor, or its values cannot be read.
    fn read_f32(&self, name: &str) -> Result<Vec<f32>>;

    /// All values of a linear layer's matrix, as `[out, in]`.
    ///
    /// # Errors
    /// Those of [`read_f32`](Self::read_f32).
    fn read_matrix(&self, name: &str) -> Result<Vec<f32>>;
}

impl Weights for Checkpoint {
    fn config(&self) -> &Config {
        self.config()
    }

    fn is_tied(&self) -> bool {
        self.is_tied()
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.read_f32(name)
    }

    fn read_matrix(&self, name: &str) -> Result<Vec<f32>> {
        self.read_matrix(name)
    }
}
