//! The model file: what `docs/format.md` specifies, read with suspicion.
//!
//! [`ModelBytes`] brings the bytes into memory, [`Header`] parses and validates what they claim,
//! [`network`] lists the tensors that the configuration implies, and [`FileLayout`] derives their
//! places. The quantizer writes by the same [`FileLayout`], so reader and writer cannot drift apart.

mod by_name;
mod bytes;
mod chat;
mod config;
mod error;
#[cfg(feature = "std")]
mod file_bytes;
mod header;
pub(crate) mod json;
mod layout;
pub mod network;
#[cfg(not(feature = "std"))]
mod no_files;
mod verify;

pub use crate::kernels::Activation;
pub use by_name::ByName;
pub use bytes::{Access, ModelBytes};
pub use chat::{Around, ChatForm, ChatFormat};
pub(crate) use config::MAX_KINDS;
pub use config::{
    Architecture, Attention, Biases, Config, LayerKind, Mlp, MlpKind, Norm, NormKind, NormPlace,
    Positions, QueryKeyNorm, Residual, ResidualOrder,
};
pub use error::FormatError;
#[cfg(feature = "std")]
pub(crate) use file_bytes::open_regular;
pub use header::{ChatJson, Header, Provenance, Source, is_template_name, read_header};
pub use layout::{
    Dtype, FileLayout, Matrix, MatrixInfo, Tensor, TensorKind, WeightsCopy, matrix_names,
};
pub(crate) use verify::verify_telling;
pub use verify::{Fault, checksum, verify};

/// The one version of the format.
pub const VERSION: u32 = 3;
/// The header may not be longer than this.
pub const MAX_HEADER_BYTES: usize = 1 << 20;

/// The most memory that opening takes of a file whose header has so many bytes (the file's first eight bytes are that
/// number), on a processor whose addresses have so many. What stays of it is less.
pub const fn opening_bytes(header_bytes: usize, address_bytes: usize) -> usize {
    header_bytes.saturating_mul(address_bytes).saturating_add(OPENING_BYTES)
}

/// What a small header takes.
const OPENING_BYTES: usize = 16 << 10;

/// [`Header::quantizer`] may not be longer than this.
pub const MAX_PROVENANCE_BYTES: usize = 1 << 16;
/// [`Header::templates`] may not be longer than this, nor the name of one than so many bytes.
pub const MAX_TEMPLATES_BYTES: usize = 1 << 16;
/// As above.
pub const MAX_TEMPLATE_NAME_BYTES: usize = 64;
/// As above: what the header says of conversations, as JSON.
pub const MAX_CHAT_BYTES: usize = 1 << 18;
/// As above: the template in it, as text.
pub const MAX_CHAT_TEMPLATE_BYTES: usize = 1 << 16;
/// As above.
pub const MAX_END_TOKENS: usize = 16;
/// The metadata key that holds the JSON of [`Header`].
pub const METADATA_KEY: &str = "cerebellum";
/// Name of the tokenizer's tensor.
pub const TOKENIZER: &str = "tokenizer";
/// Name of the tensor of slopes that models with ALiBi have instead of positions.
pub const ALIBI_SLOPES: &str = "alibi.slopes";
/// Name of the checksums' tensor.
pub const CHECKSUMS: &str = "checksums";
