//! The runtime against an emulation in binary64 that was written from `docs/numbers.md`,
//! `docs/elementary-functions.md` and `docs/format.md` alone: every logit must have the same bits, on
//! every instruction set of this processor. It shares no code with the kernels, so it checks that the
//! pages say what the runtime does.

mod arithmetic;
mod checkpoint;
#[allow(dead_code, reason = "hostile files are made of the rest")]
mod configurations;
mod file;
mod functions;
mod network;
#[allow(dead_code, reason = "hostile files are made of the rest")]
mod random_file;
mod rope;

use std::path::Path;

use cerebellum::kernels::Isa;
use cerebellum::quant::Scheme;
use cerebellum::{Access, KvType, LogitsFor, Model, SessionOptions};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{MatrixFormat, Options, quantize};
use checkpoint::Checkpoint as RandomCheckpoint;
use file::File;
use network::{Cache, Network};
use random_file::{Matrices, Random, random_file};
use rayon::prelude::*;
use serde_json::{Value, json};
use tempfile::tempdir;

const INT4_32: MatrixFormat = MatrixFormat { scheme: Scheme::Int4, group_size: 32 };
const INT4_64: MatrixFormat = MatrixFormat { scheme: Scheme::Int4, group_size: 64 };
const INT8_64: MatrixFormat = MatrixFormat { scheme: Scheme::Int8, group_size: 64 };
const INT8_128: MatrixFormat = MatrixFormat { scheme: Scheme::Int8, group_size: 128 };

/// Quantizes the checkpoint in `directory` and compares.
fn compare(directory: &Path, format: MatrixFormat, tokens: usize) {
    let place = tempdir().unwrap();
    let path = place.path().join("model.cbl");
    let source = Checkpoint::open(directory).unwrap();
    let output = Output::create(&path, false, &source.files()).unwrap();
    quantize(&source, None, &Options::uniform(format), output, &()).unwrap();

    let case = directory.file_name().unwrap().to_string_lossy();
    compare_file(&path, &format!("{case}, {format:?}"), tokens, &[37]);
}

/// Compares all logits of `tokens` random tokens, evaluated in chunks of each of these sizes.
fn compare_file(path: &Path, case: &str, tokens: usize, chunks: &[usize]) {
    let bytes = std::fs::read(path).unwrap();
    let network = Network::new(&File::new(&bytes));
    let model = Model::open(path, Access::Map).unwrap();
    let mut random = Random(7);
    let vocab = model.config().vocab_size as u32;
    let tokens: Vec<u32> = (0..tokens).map(|_| random.bits() % vocab).collect();
    for (cache, kv) in [(Cache::F16, KvType::F16), (Cache::Int8, KvType::Int8)] {
        let expected = network.logits(&tokens, cache);
        assert!(expected.iter().flatten().all(|logit| logit.is_finite()));
        for (isa, &chunk) in Isa::available().flat_map(|isa| chunks.iter().map(move |c| (isa, c))) {
            let found = runtime(&model, &tokens, kv, isa, chunk);
            assert_same(&found, &expected, &format!("{case}, {cache:?}, {isa}, chunks of {chunk}"));
        }
    }
}

/// Every token's logits from the runtime.
fn runtime(model: &Model, tokens: &[u32], kv: KvType, isa: Isa, chunk: usize) -> Vec<Vec<f32>> {
    let options = SessionOptions {
        context: Some(tokens.len()),
        kv,
        chunk,
        logits: LogitsFor::All,
        isa: Some(isa),
        ..SessionOptions::default()
    };
    let mut rows = Vec::new();
    let mut session = model.session(&options).unwrap();
    session.evaluate_each(tokens, |_, logits| rows.push(logits.to_vec())).unwrap();
    rows
}

fn assert_same(found: &[Vec<f32>], expected: &[Vec<f32>], case: &str) {
    assert_eq!(found.len(), expected.len());
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (token, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                found.to_bits() == expected.to_bits(),
                "{case}: logit {token} after position {position} is {found:e}, not {expected:e}"
            );
        }
    }
    println!("{case}: {} logits equal", found.len() * found[0].len());
}

fn compare_random(checkpoint: &RandomCheckpoint, format: MatrixFormat, tokens: usize) {
    let directory = tempdir().unwrap();
    checkpoint.write(directory.path());
    compare(directory.path(), format, tokens);
}

/// More positions than two segments of attention have; heads of 17 and widths that fill neither the
/// last group nor the last panel.
#[test]
fn long_contexts_merge_segments() {
    let more = json!({ "activation_function": "gelu" });
    let checkpoint = RandomCheckpoint::random([97, 600, 51, 3, 70], true, more);
    compare_random(&checkpoint, INT4_32, 600);
}

#[test]
fn silu_and_an_untied_head() {
    let more = json!({ "activation_function": "silu", "scale_attn_by_inverse_layer_idx": true });
    let checkpoint = RandomCheckpoint::random([50, 300, 40, 2, 72], false, more);
    compare_random(&checkpoint, INT8_64, 280);
}

/// What the BTLM family has more than GPT-2, beyond the positions that it was trained on.
#[test]
fn alibi_gate_and_multipliers() {
    compare_btlm("btlm", None);
}

/// Slopes that shrink from the middle of the second segment on.
#[test]
fn alibi_that_scales_with_length() {
    compare_btlm("scaled btlm", Some(301));
}

fn compare_btlm(case: &str, train_len: Option<usize>) {
    compare_configuration(case, &configurations::btlm(train_len), 530, &[37]);
}

/// Compares a network with random contents, in both mixtures of matrices.
fn compare_configuration(case: &str, config: &Value, tokens: usize, chunks: &[usize]) {
    for matrices in [Matrices::Int4Mlp, Matrices::Int8Mlp, Matrices::Tc3Mlp, Matrices::Tc2Mlp] {
        let place = tempdir().unwrap();
        let path = place.path().join("model.cbl");
        std::fs::write(&path, random_file(config, matrices)).unwrap();
        compare_file(&path, &format!("{case}, {matrices:?}"), tokens, chunks);
    }
}

#[test]
fn llama() {
    compare_configuration("llama", &configurations::llama(), 300, &[37]);
}

#[test]
fn qwen2() {
    compare_configuration("qwen2", &configurations::qwen2(), 60, &[37]);
}

#[test]
fn qwen3() {
    compare_configuration("qwen3", &configurations::qwen3(), 300, &[37]);
}

/// Caches of windows wrap more than twice.
#[test]
fn gemma3() {
    compare_configuration("gemma3", &configurations::gemma3(40), 700, &[37, 5]);
}

/// Windows that begin and end at the borders of panels and segments, and beside them; chunks of one token,
/// of more than a window, and of more than the cache of a window has room for.
#[test]
fn mistral() {
    for (window, chunk) in [(1, 7), (15, 1), (16, 33), (17, 300), (255, 61), (256, 37), (257, 129)]
    {
        let case = format!("mistral, window {window}");
        compare_configuration(&case, &configurations::mistral(window), window + 420, &[chunk]);
    }
}

#[test]
fn olmo2() {
    compare_configuration("olmo2", &configurations::olmo2(), 300, &[37]);
}

#[test]
fn granite() {
    compare_configuration("granite", &configurations::granite(), 300, &[37]);
}

#[test]
fn gptneox() {
    compare_configuration("gptneox", &configurations::gptneox(), 300, &[37]);
}

#[test]
fn smollm3() {
    compare_configuration("smollm3", &configurations::smollm3(), 300, &[37]);
}

/// What no published family does at once.
#[test]
fn everything_odd() {
    compare_configuration("odd", &configurations::odd(29), 600, &[37, 3]);
    compare_configuration("odd with ALiBi", &configurations::odd_alibi(70), 600, &[37, 11]);
    compare_configuration("odd, learned", &configurations::odd_learned(33), 540, &[19]);
}

/// The file that the hostile ones are made from.
#[test]
fn tiny() {
    let place = tempdir().unwrap();
    let path = place.path().join("model.cbl");
    std::fs::write(&path, random_file(&configurations::tiny(), Matrices::Int4)).unwrap();
    compare_file(&path, "tiny", 40, &[3]);
}

/// Every choice in any company. `EMULATION_CONFIGURATIONS=n` tries `n`, `EMULATION_CONFIGURATION=n` only
/// number `n`.
#[test]
fn random_configurations() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let numbers = match number("EMULATION_CONFIGURATION") {
        Some(one) => one..one + 1,
        None => 0..number("EMULATION_CONFIGURATIONS").unwrap_or(12),
    };
    numbers.into_par_iter().for_each(|number| {
        let mut random = Random((number + 1u32).wrapping_mul(0x9e37_79b1));
        let mut draw = |below: usize| random.bits() as usize % below;
        let config = configurations::random(&mut draw);
        let (tokens, chunk) = (150 + draw(400), 1 + draw(80));
        let matrices =
            [Matrices::Int4Mlp, Matrices::Int8Mlp, Matrices::Tc3Mlp, Matrices::Tc2Mlp][draw(4)];
        let place = tempdir().unwrap();
        let path = place.path().join("model.cbl");
        std::fs::write(&path, random_file(&config, matrices)).unwrap();
        compare_file(&path, &format!("configuration {number}: {config}"), tokens, &[chunk]);
    });
}

/// Values past float16's range, a group of zeros, a group of tiny numbers, scores so far apart that
/// weights vanish, inputs on both sides of the activation's limit.
#[test]
fn extreme_values() {
    let more = json!({ "activation_function": "gelu_new", "scale_attn_weights": false });
    let mut checkpoint = RandomCheckpoint::random([61, 280, 96, 4, 128], true, more);
    let embd = 96;
    checkpoint.values("h.0.attn.c_attn.bias")[2 * embd..][..3]
        .copy_from_slice(&[1e5, -7e4, 65520.0]);
    for (tensor, group) in [("h.0.ln_1", 0), ("h.1.ln_2", 1)] {
        for part in ["weight", "bias"] {
            checkpoint.values(&format!("{tensor}.{part}"))[32 * group..][..32].fill(0.0);
        }
    }
    checkpoint.values("h.1.ln_1.weight")[32..64].fill(1e-30);
    checkpoint.values("h.1.ln_1.bias")[32..64].fill(0.0);
    checkpoint.values("h.1.attn.c_attn.weight").iter_mut().for_each(|w| *w *= 9.0);
    checkpoint.values("h.1.mlp.c_fc.weight").iter_mut().for_each(|w| *w *= 20.0);
    compare_random(&checkpoint, INT8_64, 270);
    compare_random(&checkpoint, INT4_32, 270);
}

/// Heads of 1100 whose queries and keys point the same way: the integers' sum passes 2^24, and its
/// conversion rounds.
#[test]
fn sums_beyond_exact_conversion() {
    let mut checkpoint = RandomCheckpoint::random([20, 40, 1100, 1, 8], true, json!({}));
    for layer in 0..2 {
        checkpoint.values(&format!("h.{layer}.attn.c_attn.bias"))[..2200].fill(90.0);
    }
    compare_random(&checkpoint, INT8_64, 40);
}

/// The golden checkpoints: every activation of real models, 17 heads, heads of 80, odd widths.
#[test]
fn golden_checkpoints() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    for case in [
        "btlm-6-heads",
        "btlm-head80",
        "cerebras-17-heads",
        "cerebras-odd-inner",
        "gpt2-bare-names-masks",
        "head80-bf16-sharded",
        "inverse-layer-scale",
        "unscaled-relu",
        "untied-bin-sharded",
    ] {
        for format in [INT4_64, INT8_128] {
            compare(&golden.join(case), format, 40);
        }
    }
}
