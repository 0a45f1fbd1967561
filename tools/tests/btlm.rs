//! What BTLM and muP add to GPT-2, by equivalences. (That BTLM's logits are right is tested in
//! `golden.rs`.)

mod common;

use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::reference::Reference;
use common::Model;
use serde_json::json;
use tempfile::tempdir;

const TOKENS: [u32; 5] = [3, 1, 4, 1, 5];

fn logits(model: &Model) -> Vec<f32> {
    let directory = tempdir().unwrap();
    model.write(directory.path());
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    Reference::load(&checkpoint).unwrap().logits(&TOKENS).unwrap()
}

/// A model with a head of its own, so that the embedding may be scaled without it.
fn untied() -> Model {
    let mut model = Model::random(7, 5, 12, 20);
    let head = model.tensors()["wte.weight"].clone();
    model.add("lm_head.weight", head);
    model.configure("tie_word_embeddings", json!(false));
    model
}

/// A multiplier does what the same factor in the weights does. Factors are powers of two, and
/// attention's too (a head has 4 elements), so that the two agree to the last bit.
#[test]
fn mup_multipliers_equal_scaled_weights_with_learned_positions() {
    let mut mup = untied();
    for (field, value) in [
        ("mup_embeddings_scale", json!(8.0)),
        ("mup_output_alpha", json!(4.0)),
        ("mup_width_scale", json!(0.125)),
        ("mup_scale_qk_dot_by_d", json!(true)),
    ] {
        mup.configure(field, value);
    }
    let mut scaled = untied();
    let scale = |values: &mut [f32], factor: f32| values.iter_mut().for_each(|v| *v *= factor);
    scale(scaled.values("wte.weight"), 8.0);
    scale(scaled.values("wpe.weight"), 8.0);
    scale(scaled.values("lm_head.weight"), 0.5);
    // Queries are the first third of c_attn's outputs.
    for tensor in ["h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias"] {
        scaled.values(tensor).chunks_mut(36).for_each(|row| scale(&mut row[..12], 0.5));
    }
    assert_eq!(logits(&mup), logits(&scaled));
    assert_ne!(logits(&mup), logits(&untied()));
}

/// Beyond the length trained for, ALiBi's slopes shrink by the ratio; up to it nothing changes.
#[test]
fn dynamic_scaling_equals_its_fixed_factor() {
    let alibi = |scaling: serde_json::Value| {
        let mut model = untied();
        model.configure("position_embedding_type", json!("alibi"));
        model.configure("alibi_scaling", scaling);
        model.remove("wpe.weight");
        logits(&model)
    };
    let plain = alibi(json!(null));
    assert_eq!(alibi(json!({"type": "linear", "train_seq_len": 5})), plain);
    let dynamic = alibi(json!({"type": "linear", "train_seq_len": 4}));
    assert_eq!(dynamic, alibi(json!({"type": "linear", "factor": 1.25})));
    assert_ne!(dynamic, plain);
}
