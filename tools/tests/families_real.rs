//! The models that people run, as files of many megabytes that are not in the repository.
//!
//! `CEREBELLUM_MODELS` is a directory with `NAME.gguf` and, perhaps, of the same weights, `NAME-hf`:
//! `CEREBELLUM_MODELS=DIR cargo test --release -p cerebellum-tools --test families_real -- --ignored`.
//!
//! `tests/data/golden-real/NAME.safetensors` has what the same weights gave in float32 elsewhere: prompts
//! `ids.N` and their greedy continuations `greedy.N`; of the prompts without a template of conversations
//! also the 32 largest logits of every position with their tokens, and the logarithm of the sum of all
//! exponentials. NAME is `smollm2` (SmolLM2 135M Instruct, Q4_1) or `gemma3` (Gemma 3 270M, Q4_K_M).

use std::path::{Path, PathBuf};

use cerebellum::quant::Scheme;
use cerebellum::{Access, Model, SessionOptions};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{MatrixFormat, Options, quantize};
use cerebellum_tools::reference::Reference;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// How far logits may be from the golden ones.
const TOLERANCE: f32 = 2e-3;

/// An int8 file may take another token than the float model only where that one's logits of the two lie
/// this near: there rounding decides. Near ties are in docs/quality.md.
const NEAR_TIE: f32 = 0.15;

fn models() -> PathBuf {
    std::env::var_os("CEREBELLUM_MODELS").expect("CEREBELLUM_MODELS names a directory").into()
}

/// The golden file of each model that is there, and the model's file.
fn golden() -> Vec<(Vec<u8>, PathBuf)> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden-real");
    let mut found = Vec::new();
    for name in ["smollm2", "gemma3"] {
        let file = models().join(format!("{name}.gguf"));
        if file.exists() {
            let golden = std::fs::read(data.join(format!("{name}.safetensors"))).unwrap();
            found.push((golden, file));
        } else {
            println!("left out: {} is not there", file.display());
        }
    }
    assert!(!found.is_empty(), "CEREBELLUM_MODELS has neither smollm2.gguf nor gemma3.gguf");
    found
}

fn integers(tensor: &TensorView) -> Vec<u32> {
    let (data, wide) = (tensor.data(), tensor.dtype() == Dtype::I64);
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    data.chunks_exact(if wide { 8 } else { 4 }).map(number).collect()
}

fn floats(tensor: &TensorView) -> Vec<f32> {
    tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// What stands behind `kind.` in the names of tensors.
fn cases<'a>(golden: &'a SafeTensors, kind: &str) -> Vec<&'a str> {
    let names = golden.names().into_iter();
    let mut cases: Vec<_> =
        names.filter_map(|name| name.strip_prefix(kind)?.strip_prefix('.')).collect();
    cases.sort_unstable();
    cases
}

/// The token of the largest logit, of equal ones the first.
fn top(logits: &[f32]) -> u32 {
    (0..)
        .zip(logits)
        .fold(
            (0, f32::NEG_INFINITY),
            |best, (id, &logit)| {
                if logit > best.1 { (id, logit) } else { best }
            },
        )
        .0
}

/// Prompts and the continuations that are expected.
fn continuations(golden: &SafeTensors) -> Vec<(String, Vec<u32>, Vec<u32>)> {
    let get = |kind: &str, case| integers(&golden.tensor(&format!("{kind}.{case}")).unwrap());
    let cases = cases(golden, "greedy").into_iter();
    cases.map(|case| (case.to_owned(), get("ids", case), get("greedy", case))).collect()
}

#[test]
#[ignore = "needs models that are not in the repository"]
fn a_gguf_file_is_read_as_the_directory_of_the_same_weights() {
    let mut compared = 0;
    for entry in models().read_dir().unwrap() {
        let file = entry.unwrap().path();
        let directory =
            file.with_file_name(format!("{}-hf", file.file_stem().unwrap().to_str().unwrap()));
        if file.extension().is_none_or(|extension| extension != "gguf") || !directory.is_dir() {
            continue;
        }
        let (gguf, hf) = (Checkpoint::open(&file).unwrap(), Checkpoint::open(&directory).unwrap());
        assert_eq!(gguf.config(), hf.config(), "{}", file.display());
        assert_eq!(gguf.derived(), hf.derived(), "{}", file.display());
        assert_eq!(gguf.bos_token_id(), hf.bos_token_id());
        assert!(gguf.extra_tensors().is_empty() && hf.extra_tensors().is_empty());
        assert!(gguf.tensor_names().eq(hf.tensor_names()));
        for name in gguf.tensor_names() {
            let (a, b) = (gguf.tensor(name).unwrap(), hf.tensor(name).unwrap());
            for first in (0..a.rows()).step_by(4096) {
                let rows = first..a.rows().min(first + 4096);
                let (a, b) = (a.read_rows(rows.clone()).unwrap(), b.read_rows(rows).unwrap());
                // The directory has norms less one, in float32: the last bit may be lost.
                let same = |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= 1e-7 * a.abs();
                assert!(a.len() == b.len() && a.iter().zip(&b).all(same), "{name} from {first}");
            }
        }
        println!("{}: {} tensors are the same", file.display(), gguf.tensor_names().len());
        compared += 1;
    }
    assert!(compared > 0, "no NAME.gguf beside a NAME-hf");
}

#[test]
#[ignore = "needs models that are not in the repository"]
fn the_reference_matches_transformers() {
    for (bytes, file) in golden() {
        let checkpoint = Checkpoint::open(&file).unwrap();
        let model = Reference::load(&checkpoint).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let vocab = checkpoint.config().vocab_size;
        let (mut worst, mut worst_sum) = (0f32, 0f32);
        let cases = cases(&golden, "top_ids");
        assert_eq!(cases.len(), 3, "{}", file.display());
        for case in cases {
            let get = |kind: &str| golden.tensor(&format!("{kind}.{case}")).unwrap();
            let (ids, top) = (integers(&get("ids")), integers(&get("top_ids")));
            let (expected, sums) = (floats(&get("top_logits")), floats(&get("lse")));
            let logits = model.logits(&ids).unwrap();
            let kept = top.len() / ids.len();
            for (i, (token, expected)) in top.iter().zip(expected).enumerate() {
                let found = logits[i / kept * vocab + *token as usize];
                worst = worst.max((found - expected).abs());
            }
            for (row, expected) in logits.chunks(vocab).zip(sums) {
                let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                worst_sum = worst_sum.max((sum.ln() as f32 - expected).abs());
            }
        }
        println!("{}: largest error {worst:e}, of sums {worst_sum:e}", file.display());
        assert!(worst <= TOLERANCE && worst_sum <= TOLERANCE, "{}: {worst:e}", file.display());
    }
}

#[test]
#[ignore = "needs models that are not in the repository"]
fn the_reference_continues_as_transformers() {
    for (bytes, file) in golden() {
        let checkpoint = Checkpoint::open(&file).unwrap();
        let model = Reference::load(&checkpoint).unwrap();
        let vocab = checkpoint.config().vocab_size;
        for (case, prompt, expected) in continuations(&SafeTensors::deserialize(&bytes).unwrap()) {
            // If each token is the most likely one after those before it, the loop ends in the same.
            let tokens = [&prompt[..], &expected[..expected.len() - 1]].concat();
            let logits = model.logits(&tokens).unwrap();
            let found: Vec<u32> = logits.chunks(vocab).skip(prompt.len() - 1).map(top).collect();
            assert_eq!(found, expected, "{}, prompt {case}", file.display());
            println!("{}, prompt {case}: {} tokens are the same", file.display(), found.len());
        }
    }
}

/// The int8 file answers as the float model. Where it does not, it says so, and the two tokens must be nearly
/// equally likely.
#[test]
#[ignore = "needs models that are not in the repository"]
fn an_int8_file_answers_as_the_float_model() {
    for (bytes, file) in golden() {
        let checkpoint = Checkpoint::open(&file).unwrap();
        let reference = Reference::load(&checkpoint).unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("int8.cbl");
        let output = Output::create(&path, false, &checkpoint.files()).unwrap();
        let options = Options::uniform(MatrixFormat::new(Scheme::Int8));
        quantize(&checkpoint, None, &options, output, &()).unwrap();
        let model = Model::open(&path, Access::Read).unwrap();
        let options = SessionOptions { context: Some(256), threads: 2, ..Default::default() };
        let mut session = model.session(&options).unwrap();
        for (case, prompt, expected) in continuations(&SafeTensors::deserialize(&bytes).unwrap()) {
            session.reset();
            let mut found = vec![top(session.evaluate(&prompt).unwrap())];
            while found.len() < expected.len() {
                found.push(top(session.evaluate(&found[found.len() - 1..]).unwrap()));
            }
            let Some(at) = (0..expected.len()).find(|&i| found[i] != expected[i]) else {
                println!("{}, prompt {case}: {} tokens are the same", file.display(), found.len());
                continue;
            };
            let tokens = [&prompt[..], &expected[..at]].concat();
            let logits = reference.last_logits(&tokens).unwrap();
            let behind = logits[expected[at] as usize] - logits[found[at] as usize];
            let what = format!(
                "{}, prompt {case}: token {at} is {}, but the float model's {}, by {behind}",
                file.display(),
                found[at],
                expected[at]
            );
            println!("{what}");
            assert!(behind <= NEAR_TIE, "{what}");
        }
    }
}
