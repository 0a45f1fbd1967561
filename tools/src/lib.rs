//! The workstation side of Cerebellum: everything that runs before a model reaches the device.
pub mod checkpoint;
pub mod output;
pub mod quantize;
pub mod reference;
pub mod summary;
pub mod tokenizer;
