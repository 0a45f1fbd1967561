//! The golden cases of the families that people run, those that a GGUF file can hold.

use std::path::{Path, PathBuf};

pub const CASES: [&str; 11] = [
    "gemma3-text",
    "gpt-neox-parallel",
    "granite-multipliers",
    "llama-biases",
    "llama3-scaled-rope",
    "mistral-window",
    "olmo2-post-norm",
    "phi3-fused",
    "qwen2-yarn",
    "qwen3-qk-norm",
    "smollm3-nope",
];

/// The directory of a case.
pub fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden-modern").join(name)
}
