//! Checkpoints with random weights, of shapes and switches that the golden ones do not have.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::random_file::Random;

pub struct Checkpoint {
    config: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Checkpoint {
    /// Two layers; `more` goes into `config.json`, too.
    pub fn random(
        [vocab, positions, embd, heads, inner]: [usize; 5],
        tied: bool,
        more: Value,
    ) -> Self {
        let mut config = json!({
            "model_type": "gpt2", "vocab_size": vocab, "n_positions": positions, "n_embd": embd,
            "n_head": heads, "n_layer": 2, "n_inner": inner, "tie_word_embeddings": tied,
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut checkpoint = Self { config, tensors: BTreeMap::new() };
        let mut random = Random(1);
        let mut put = |name: String, shape: &[usize], mean: f32, spread: f32| {
            let values = (0..shape.iter().product()).map(|_| mean + spread * random.uniform());
            checkpoint.tensors.insert(name, (shape.to_vec(), values.collect()));
        };
        put("wte.weight".into(), &[vocab, embd], 0.0, 0.6);
        put("wpe.weight".into(), &[positions, embd], 0.0, 0.2);
        for layer in 0..2 {
            for norm in ["ln_1", "ln_2"] {
                put(format!("h.{layer}.{norm}.weight"), &[embd], 1.0, 0.4);
                put(format!("h.{layer}.{norm}.bias"), &[embd], 0.0, 0.2);
            }
            for (part, inputs, outputs) in [
                ("attn.c_attn", embd, 3 * embd),
                ("attn.c_proj", embd, embd),
                ("mlp.c_fc", embd, inner),
                ("mlp.c_proj", inner, embd),
            ] {
                put(format!("h.{layer}.{part}.weight"), &[inputs, outputs], 0.0, 0.3);
                put(format!("h.{layer}.{part}.bias"), &[outputs], 0.0, 0.1);
            }
        }
        put("ln_f.weight".into(), &[embd], 1.0, 0.4);
        put("ln_f.bias".into(), &[embd], 0.0, 0.2);
        if !tied {
            put("lm_head.weight".into(), &[vocab, embd], 0.0, 0.3);
        }
        checkpoint
    }

    /// The values of a tensor.
    pub fn values(&mut self, name: &str) -> &mut [f32] {
        &mut self.tensors.get_mut(name).unwrap().1
    }

    pub fn write(&self, directory: &Path) {
        fs::write(directory.join("config.json"), self.config.to_string()).unwrap();
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bytes: Vec<Vec<u8>> = self.tensors.values().map(|(_, values)| bytes(values)).collect();
        let views = self.tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &directory.join("model.safetensors")).unwrap();
    }
}
