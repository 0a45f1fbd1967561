//! Why a checkpoint could not be quantized.

use cerebellum::format::FormatError;

use crate::{checkpoint, output, reference};

/// Any failure of the quantizer. No output file is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The float model could not be run.
    #[error(transparent)]
    Reference(#[from] reference::Error),
    /// The model cannot be described by a model file.
    #[error("the checkpoint does not fit the model file format: {0}")]
    Format(#[from] FormatError),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// A weight is so large that its scale is no float16 even with the largest exponent.
    #[error(
        "tensor {tensor} holds a weight of magnitude {value}, more than {} can be quantized: the checkpoint's training has diverged",
        super::scale::MAX_WEIGHT
    )]
    WeightTooLarge {
        /// The tensor.
        tensor: String,
        /// The largest magnitude in it.
        value: f32,
    },
    /// A position embedding is not representable as float16.
    #[error(
        "tensor {tensor} holds {value} at index {index:?}, more than float16's largest value 65504: the checkpoint's training has diverged"
    )]
    PositionTooLarge {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// Its row and column.
        index: [usize; 2],
    },
    /// A group size that the format does not have.
    #[error("group size {0} is not supported; choose 32, 64 or 128")]
    GroupSize(usize),
    /// A budget that no choice of formats meets.
    #[error(
        "{bits} bits per weight cannot be met: choose a budget from {least:.2} (tc2 in groups of 128) to {most:.2} (int8 in groups of 32)"
    )]
    Budget {
        /// Bits per weight asked for.
        bits: f64,
        /// Bits per weight of the smallest file, rounded up to two decimals,
        least: f64,
        /// and of the largest, rounded down.
        most: f64,
    },
    /// Formats cannot be chosen without knowing what they cost.
    #[error(
        "a budget of bits is spent by what formats cost on a text: give one with --calibration"
    )]
    BudgetWithoutText,
    /// An option names a matrix that the model does not have.
    #[error("the model has no matrix {0}; `cerebellum inspect` lists the names")]
    UnknownMatrix(String),
    /// The templates are more than a reader accepts, or one's name is.
    #[error("the templates cannot be part of a model file: {0}")]
    Templates(String),
    /// The header would be longer than a reader accepts.
    #[error("the model has too many layers: its header needs {bytes} bytes, {limit} are allowed")]
    HeaderTooLarge {
        /// Bytes needed.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// No address space for an image of the file.
    #[error(
        "cannot reserve {length} bytes of address space: {source}; raise the limit (ulimit -v)"
    )]
    NoSpace {
        /// Bytes needed.
        length: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file, read back, is not what was written.
    #[error(
        "{what} was read back with other content than was written; check the disk and the memory of this machine"
    )]
    ReadBack {
        /// The tensor, or the header.
        what: String,
    },
}

/// The quantizer's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
