//! Cerebellum runs quantized GPT models on small devices from one memory-mapped file. The same model, prompt and
//! options give the same bits on every processor.
//!
//! # Quick start
//!
//! A model file is made on a workstation, by the command `cerebellum` of the package `cerebellum-tools`:
//!
//! ```sh
//! cargo install cerebellum-tools
//! cerebellum quantize hf:HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2.cbl
//! ```
//!
//! A program opens it, asks what a session will need, and continues a text:
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use cerebellum::generate::{GenerateOptions, generate_text};
//! use cerebellum::{Access, Model, SessionOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use cerebellum_tools::{checkpoint::Checkpoint, output::Output, quantize, tokenizer};
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("demo.cbl");
//! # let checkpoint = Checkpoint::open("tools/demo".as_ref())?;
//! # let tokenizer = tokenizer::import("tools/demo".as_ref(), checkpoint.config().vocab_size as u32)?;
//! # let tables = tokenizer.as_ref().map(|tokenizer| &tokenizer.blob[..]);
//! # let format = quantize::MatrixFormat::new(cerebellum::quant::Scheme::Int8);
//! # let options = quantize::Options::uniform(format);
//! # let output = Output::create(&path, false, &[""; 0])?;
//! # quantize::quantize(&checkpoint, tables, &options, output, &())?;
//! let model = Model::open(&path, Access::Map)?; // the weights stay in the file
//! let options = SessionOptions { context: Some(64), threads: 2, ..Default::default() };
//! let plan = model.plan(&options)?; // every byte that the session will allocate
//! assert!(plan.total_private_bytes < 4 << 20);
//!
//! let mut session = model.session(&options)?;
//! let tokenizer = model.tokenizer()?;
//! let prompt = session.encode(&tokenizer, "Once upon a time", Default::default())?;
//! let options = GenerateOptions { max_tokens: 8, ..Default::default() };
//! let mut text = String::new();
//! generate_text(&mut session, tokenizer.table(), &prompt, &options, |piece| {
//!     text.push_str(piece); // whole characters, as soon as they are certain
//!     ControlFlow::Continue(())
//! })?;
//! assert!(!text.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! Below text there are tokens and logits, which need no feature but `std` for the file:
//!
//! ```
//! use cerebellum::sampler::SamplerOptions;
//! use cerebellum::{Access, Model, SessionOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use cerebellum_tools::{checkpoint::Checkpoint, output::Output, quantize};
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("tiny.cbl");
//! # let checkpoint = Checkpoint::open("tests/data/golden/cerebras-odd-inner".as_ref())?;
//! # let format = quantize::MatrixFormat::new(cerebellum::quant::Scheme::Int8);
//! # let options = quantize::Options::uniform(format);
//! # let output = Output::create(&path, false, &[""; 0])?;
//! # quantize::quantize(&checkpoint, None, &options, output, &())?;
//! let model = Model::open(&path, Access::Map)?;
//! let mut session = model.session(&SessionOptions::default())?;
//! let logits = session.evaluate(&[1, 2, 3])?;
//! assert_eq!(logits.len(), model.config().vocab_size);
//! let next = session.sample(&SamplerOptions::default())?; // the most probable, unless a temperature is set
//! session.evaluate(&[next])?;
//! session.rewind(3)?; // as if `next` had never been
//! assert_eq!(session.tokens(), [1, 2, 3]);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `std` | yes | files, threads, a clock; without it `core` and an allocator are enough ([bare metal](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/bare-metal.md)) |
//! | `text` | yes | texts in place of token ids: encoding, generation of text, classification, tasks, conversations in simple form |
//! | `tables` | yes | tables of characters and checksums that are fast and take 25 KB, in place of shorter ones |
//! | `chat` | no | conversations by models' own chat templates, evaluated by `minijinja` |
//! | `constraints` | no | texts that are sure to be a choice, a match of a regular expression or JSON of a schema, by `llguidance` |
//! | `vnni` | yes | kernels for x86-64 with VNNI: up to twice as fast there, a sixth of a small library |
//! | `vnni-evex`, `scalar-fma` | yes | further kernels, mostly for tests |
//! | `capi` | no | the C interface, `include/cerebellum.h` |
//!
//! # Map
//!
//! | to | see |
//! |---|---|
//! | open a model | [`Model::open`], [`OpenOptions`] (progress, checksums), [`mod@format`] (what a file holds) |
//! | run it | [`SessionOptions`], [`Session`], [`MemoryPlan`]; [`batch`] for several texts at once |
//! | choose tokens | [`sampler`], [`generate`], `constraint` |
//! | work with text | [`text`], `chat` |
//! | do without generation | [`score`] (probabilities), `classify`, [`Session::embed`] |
//! | put tasks to a model | `task`, [`template`] |
//! | share threads | [`threads`] |
//! | handle failure | [`Error`], whose messages say what to do |
//!
//! The modules [`kernels`], [`quant`], [`math`], [`random`], [`number`], [`output`], [`terminal`] and [`fp_env`] are what
//! the tools share with the library. They may change in any version.
//!
//! # Versions
//!
//! This package is the public interface; `cerebellum-kernels` and the library in `cerebellum-tools` are internal, and
//! each version asks for exactly its own. Enums and results may grow in a minor version (`#[non_exhaustive]`), and
//! so may options: write them with `..Default::default()`. The model file has a version of its own.
//!
//! # Further
//!
//! [Numbers](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/numbers.md) defines every result, bit for
//! bit, and [the file format](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/format.md) every byte. Guides:
//! [conversations](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/chat.md),
//! [templates](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/templates.md),
//! [quantization](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/quantization.md) and
//! [its quality](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/quality.md),
//! [C and C++](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/embedding.md),
//! [Python](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/python.md),
//! [kernels](https://github.com/cerebellum-lm/cerebellum/blob/main/docs/kernels.md). Programs for each use are in
//! [examples](https://github.com/cerebellum-lm/cerebellum/tree/main/examples/rust).
//!
//! Inside, data flows through the modules in this order: a file is opened (`format`), becomes a `model`, a `session` runs
//! the `forward` pass over it with the `kernels` of the processor, and `generate` turns logits into a stream of tokens.

// docs.rs shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "std"), no_std)]

// `format!` and `vec!`, too.
#[macro_use]
extern crate alloc;

#[cfg(target_endian = "big")]
compile_error!("model files are little-endian and used in place: build for a little-endian target");

#[cfg(all(target_arch = "x86", not(target_feature = "sse2")))]
compile_error!("x87 arithmetic rounds differently: build for a target with SSE2, such as i686");

pub mod batch;
#[cfg(feature = "text")]
pub mod chat;
mod checksum;
#[cfg(feature = "text")]
pub mod classify;
#[cfg(feature = "constraints")]
pub mod constraint;
pub mod error;
pub mod format;
pub mod fp_env;
pub mod generate;
#[cfg(feature = "std")]
mod io;
#[cfg(not(feature = "std"))]
pub mod io;
pub mod number;
#[cfg(feature = "std")]
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
mod clock;
mod decimal;
mod draft;
#[cfg(feature = "capi")]
// Its documentation is C, for the header, which a doctest would take for Rust.
#[cfg(not(doctest))]
mod ffi;
#[cfg(feature = "std")]
mod files;
mod forward;
mod heap;
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
mod sync;
mod tell;

use cerebellum_kernels::float;
pub use cerebellum_kernels::{kernels, math, quant};
pub use draft::DraftCounts;
pub use error::{Error, Result};
pub use format::{Access, WeightsCopy};
pub use kv_cache::KvType;
pub use memory::HostMemory;
pub use model::{Model, TokenizerBytes};
pub use open_options::{OnProgress, OpenOptions, OpenProgress, OpenStage};
pub use plan::MemoryPlan;
pub use saved_session::Source as SavedSessionSource;
pub use session::{Pooling, Session};
#[cfg(feature = "std")]
pub use session_options::isa_from_environment;
pub use session_options::{LogitsFor, SessionOptions};

/// The README's Rust example is compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
