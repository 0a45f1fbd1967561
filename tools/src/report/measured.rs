//! What a page shows.

use std::fmt::Write;

use crate::eval::{Histogram, Metrics};
use crate::summary::Summary;

/// All that a page shows.
#[derive(Clone, Debug)]
pub struct Report {
    /// The text that was measured on; without one, only what is in the files is shown.
    pub text: Option<Text>,
    /// The models, in the order they were asked for: at least one.
    pub models: Vec<Measured>,
}

/// The text that models were measured on.
#[derive(Clone, Debug)]
pub struct Text {
    /// Its file's name.
    pub name: String,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub digest: String,
    /// Tokens of the whole text, those of no window included.
    pub tokens: usize,
}

/// A model file, and what was measured of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The file's name.
    pub name: String,
    /// BLAKE3 of the file, in hexadecimal.
    pub digest: String,
    /// What is in it.
    pub summary: Summary,
    /// The type of the cached keys and values.
    pub kv: &'static str,
    /// How well it predicts the text.
    pub metrics: Option<Metrics>,
    /// Its divergences from the reference.
    pub divergence: Option<Histogram>,
    /// What each step away from float32 costs, in order.
    pub ablation: Vec<(Step, Metrics)>,
}

/// A step from the float32 model to the one that runs; each includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The weights as the file has them, all else in float32.
    Weights,
    /// The runtime: activations in int8, keys and values in float16.
    Activations,
    /// Keys and values in int8.
    Cache,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 3] = [Self::Weights, Self::Activations, Self::Cache];

    /// What is quantized, in words.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Weights => "weights only",
            Self::Activations => "+ int8 activations",
            Self::Cache => "+ int8 cache",
        }
    }
}

/// How a file stores its matrices, in a few words: `int4 / 64`, or `int4 / 64 × 20, int8 / 128 × 5`.
pub fn schemes(summary: &Summary) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for tensor in &summary.tensors {
        let Some(group_size) = tensor.group_size else { continue };
        let scheme = format!("{} / {group_size}", tensor.scheme);
        match counts.iter_mut().find(|(known, _)| *known == scheme) {
            Some((_, count)) => *count += 1,
            None => counts.push((scheme, 1)),
        }
    }
    counts.sort();
    let mut text = String::new();
    for (scheme, count) in &counts {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{scheme}");
        if counts.len() > 1 {
            let _ = write!(text, " × {count}");
        }
    }
    text
}
