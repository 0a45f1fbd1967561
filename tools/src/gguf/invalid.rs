//! What can be wrong with a GGUF file.

use cerebellum::terminal::quoted;
use thiserror::Error;

/// Why bytes are no GGUF file that can be read. Who reports it names the file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The magic is missing.
    #[error("it does not begin with \"GGUF\"")]
    Magic,
    /// The version is not known.
    #[error("its version is {0}, but only 2 and 3 are known (convert older files again)")]
    Version(u32),
    /// The file is from a big-endian machine.
    #[error("it is from a big-endian machine (convert the model on another one)")]
    BigEndian,
    /// The file ends within its tables.
    #[error("it ends within its tables, at byte {at}, where {what} was expected")]
    Truncated {
        /// Where reading stopped.
        at: usize,
        /// What should be there.
        what: &'static str,
    },
    /// A table claims more entries than fit in the file.
    #[error("it claims {count} {what}, more than can be in a file of its size")]
    Count {
        /// The entries.
        what: &'static str,
        /// The claim.
        count: u64,
    },
    /// A metadata entry is not as the format has it.
    #[error("metadata entry {key} {problem}", key = quoted(key))]
    Entry {
        /// The entry's key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor is not as the format has it.
    #[error("tensor {tensor} {problem}", tensor = quoted(tensor))]
    Tensor {
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
}
