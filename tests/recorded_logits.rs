//! Logits of the demo model, recorded: the numbers contract from one processor to the next.
//!
//! `tests/data/recorded/logits.txt` was written on an x86-64 processor. Here and on every other processor
//! each instruction set must give the same: 64 tokens after each of five prompts, int4 and int8 weights as
//! they are by default, a float16 and an int8 cache. When the numbers change on purpose (`docs/numbers.md`), the file is what
//! the failing test prints.

mod common;

use cerebellum::format::checksum;
use cerebellum::kernels::Isa;
use cerebellum::quant::Scheme;
use cerebellum::{KvType, Model, SessionOptions};
use common::{demo, quantized_by_default};

const RECORD: &str = include_str!("data/recorded/logits.txt");

const PROMPTS: [&str; 5] = [
    "Once upon a time",
    "Utterance: set an alarm for six\nIntent:",
    "The dog said to the cat: \"",
    "3 + 4 = ",
    "Grüße, 世界! \u{1f600}\n\n",
];

const TOKENS: usize = 64;

/// The checksums of the logits of every step, the most likely token being the next one, and of the
/// tokens.
fn run(model: &Model, kv: KvType, isa: Isa, prompt: &[u32]) -> (u32, u32) {
    let options = SessionOptions { kv, isa: Some(isa), ..Default::default() };
    let mut session = model.session(&options).unwrap();
    let (mut all, mut tokens) = (Vec::new(), Vec::new());
    let mut logits = session.evaluate(prompt).unwrap();
    for _ in 0..TOKENS {
        all.extend(logits.iter().flat_map(|x| x.to_le_bytes()));
        let best =
            (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        let token = u32::try_from(best.unwrap()).unwrap();
        tokens.extend(token.to_le_bytes());
        logits = session.evaluate(&[token]).unwrap();
    }
    (checksum(&all), checksum(&tokens))
}

/// A line of the record for each prompt and cache.
fn record(model: &Model, scheme: Scheme, isa: Isa) -> String {
    let mut lines = String::new();
    let tokenizer = model.tokenizer().unwrap();
    for kv in [KvType::F16, KvType::Int8] {
        for text in PROMPTS {
            let prompt = tokenizer.encode(text, Default::default()).unwrap();
            let (logits, tokens) = run(model, kv, isa, &prompt);
            let scheme = scheme.name();
            lines += &format!("{scheme} {kv:?} logits {logits:08x} tokens {tokens:08x} {text:?}\n");
        }
    }
    lines
}

#[test]
fn every_instruction_set_gives_the_recorded_logits() {
    // Without hardware FMA the definition takes minutes; tests/determinism.rs runs it over fewer tokens.
    let emulates = cfg!(target_arch = "x86_64");
    let isas: Vec<Isa> = Isa::available().filter(|&isa| isa != Isa::Scalar || !emulates).collect();
    let mut records = vec![String::new(); isas.len()];
    for scheme in [Scheme::Int4, Scheme::Int8] {
        let model = quantized_by_default(&demo(), scheme);
        for (isa, lines) in isas.iter().zip(&mut records) {
            *lines += &record(&model, scheme, *isa);
        }
    }
    for (isa, got) in isas.iter().zip(records) {
        assert!(got == RECORD, "{isa} gives another record than tests/data/recorded:\n{got}");
        println!("{isa}: {} runs of {TOKENS} tokens as recorded", got.lines().count());
    }
}
