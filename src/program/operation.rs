//! The steps that a layer consists of.

use super::places::{LinearAt, NormAt};
use crate::kernels::Epilogue;
use crate::quant::TileLayout;

/// A buffer of a pass: a row for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// The residual stream `[E]`.
    Residual,
    /// Queries of all heads, then keys, then values `[(H + 2 K) D]`.
    Qkv,
    /// What the heads gathered, side by side `[H D]`.
    Attended,
    /// Inside the MLP `[F]`.
    Inner,
    /// An output of attention or MLP that a norm follows `[E]`.
    Branch,
}

/// A step of a layer.
pub(crate) enum Operation {
    /// A buffer, through a norm if there is one, to the quantized rows, in groups as the next matrix has
    /// them. By rows.
    Quantize { from: Buffer, norm: Option<NormAt>, tiles: TileLayout },
    /// The quantized rows times a matrix to a buffer. By panels of the matrix.
    Multiply { linear: LinearAt, epilogue: Epilogue, to: Buffer },
    /// Norms of all queries together, and of all keys. By rows.
    NormQueriesAndKeys { query: NormAt, key: NormAt },
    /// Norms of each query and key, and their rotation; each as far as the layer has it. By rows, or by
    /// heads.
    RotateHeads { norms: Option<(NormAt, NormAt)>, base: Option<usize> },
    /// Keys and values to the cache. By heads of keys.
    Store,
    /// Queries and the cache to what the heads gathered. By heads of keys and blocks of queries.
    Attend { scale: f32, window: Option<usize> },
    /// What the heads gathered segment by segment, if attention went so, side by side. By heads of queries; of
    /// one row only.
    Merge { window: Option<usize> },
    /// The rows of which logits are wanted become the first ones, of the residual stream and of what the
    /// heads gathered; in a narrow layer only.
    Narrow,
    /// The branch's norm, times a factor, is added to the residual stream. By rows.
    AddNormed { norm: NormAt, scale: f32 },
}
