//! What BTLM and muP add to GPT-2, by equivalences, and ALiBi beyond the length trained for. (That BTLM's
//! logits are right up to it is tested in `golden.rs`.)

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use cerebellum::quant::Scheme;
use cerebellum::{Access, LogitsFor, SessionOptions};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::eval::TokenScore;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{MatrixFormat, Options, quantize};
use cerebellum_tools::reference::Reference;
use common::Model;
use safetensors::SafeTensors;
use serde_json::{Value, json};
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

/// Beyond the length trained for, a query's slopes shrink by the ratio; up to it nothing changes.
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
    // In a model of one layer a token's keys and values do not depend on attention, so that only the
    // last of five tokens differs, and it is as with the factor that is its own.
    let (before, last) = dynamic.split_at(4 * 7);
    assert_eq!(before, &plain[..4 * 7]);
    assert_eq!(last, &alibi(json!({"type": "linear", "factor": 1.25}))[4 * 7..]);
    assert_ne!(last, &plain[4 * 7..]);
}

/// Logits that `tests/data/golden/alibi_scaling.py` computed for 160 tokens of a model with 96
/// positions.
struct Golden(Vec<u8>);

impl Golden {
    fn read() -> Self {
        Self(fs::read(case().join("alibi-scaling.safetensors")).unwrap())
    }

    fn elements<T, const N: usize>(&self, name: &str, decode: fn([u8; N]) -> T) -> Vec<T> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let data = tensors.tensor(name).unwrap().data();
        data.as_chunks().0.iter().map(|&bytes| decode(bytes)).collect()
    }

    fn ids(&self) -> Vec<u32> {
        self.elements("ids", |bytes| i64::from_le_bytes(bytes) as u32)
    }

    /// After which tokens there are logits.
    fn positions(&self) -> Vec<usize> {
        self.elements("positions", |bytes| i64::from_le_bytes(bytes) as usize)
    }

    /// `[positions][vocab_size]`, by the name of the scaling.
    fn logits(&self, scaling: &str) -> Vec<f32> {
        self.elements(&format!("logits.{scaling}"), f32::from_le_bytes)
    }
}

fn case() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden/btlm-6-heads")
}

const SCALINGS: [&str; 3] = ["none", "factor", "dynamic"];
const VOCAB_SIZE: usize = 311;

/// The golden checkpoint with this scaling.
fn scaled(scaling: &str) -> (tempfile::TempDir, Checkpoint) {
    let directory = tempdir().unwrap();
    let config = fs::read(case().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["alibi_scaling"] = match scaling {
        "factor" => json!({"type": "linear", "factor": 2.5}),
        "dynamic" => json!({"type": "linear", "train_seq_len": 64}),
        _ => Value::Null,
    };
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    fs::copy(case().join("model.safetensors"), directory.path().join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    (directory, checkpoint)
}

#[test]
fn the_reference_goes_on_past_the_length_trained_for() {
    let golden = Golden::read();
    let (ids, positions) = (golden.ids(), golden.positions());
    for scaling in SCALINGS {
        let (_directory, checkpoint) = scaled(scaling);
        let found = Reference::load(&checkpoint).unwrap().logits(&ids).unwrap();
        let rows = positions.iter().flat_map(|p| &found[p * VOCAB_SIZE..][..VOCAB_SIZE]);
        let expected = golden.logits(scaling);
        let worst = rows.zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{scaling}: largest absolute error {worst:e}");
        assert!(worst <= 2e-4, "{scaling}: {worst}");
    }
}

/// int8 stays within the budget that `tests/accuracy.rs` has for this model, with the right scaling and
/// with no other; and a prompt may be cut up anyhow.
#[test]
fn the_runtime_goes_on_past_the_length_trained_for() {
    let golden = Golden::read();
    let (ids, positions) = (golden.ids(), golden.positions());
    for scaling in SCALINGS {
        let (directory, checkpoint) = scaled(scaling);
        let path = directory.path().join("model.cbl");
        let output = Output::create(&path, false, &checkpoint.files()).unwrap();
        let format = MatrixFormat::new(Scheme::Int8);
        quantize(&checkpoint, None, &Options::uniform(format), output, &()).unwrap();
        let model = cerebellum::Model::open(&path, Access::Read).unwrap();
        let logits = |threads, chunk| {
            let (context, logits) = (Some(ids.len()), LogitsFor::All);
            let options = SessionOptions { context, logits, threads, chunk, ..Default::default() };
            let mut session = model.session(&options).unwrap();
            let mut rows = Vec::new();
            session.evaluate_each(&ids, |_, logits| rows.push(logits.to_vec())).unwrap();
            rows
        };
        let rows = logits(1, 160);
        for (threads, chunk) in [(1, 1), (2, 7), (2, 64)] {
            assert!(
                logits(threads, chunk) == rows,
                "{scaling}: {threads} threads, {chunk} at once"
            );
        }
        for other in SCALINGS {
            let expected = golden.logits(other);
            let pairs = positions.iter().zip(expected.chunks(VOCAB_SIZE));
            let scores = pairs.map(|(p, expected)| TokenScore::compared(expected, &rows[*p], 0));
            let scores: Vec<_> = scores.collect();
            let kl = cerebellum_tools::eval::Metrics::new(&scores, scores.len() + 1);
            let kl = kl.comparison.unwrap().kl_mean;
            println!("{scaling} against {other}: mean KL {kl:.2e}");
            assert_eq!(kl < 4.5e-5, scaling == other, "{scaling} against {other}: {kl}");
        }
    }
}
