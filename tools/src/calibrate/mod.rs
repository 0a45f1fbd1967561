//! What calibration learns from a text: the second moments of every matrix's inputs.
//!
//! A [`Calibration`] is a text as windows of tokens. [`Walk`] takes two copies of the model through
//! it, layer by layer: the float model, and the one whose earlier matrices are quantized already, with
//! its activations rounded as the runtime rounds them. [`Moments`] are what the inputs of one matrix
//! add up to. [`Sensitivity`] is what errors of the embedding cost, and the gradients that say what errors of the
//! layers do.

mod moments;
mod sensitivity;
mod text;
mod walk;

pub use moments::Moments;
pub use sensitivity::Sensitivity;
pub(crate) use sensitivity::embed;
pub use text::{Calibration, Error};
pub use walk::Walk;
pub(crate) use walk::round_activations;
