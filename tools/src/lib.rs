//! The workstation side of Cerebellum: everything that runs before a model reaches the device.
//!
//! The command `cerebellum` is the public interface of this package. This library is internal: anything may change
//! between versions. To run models, use the package `cerebellum`.

pub mod bench;
pub mod calibrate;
pub mod chat_template;
pub mod checkpoint;
pub mod distribution;
pub mod dtype;
pub mod eval;
pub mod export_gguf;
pub mod gguf;
#[cfg(feature = "hub")]
pub mod hub;
pub mod json;
pub mod output;
pub mod own_text;
pub mod quantize;
mod random;
pub mod receipt;
pub mod reference;
pub mod report;
mod round;
pub mod scored;
#[cfg(feature = "serve")]
pub mod serve;
pub mod summary;
pub mod threads;
pub mod tokenizer;
