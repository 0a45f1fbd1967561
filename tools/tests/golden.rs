//! The float32 reference against logits from the transformers library (`tests/data/golden`).

use std::path::{Path, PathBuf};

use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::reference::{Parallelism, Reference};
use safetensors::SafeTensors;

const CASES: [&str; 11] = [
    "btlm-6-heads",
    "btlm-head80",
    "cerebras-17-heads",
    "cerebras-odd-inner",
    "gpt2-bare-names-masks",
    "head80-bf16-sharded",
    "inverse-layer-scale",
    "legacy-bin",
    "tied-bin",
    "unscaled-relu",
    "untied-bin-sharded",
];

/// Both sides compute in float32 and differ in the order of their sums. The logits are of order 1
/// to 10, so that this is some hundred units in the last place.
const TOLERANCE: f32 = 2e-4;

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden").join(name)
}

/// The pairs of a case: token ids, and logits `[tokens, vocab_size]`.
fn golden(case: &Path) -> Vec<(Vec<u32>, Vec<f32>)> {
    let bytes = std::fs::read(case.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut pairs = Vec::new();
    while let Ok(ids) = tensors.tensor(&format!("ids.{}", pairs.len())) {
        let logits = tensors.tensor(&format!("logits.{}", pairs.len())).unwrap();
        let ids = ids.data().as_chunks().0.iter().map(|id| i64::from_le_bytes(*id) as u32);
        let logits = logits.data().as_chunks().0.iter().map(|logit| f32::from_le_bytes(*logit));
        pairs.push((ids.collect(), logits.collect()));
    }
    assert_eq!(pairs.len(), 5, "{}", case.display());
    pairs
}

fn max_abs_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference = |(a, b): (&f32, &f32)| (a - b).abs();
    // `f32::max` would drop a NaN; here it counts as infinitely wrong.
    let worst = |worst: f32, d: f32| if d.is_nan() { f32::INFINITY } else { worst.max(d) };
    a.iter().zip(b).map(difference).fold(0.0, worst)
}

#[test]
fn every_case_matches_transformers() {
    for name in CASES {
        let checkpoint = Checkpoint::open(&case(name)).unwrap();
        assert!(checkpoint.extra_tensors().is_empty(), "{name}");
        let mut worst = [0f32; 2];
        for (parallelism, worst) in
            [Parallelism::Serial, Parallelism::Rayon].into_iter().zip(&mut worst)
        {
            let model = Reference::load(&checkpoint).unwrap().with_parallelism(parallelism);
            for (ids, expected) in golden(&case(name)) {
                let logits = model.logits(&ids).unwrap();
                *worst = worst.max(max_abs_difference(&logits, &expected));

                let last = model.last_logits(&ids).unwrap();
                let expected = &expected[expected.len() - last.len()..];
                *worst = worst.max(max_abs_difference(&last, expected));
            }
        }
        let [serial, parallel] = worst;
        println!("{name}: largest absolute error {serial:e} serial, {parallel:e} parallel");
        assert!(worst.iter().all(|worst| *worst <= TOLERANCE), "{name}: {worst:?}");
    }
}

#[test]
fn observers_see_the_input_of_every_matrix() {
    let checkpoint = Checkpoint::open(&case("cerebras-odd-inner")).unwrap();
    let model = Reference::load(&checkpoint).unwrap();
    let mut seen = Vec::new();
    let logits = model.logits_observed(&[1, 2, 3], &mut |weight, input| {
        let tensor = checkpoint.tensor(&weight.name()).unwrap();
        assert_eq!(input.len(), 3 * tensor.columns(), "{weight:?}");
        seen.push(weight.name());
    });
    assert_eq!(logits.unwrap(), model.logits(&[1, 2, 3]).unwrap());
    let expected: Vec<String> = (0..2)
        .flat_map(|layer| {
            ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
                .map(|part| format!("h.{layer}.{part}.weight"))
        })
        .chain(["wte.weight".to_owned()])
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn bad_token_sequences_are_refused() {
    let checkpoint = Checkpoint::open(&case("cerebras-odd-inner")).unwrap();
    let model = Reference::load(&checkpoint).unwrap();
    let message = |tokens: &[u32]| model.logits(tokens).unwrap_err().to_string();
    assert!(message(&[]).starts_with("no tokens"));
    assert!(message(&[0; 97]).starts_with("97 tokens are more than the model's 96 positions"));
    assert!(message(&[3, 257]).starts_with("token 257 at position 1 is not below"));
}

/// Run with `cargo test --release -p cerebellum-tools --test golden -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn speed_of_the_demo_model() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let model = Reference::load(&Checkpoint::open(&path).unwrap()).unwrap();
    let (windows, window) = (40, 512);
    // A linear congruential generator (Knuth's MMIX): any ids will do.
    let mut state = 1u64;
    let mut token = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32 % model.config().vocab_size as u32
    };
    let start = std::time::Instant::now();
    for _ in 0..windows {
        let tokens: Vec<u32> = (0..window).map(|_| token()).collect();
        assert!(model.logits(&tokens).unwrap().iter().all(|logit| logit.is_finite()));
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = (windows * window) as f64 / seconds;
    println!("{} tokens in {seconds:.2} s: {rate:.0} tokens/s", windows * window);
}
