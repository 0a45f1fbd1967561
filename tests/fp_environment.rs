//! The same results in any floating-point environment that a Rust program calls in, which is left as it
//! was. (`tests/c_interface` does so with every function of the C interface.)
#![cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]

mod common;

use std::arch::asm;
use std::ops::ControlFlow;
use std::path::Path;

use cerebellum::batch::Append;
use cerebellum::classify::{Calibration, Classifier, ClassifierOptions};
use cerebellum::quant::Scheme;
use cerebellum::sampler::{Sampler, SamplerOptions};
use cerebellum::score::{Continuations, top_log_probabilities};
use cerebellum::task::Task;
use cerebellum::{Access, LogitsFor, Model, Pooling, SessionOptions};
use common::{bits, demo, golden, quantize_to, tokens};

/// Control bits and status flags.
#[cfg(target_arch = "x86_64")]
type Environment = [u32; 1];
#[cfg(target_arch = "aarch64")]
type Environment = [u64; 2];

/// Rounding down, up, towards zero; subnormals flushed and taken for zero; all exceptions trap (on 64-bit
/// Arm where the processor can); all at once, with every flag set.
#[cfg(target_arch = "x86_64")]
const HOSTILE: [Environment; 6] = [[0x3f80], [0x5f80], [0x7f80], [0x9fc0], [0x0000], [0xe07f]];
#[cfg(target_arch = "aarch64")]
const HOSTILE: [Environment; 6] =
    [[2 << 22, 0], [1 << 22, 0], [3 << 22, 0], [1 << 24, 0], [0x9f00, 0], [0x9f00 | 7 << 22, 0x9f]];

#[cfg(target_arch = "x86_64")]
fn environment() -> Environment {
    let mut it = [0];
    // SAFETY: stmxcsr writes four bytes to a place that outlives it.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut it, options(nostack)) };
    it
}

#[cfg(target_arch = "x86_64")]
fn enter(it: Environment) {
    // SAFETY: no bit is set that the processor does not know. What runs until the environment is back
    // does no arithmetic but inside of the library.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const it, options(nostack)) };
}

#[cfg(target_arch = "aarch64")]
fn environment() -> Environment {
    let mut it = [0; 2];
    // SAFETY: both registers may be read everywhere.
    unsafe {
        asm!("mrs {}, fpcr", out(reg) it[0], options(nostack));
        asm!("mrs {}, fpsr", out(reg) it[1], options(nostack));
    }
    it
}

#[cfg(target_arch = "aarch64")]
fn enter([control, flags]: Environment) {
    // SAFETY: as for x86-64.
    unsafe {
        asm!("msr fpcr, {}", in(reg) control, options(nostack));
        asm!("msr fpsr, {}", in(reg) flags, options(nostack));
    }
}

/// What the library's functions give, as bits, and what they left of the environment.
struct Seen {
    bits: Vec<u64>,
    environment: Environment,
}

impl Seen {
    /// Notes results of a function that has returned.
    fn note(&mut self, function: &str, results: impl IntoIterator<Item = u64>) {
        assert_eq!(environment(), self.environment, "{function} left another environment");
        self.bits.extend(results);
    }

    fn note_floats(&mut self, function: &str, floats: &[f32]) {
        self.note(function, bits(floats).into_iter().map(u64::from));
    }

    fn note_doubles(&mut self, function: &str, doubles: impl IntoIterator<Item = f64>) {
        self.note(function, doubles.into_iter().map(f64::to_bits));
    }
}

fn drawing() -> SamplerOptions {
    SamplerOptions {
        temperature: 0.8,
        top_p: 0.9,
        min_p: 0.01,
        repetition_penalty: 1.1,
        seed: 3,
        ..SamplerOptions::default()
    }
}

/// Everything there is to compute with a model.
fn compute(file: &Path, prompt: &[u32], environment: Environment) -> Vec<u64> {
    let mut seen = Seen { bits: Vec::new(), environment };
    let model = Model::open(file, Access::Read).unwrap();
    seen.note("open", [model.config().norm.epsilon.to_bits().into()]);
    let options = SessionOptions {
        context: Some(128),
        threads: 2,
        logits: LogitsFor::All,
        ..SessionOptions::default()
    };
    let mut session = model.session(&options).unwrap();
    seen.note("session", []);
    let logits = session.evaluate(prompt).unwrap().to_vec();
    seen.note_floats("evaluate", &logits);
    let token = session.sample(&drawing()).unwrap();
    seen.note("sample", [token.into()]);
    let mut sampler = Sampler::new(&drawing(), logits.len()).unwrap();
    seen.note("Sampler", [sampler.sample(&logits, prompt, 7).into()]);
    let top = top_log_probabilities(&logits, 5);
    seen.note_doubles("top_log_probabilities", top.into_iter().map(|(_, p)| p));

    let continuations = Continuations::new(&[&prompt[..3], &prompt[1..3], &prompt[..1]]).unwrap();
    let scores = session.score(&prompt[..2], &continuations).unwrap();
    seen.note_doubles("score", (0..3).map(|i| scores.log_probability(i)));
    let mut embedding = vec![0.0; model.config().n_embd];
    session.reset();
    session.embed(prompt, Pooling::Mean, &mut embedding).unwrap();
    seen.note_floats("embed", &embedding);

    let mut batch = model.batch(&options, 2).unwrap();
    let append = |sequence| Append { sequence, tokens: &prompt[sequence..] };
    batch.evaluate(&[append(0), append(1)]).unwrap();
    seen.note_floats("Batch::evaluate", batch.logits(1).unwrap());
    seen.note("Batch::sample", [batch.sample(1, &drawing()).unwrap().into()]);
    if model.tokenizer().is_ok() {
        compute_with_text(&model, &options, &mut seen);
    }
    seen.bits
}

fn compute_with_text(model: &Model, options: &SessionOptions, seen: &mut Seen) {
    let tokenizer = model.tokenizer().unwrap();
    let mut session = model.session(options).unwrap();
    for calibration in [Calibration::ContentFree, Calibration::MutualInformation] {
        let options = ClassifierOptions { calibration, ..ClassifierOptions::default() };
        let classifier = Classifier::new(&tokenizer, &["alarm", "timer", "weather"], &options);
        let result = classifier.unwrap().classify(&mut session, "wake me").unwrap();
        seen.note_doubles("classify", result.scores.into_iter().chain(result.probabilities));
    }
    let template = "max-tokens: 6\ntemperature: 0.8\ntop-p: 0.9\n---\nSay {text} and".parse();
    let task = Task::new(&tokenizer, template.unwrap());
    session.reset();
    let result = task.run(&mut session, "a", |_| ControlFlow::Continue(())).unwrap();
    seen.note("Task", result.text.bytes().map(u64::from));
    let mut batch = model.batch(options, 2).unwrap();
    for result in task.run_all(&mut batch, &["a", "b"]).unwrap() {
        seen.note("Task::run_all", result.unwrap().text.bytes().map(u64::from));
    }
    #[cfg(feature = "constraints")]
    compute_with_constraints(model, tokenizer, &mut session, seen);
}

#[cfg(feature = "constraints")]
fn compute_with_constraints(
    model: &Model,
    tokenizer: cerebellum::text::Tokenizer<cerebellum::TokenizerBytes>,
    session: &mut cerebellum::Session,
    seen: &mut Seen,
) {
    use cerebellum::constraint::{Form, Vocabulary};
    use cerebellum::generate::{GenerateOptions, generate_text_steps};
    use std::sync::Arc;

    let tokenizer = Arc::new(tokenizer);
    let vocabulary = Vocabulary::new(model, Arc::clone(&tokenizer)).unwrap();
    let schema = r#"{"type": "integer", "minimum": 3, "maximum": 100}"#;
    let form = Form::JsonSchema(serde_json::from_str(schema).unwrap());
    let mut constraint = vocabulary.constrain(&form).unwrap();
    let (table, options) = (tokenizer.table(), GenerateOptions::default());
    let mut text = String::new();
    session.reset();
    generate_text_steps(session, table, &[5], &options, Some(&mut constraint), |piece, _| {
        text += piece;
        ControlFlow::Continue(())
    })
    .unwrap();
    seen.note("constrain", text.bytes().map(u64::from));
}

/// In `environment`, and then back.
fn compute_in(it: Environment, file: &Path, prompt: &[u32]) -> Vec<u64> {
    let before = environment();
    enter(it);
    let results = compute(file, prompt, it);
    enter(before);
    results
}

#[test]
fn results_and_environment_are_the_same_in_every_environment() {
    let directory = tempfile::tempdir().unwrap();
    for (name, checkpoint) in [("demo", demo()), ("btlm", golden("btlm-6-heads"))] {
        let file = directory.path().join(name);
        quantize_to(&file, &checkpoint, Scheme::Int8, 32);
        let prompt = tokens(&Model::open(&file, Access::Read).unwrap(), 20);
        let expected = compute(&file, &prompt, environment());
        for it in HOSTILE {
            let results = compute_in(it, &file, &prompt);
            assert!(results == expected, "{name}: other results in the environment {it:x?}");
        }
    }
}
