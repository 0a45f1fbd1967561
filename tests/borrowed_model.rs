//! A model in memory, run from beginning to end without a file: as on a device without a file system, and
//! as Miri can, which checks every access to memory (`.ci/nightly`).

use cerebellum::{KvType, LogitsFor, Model, SessionOptions};

#[path = "hostile/exercise.rs"]
mod exercise;

use exercise::{AlignedBytes, exercise};

static FILE: &[u8] = include_bytes!("data/hostile/model/seed.cbl");
/// Windows, rotated positions, RMS norms, a gate.
static MODERN: &[u8] = include_bytes!("data/hostile/model/modern.cbl");
const TOKENS: [u32; 4] = [3, 0, 23, 11];
const KVS: [KvType; 2] = [KvType::F16, KvType::Int8];

/// The bits of all logits.
fn logits(file: &[u8], kv: KvType, threads: usize, chunk: usize) -> Vec<u32> {
    let model = Model::borrow(AlignedBytes::copy(file)).unwrap();
    let options =
        SessionOptions { kv, threads, chunk, logits: LogitsFor::All, ..Default::default() };
    let mut bits = Vec::new();
    let visit = |_, logits: &[f32]| bits.extend(logits.iter().map(|logit| logit.to_bits()));
    model.session(&options).unwrap().evaluate_each(&TOKENS, visit).unwrap();
    bits
}

#[test]
fn everything_is_used() {
    for file in [FILE, MODERN] {
        let ran = exercise(file).unwrap();
        assert!(ran.damaged.is_empty());
        ran.tokenizer.unwrap();
        ran.evaluation.unwrap();
    }
}

#[test]
fn threads_share_the_work() {
    for (file, kv) in [FILE, MODERN].into_iter().flat_map(|file| KVS.map(|kv| (file, kv))) {
        let alone = logits(file, kv, 1, 64);
        assert_eq!(alone.len(), TOKENS.len() * 24);
        assert_eq!(logits(file, kv, 2, 3), alone);
    }
}

#[test]
fn damage_is_an_error() {
    let open = |bytes: &[u8]| Model::borrow(AlignedBytes::copy(bytes));
    for length in [0, 7, 8, 63, 64, FILE.len() / 2, FILE.len() - 1] {
        assert!(open(&FILE[..length]).is_err());
    }
    let mut damaged = FILE.to_vec();
    damaged[100] ^= 1;
    assert!(open(&damaged).is_err());
    damaged[100] ^= 1;
    let weights = 8 + u64::from_le_bytes(FILE[..8].try_into().unwrap()) as usize;
    damaged[weights] ^= 1;
    let faults = open(&damaged).unwrap().verify().unwrap();
    assert_eq!(
        faults.iter().map(|fault| fault.tensor.as_str()).collect::<Vec<_>>(),
        ["wte.weight"]
    );
}

#[test]
fn bytes_must_be_aligned() {
    struct Shifted(AlignedBytes);
    impl AsRef<[u8]> for Shifted {
        fn as_ref(&self) -> &[u8] {
            &self.0.as_ref()[1..]
        }
    }
    let shifted = Shifted(AlignedBytes::copy(&[&[0], FILE].concat()));
    assert!(matches!(Model::borrow(shifted), Err(cerebellum::Error::Misaligned { offset: 1, .. })));
}
