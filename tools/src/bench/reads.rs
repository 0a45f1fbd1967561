//! What a token makes a session read: where a model is not in RAM, this decides its speed.

use cerebellum::format::TensorKind;
use cerebellum::format::network::Role;
use cerebellum::{KvType, Model};
use serde::Serialize;

use super::position_bytes;

/// Bytes that a token reads, evaluated alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reads {
    /// Of the embedding: the 16 rows that lie in the same lines as the token's.
    pub embedding_bytes: usize,
    /// Matrices of attention in all layers.
    pub attention_bytes: usize,
    /// Matrices of the MLP in all layers.
    pub mlp_bytes: usize,
    /// Norms, biases and all else that is small.
    pub vectors_bytes: usize,
    /// The matrix that gives logits.
    pub head_bytes: usize,
    /// Keys and values of the positions before, which lie in the session's memory and not in the file.
    pub cache_bytes: usize,
}

impl Reads {
    /// Of a token behind `positions` others.
    pub fn of(model: &Model, kv: KvType, positions: usize) -> Self {
        let config = model.config();
        let mut reads = Self::default();
        for tensor in model.layout().tensors() {
            let bytes = tensor.bytes_of_token(config);
            let (TensorKind::Matrix(matrix), Some(id)) = (&tensor.kind, tensor.id) else {
                reads.vectors_bytes += bytes;
                continue;
            };
            match id.role {
                Role::Embedding => {
                    reads.embedding_bytes = matrix.tiles.panel_bytes();
                    reads.head_bytes += bytes - reads.embedding_bytes;
                }
                Role::Head => reads.head_bytes += bytes,
                Role::AttentionIn | Role::AttentionOut => reads.attention_bytes += bytes,
                Role::MlpUp | Role::MlpGate | Role::MlpDown => reads.mlp_bytes += bytes,
                _ => {}
            }
        }
        let seen = |layer| config.layer_kind(layer).window.map_or(positions, |w| w.min(positions));
        let seen: usize = (0..config.n_layer).map(seen).sum();
        reads.cache_bytes = seen * position_bytes(config, kv) as usize;
        reads
    }

    /// All that lies in the file.
    pub fn file_bytes(&self) -> usize {
        self.embedding_bytes
            + self.attention_bytes
            + self.mlp_bytes
            + self.vectors_bytes
            + self.head_bytes
    }
}
