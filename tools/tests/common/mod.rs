//! Checkpoints for tests: those of the repository, and small ones of any shape.
#![allow(dead_code)] // not every test uses all of it

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

/// The trained checkpoint with a tokenizer.
pub fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo")
}

/// Directories of the golden checkpoints that can be quantized.
pub fn golden() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let left_out = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("btlm") || name == "hostile-pickle"
    };
    let mut cases: Vec<PathBuf> = paths.filter(|path| path.is_dir() && !left_out(path)).collect();
    cases.sort();
    assert!(cases.len() >= 9, "golden cases are missing");
    cases
}

/// A checkpoint of float32 tensors in memory, to be changed and written.
pub struct Model {
    config: serde_json::Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Model {
    /// One layer of three heads with pseudo-random weights.
    pub fn random(vocab: usize, positions: usize, embd: usize, inner: usize) -> Self {
        let config = json!({
            "model_type": "gpt2", "vocab_size": vocab, "n_positions": positions, "n_embd": embd,
            "n_head": 3, "n_layer": 1, "n_inner": inner, "activation_function": "gelu",
        });
        let shapes: [(&str, &[usize]); 16] = [
            ("wte.weight", &[vocab, embd]),
            ("wpe.weight", &[positions, embd]),
            ("h.0.ln_1.weight", &[embd]),
            ("h.0.ln_1.bias", &[embd]),
            ("h.0.attn.c_attn.weight", &[embd, 3 * embd]),
            ("h.0.attn.c_attn.bias", &[3 * embd]),
            ("h.0.attn.c_proj.weight", &[embd, embd]),
            ("h.0.attn.c_proj.bias", &[embd]),
            ("h.0.ln_2.weight", &[embd]),
            ("h.0.ln_2.bias", &[embd]),
            ("h.0.mlp.c_fc.weight", &[embd, inner]),
            ("h.0.mlp.c_fc.bias", &[inner]),
            ("h.0.mlp.c_proj.weight", &[inner, embd]),
            ("h.0.mlp.c_proj.bias", &[embd]),
            ("ln_f.weight", &[embd]),
            ("ln_f.bias", &[embd]),
        ];
        let mut state = 1u32;
        let mut uniform = || {
            // Marsaglia's xorshift32.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let tensors = shapes.map(|(name, shape)| {
            let values = (0..shape.iter().product()).map(|_| uniform()).collect();
            (name.to_owned(), (shape.to_vec(), values))
        });
        Self { config, tensors: tensors.into() }
    }

    /// The values of a tensor.
    pub fn values(&mut self, tensor: &str) -> &mut [f32] {
        &mut self.tensors.get_mut(tensor).unwrap().1
    }

    /// All tensors, by name: shape and values.
    pub fn tensors(&self) -> &BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        &self.tensors
    }

    /// Sets a field of the configuration.
    pub fn configure(&mut self, field: &str, value: serde_json::Value) {
        self.config[field] = value;
    }

    /// Writes `config.json`.
    pub fn write_config(&self, directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("config.json"), self.config.to_string()).unwrap();
    }

    /// Adds a tensor, of this shape and these values.
    pub fn add(&mut self, name: &str, tensor: (Vec<usize>, Vec<f32>)) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// Takes a tensor out.
    pub fn remove(&mut self, name: &str) {
        self.tensors.remove(name).unwrap();
    }

    /// Adds a tensor that no model has.
    pub fn add_extra(&mut self, name: &str) {
        self.tensors.insert(name.to_owned(), (vec![1], vec![0.5]));
    }

    /// Writes `config.json` and `model.safetensors`.
    pub fn write(&self, directory: &Path) {
        self.write_config(directory);
        let bytes: BTreeMap<&str, Vec<u8>> = self
            .tensors
            .iter()
            .map(|(name, (_, values))| {
                (name.as_str(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
            })
            .collect();
        let views = self.tensors.iter().map(|(name, (shape, _))| {
            (name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name.as_str()]).unwrap())
        });
        safetensors::serialize_to_file(views, None, &directory.join("model.safetensors")).unwrap();
    }
}
