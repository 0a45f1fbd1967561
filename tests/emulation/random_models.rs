//! Models with random contents, of any configuration, for the other tests.
#![allow(dead_code, reason = "each test binary uses what it needs")]

use cerebellum::{Access, Model};
use serde_json::Value;

#[path = "configurations.rs"]
pub mod configurations;
#[path = "random_file.rs"]
pub mod random_file;

use random_file::{Matrices, random_file};

/// Networks whose layers see windows, shorter ones than a panel of positions among them.
pub fn windowed() -> [(&'static str, Model); 5] {
    [
        ("gemma3", random_model(&configurations::gemma3(40))),
        ("mistral", random_model(&configurations::mistral(17))),
        ("odd", random_model(&configurations::odd(29))),
        ("odd with ALiBi", random_model(&configurations::odd_alibi(130))),
        ("odd, learned", random_model(&configurations::odd_learned(1))),
    ]
}

/// Networks whose layers see all positions.
pub fn unlimited() -> [(&'static str, Model); 5] {
    [
        ("qwen3", random_model(&configurations::qwen3())),
        ("olmo2", random_model(&configurations::olmo2())),
        ("granite", random_model(&configurations::granite())),
        ("gptneox", random_model(&configurations::gptneox())),
        ("smollm3", random_model(&configurations::smollm3())),
    ]
}

/// A model of this configuration.
pub fn random_model(config: &Value) -> Model {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("model.cbl");
    std::fs::write(&path, random_file(config, Matrices::Int4Mlp)).expect("a writable directory");
    Model::open(&path, Access::Read).expect("opens what was written")
}
