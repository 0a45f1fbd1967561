//! The workstation side of Cerebellum: everything that runs before a model reaches the device.
pub mod checkpoint;
pub mod reference;
pub mod tokenizer;
