//! What several tokens in one pass cost and bring, on a model file:
//!
//!     cargo bench --bench passes -- MODEL.cbl [--threads N] [--labels FILE] [--text FILE]
//!
//! - a pass of a few rows beside one row: what checking a draft costs
//! - a step of a batch beside a step of one sequence
//! - with labels, a line each: scoring them as a tree behind a short prompt, beside a prompt of as many
//!   tokens with all logits
//! - with a text: continuing it greedily with and without drafts
//!
//! Alternatives are interleaved; figures are medians.

use std::ops::ControlFlow;
use std::time::Instant;

use cerebellum::batch::Append;
use cerebellum::generate::{GenerateOptions, generate_tokens};
use cerebellum::sampler::SamplerOptions;
use cerebellum::score::Continuations;
use cerebellum::{Access, LogitsFor, Model, SessionOptions};

const ROUNDS: usize = 15;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} needs a value")).as_str())
    };
    // `cargo bench` without arguments runs every bench; this one has nothing to measure then.
    let Some(path) = arguments.first() else { return };
    let threads = value("--threads").map_or(1, |n| n.parse().expect("a number of threads"));
    let model = Model::open(path, Access::Map).expect("a model file");
    let options = SessionOptions { threads, ..Default::default() };
    rows(&model, &options);
    batch(&model, &options);
    if let Some(labels) = value("--labels") {
        tree(&model, &options, &std::fs::read_to_string(labels).expect("labels"));
    }
    if let Some(text) = value("--text") {
        drafts(&model, &options, &std::fs::read_to_string(text).expect("a text"));
    }
}

/// Median seconds of each alternative, tried in turns.
fn medians<const N: usize>(mut alternatives: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut seconds = [const { Vec::new() }; N];
    for round in 0..=ROUNDS {
        for (seconds, alternative) in seconds.iter_mut().zip(&mut alternatives) {
            let start = Instant::now();
            alternative();
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[ROUNDS / 2]
    })
}

fn tokens(model: &Model, n: usize) -> Vec<u32> {
    let ids = (1..=n as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33);
    ids.map(|x| (x % model.config().vocab_size as u64) as u32).collect()
}

fn rows(model: &Model, options: &SessionOptions) {
    const DEPTH: usize = 60;
    let ids = tokens(model, DEPTH + 16);
    let options = SessionOptions { logits: LogitsFor::All, draft: 0, ..options.clone() };
    let mut session = model.session(&options).unwrap();
    session.evaluate(&ids[..DEPTH]).unwrap();
    let session = std::cell::RefCell::new(session);
    let pass = |rows: usize| {
        let mut session = session.borrow_mut();
        session.rewind(DEPTH).unwrap();
        session.evaluate(&ids[DEPTH..DEPTH + rows]).unwrap();
    };
    const ROWS: [usize; 8] = [1, 2, 3, 4, 5, 6, 8, 16];
    let pass = &pass;
    let mut passes = ROWS.map(|rows| move || pass(rows));
    let times = medians(passes.each_mut().map(|pass| pass as &mut dyn FnMut()));
    println!("rows of a pass: milliseconds, times one row");
    for (rows, time) in ROWS.iter().zip(times) {
        println!("{rows:5}  {:8.3}  {:.2}", time * 1e3, time / times[0]);
    }
}

fn batch(model: &Model, options: &SessionOptions) {
    const DEPTH: usize = 60;
    let ids = tokens(model, DEPTH + 1);
    let options = SessionOptions { context: Some(DEPTH + 1), draft: 0, ..options.clone() };
    let mut alone = model.session(&options).unwrap();
    alone.evaluate(&ids[..DEPTH]).unwrap();
    let mut alone = || {
        alone.rewind(DEPTH).unwrap();
        alone.evaluate(&ids[DEPTH..]).unwrap();
    };
    let mut steps = [2, 4, 8, 16].map(|sequences| {
        let mut batch = model.batch(&options, sequences).unwrap();
        let prompts: Vec<_> =
            (0..sequences).map(|sequence| Append { sequence, tokens: &ids[..DEPTH] }).collect();
        batch.evaluate(&prompts).unwrap();
        let ids = &ids;
        move || {
            let next: Vec<_> =
                (0..sequences).map(|sequence| Append { sequence, tokens: &ids[DEPTH..] }).collect();
            for sequence in 0..sequences {
                batch.rewind(sequence, DEPTH).unwrap();
            }
            batch.evaluate(&next).unwrap();
        }
    });
    let [b, c, d, e] = steps.each_mut();
    let times = medians([&mut alone, b, c, d, e]);
    println!("sequences of a batch: tokens per second, times one sequence");
    for (sequences, time) in [1, 2, 4, 8, 16].into_iter().zip(times) {
        let rate = f64::from(sequences) / time;
        println!("{sequences:5}  {rate:8.1}  {:.2}", rate * times[0]);
    }
}

fn tree(model: &Model, options: &SessionOptions, labels: &str) {
    let tokenizer = model.tokenizer().expect("a model with a tokenizer");
    let encode = |text: &str| tokenizer.encode(text, Default::default()).expect("encodes");
    let labels: Vec<_> = labels.lines().map(|label| encode(&format!(" {label}\n"))).collect();
    let tree = Continuations::new(&labels).expect("labels");
    let prompt = encode("Utterance: how do i set an alarm for six in the morning\nIntent:");
    let options = SessionOptions { logits: LogitsFor::All, ..options.clone() };
    let mut scoring = model.session(&options).unwrap();
    let mut score = || {
        scoring.reset();
        drop(scoring.score(&prompt, &tree).unwrap());
    };
    let ids = tokens(model, prompt.len() + tree.evaluated_tokens());
    let mut session = model.session(&options).unwrap();
    let mut plain = || {
        session.reset();
        session.evaluate_each(&ids, |_, _| ()).unwrap();
    };
    let mut short = model.session(&SessionOptions { draft: 0, ..options.clone() }).unwrap();
    let mut one = || {
        short.reset();
        short.evaluate(&prompt).unwrap();
    };
    let [score, plain, one] = medians([&mut score, &mut plain, &mut one]);
    println!(
        "{} labels, {} tokens of tree, {} of prompt: {:.2} ms; a prompt of as many with all logits \
         {:.2} ms, ratio {:.3}; the prompt alone {:.2} ms",
        labels.len(),
        tree.evaluated_tokens(),
        prompt.len(),
        score * 1e3,
        plain * 1e3,
        score / plain,
        one * 1e3
    );
}

fn drafts(model: &Model, options: &SessionOptions, text: &str) {
    let tokenizer = model.tokenizer().expect("a model with a tokenizer");
    for prompt in text.split("\n---\n") {
        let prompt = tokenizer.encode(prompt.trim_end_matches('\n'), Default::default()).unwrap();
        for temperature in [0.0, 0.8] {
            let generate = GenerateOptions {
                max_tokens: 100,
                sampler: SamplerOptions { temperature, seed: 3, ..Default::default() },
                ignore_end_of_text: true,
                ..Default::default()
            };
            let mut counts = None;
            let run =
                |draft: usize, counts: &mut Option<_>| {
                    let mut session =
                        model.session(&SessionOptions { draft, ..options.clone() }).unwrap();
                    let result = generate_tokens(&mut session, &prompt, &generate, |_| {
                        ControlFlow::Continue(())
                    });
                    *counts = Some(session.draft_counts());
                    result.unwrap().decode_tokens_per_second()
                };
            let (mut ratios, mut speeds) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let without = run(0, &mut counts);
                let with = run(SessionOptions::default().draft, &mut counts);
                ratios.push(with / without);
                speeds.push(without);
            }
            ratios.sort_by(f64::total_cmp);
            speeds.sort_by(f64::total_cmp);
            println!(
                "prompt of {} tokens, temperature {temperature}: {:.1} tokens/s, with drafts times \
                 {:.3} ({:?})",
                prompt.len(),
                speeds[ROUNDS / 2],
                ratios[ROUNDS / 2],
                counts.unwrap()
            );
        }
    }
}
