//! The float32 reference against logits from transformers 5.24 (`tests/data/golden-modern`): one case of each
//! family and way of computing that people run.

use std::path::{Path, PathBuf};

use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::reference::{Parallelism, Reference};
use safetensors::SafeTensors;

/// As in `golden.rs`: some hundred units in the last place of logits up to 10.
const TOLERANCE: f32 = 2e-4;

/// Directories with weights and logits. Some cases are kept for their configuration only (`families.rs`).
fn cases() -> Vec<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden-modern");
    let entries = data.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> =
        entries.filter(|path| path.join("golden.safetensors").exists()).collect();
    cases.sort();
    assert_eq!(cases.len(), 11);
    cases
}

/// Token ids, and the logits of the last of them, `[positions, vocab_size]`.
fn golden(case: &Path) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(case.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let [ids, logits] = ["ids.0", "logits.0"].map(|name| tensors.tensor(name).unwrap());
    let ids = ids.data().as_chunks().0.iter().map(|id| i64::from_le_bytes(*id) as u32);
    let logits = logits.data().as_chunks().0.iter().map(|logit| f32::from_le_bytes(*logit));
    (ids.collect(), logits.collect())
}

#[test]
fn every_family_matches_transformers() {
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let checkpoint = Checkpoint::open(&case).unwrap();
        let model = Reference::load(&checkpoint).unwrap().with_parallelism(Parallelism::Serial);
        let (ids, expected) = golden(&case);
        let logits = model.logits(&ids).unwrap();
        let difference = |(a, b): (&f32, &f32)| (a - b).abs();
        // `f32::max` would drop a NaN; here it counts as infinitely wrong.
        let worst = |worst: f32, d: f32| if d.is_nan() { f32::INFINITY } else { worst.max(d) };
        let last = &logits[logits.len() - expected.len()..];
        let worst = last.iter().zip(&expected).map(difference).fold(0.0, worst);
        println!("{name}: largest absolute error {worst:e}");
        assert!(worst <= TOLERANCE, "{name}: {worst:e}");
    }
}
