//! Cerebellum runs quantized GPT models on small devices from one memory-mapped file.
//!
//! The numbers contract (`docs/numbers.md`) and the file format (`docs/format.md`) come first; the
//! modules below implement them in the order data flows: a file is opened (`format`), becomes a
//! `model`, a `session` runs the `forward` pass over it with the `kernels` of the processor, and
//! `generate` turns logits into a stream of tokens.

#[cfg(target_endian = "big")]
compile_error!("model files are little-endian and used in place: build for a little-endian target");

#[cfg(all(target_arch = "x86", not(target_feature = "sse2")))]
compile_error!("x87 arithmetic rounds differently: build for a target with SSE2, such as i686");

pub mod batch;
#[cfg(feature = "text")]
pub mod chat;
#[cfg(feature = "text")]
pub mod classify;
#[cfg(feature = "constraints")]
pub mod constraint;
pub mod error;
pub mod format;
pub mod fp_env;
pub mod generate;
pub mod number;
pub mod output;
pub mod random;
pub mod sampler;
pub mod score;
#[cfg(feature = "text")]
pub mod task;
pub mod template;
pub mod terminal;
pub mod text;
pub mod threads;

mod cancel;
mod draft;
#[cfg(feature = "capi")]
// Its documentation is C, for the header, which a doctest would take for Rust.
#[cfg(not(doctest))]
mod ffi;
mod forward;
mod kv_cache;
mod log_softmax;
mod memory;
mod model;
mod open_options;
mod page_lock;
mod plan;
mod program;
mod saved_session;
#[cfg(feature = "text")]
mod segments;
mod session;
mod session_options;
mod tell;

pub use cerebellum_kernels::{kernels, math, quant};
pub use draft::DraftCounts;
pub use error::{Error, Result};
pub use format::Access;
pub use kv_cache::KvType;
pub use memory::HostMemory;
pub use model::{Model, TokenizerBytes};
pub use open_options::{OnProgress, OpenOptions, OpenProgress, OpenStage};
pub use plan::MemoryPlan;
pub use saved_session::Source as SavedSessionSource;
pub use session::{Pooling, Session};
pub use session_options::{LogitsFor, SessionOptions, isa_from_environment};

/// The README's Rust example is compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
