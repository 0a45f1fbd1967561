//! Where the reference takes its weights from.

use cerebellum::format::Config;

use crate::checkpoint::{Checkpoint, Result};

/// A model's shape and its tensors in float32, by their canonical names.
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

    fn slopes(&self) -> Result<Vec<f32>> {
        Ok(self.derived().slopes.clone())
    }

    fn frequencies(&self) -> Result<Vec<f64>> {
        Ok(self.derived().frequencies.clone())
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.read_f32(name)
    }

    fn read_matrix(&self, name: &str) -> Result<Vec<f32>> {
        self.read_matrix(name)
    }
}
