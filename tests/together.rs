//! Sequences evaluated together, and trees of continuations: the same bits as each alone.

mod common;
#[path = "emulation/random_models.rs"]
mod random_models;

use std::ops::ControlFlow;

use cerebellum::batch::{Append, Batch, CACHE_BLOCK, Client, Job, Next, Request, generate, serve};
use cerebellum::generate::{GenerateOptions, StopReason, generate_tokens};
use cerebellum::kernels::Isa;
use cerebellum::quant::Scheme;
use cerebellum::sampler::SamplerOptions;
use cerebellum::score::{Continuations, log_sum_exp};
use cerebellum::{Error, KvType, LogitsFor, Model, Pooling, SessionOptions};
use common::{bits, demo, golden, quantized, tokens};
use random_models::random_file::Random;
use random_models::{unlimited, windowed};

/// Sequences of different lengths and contents; the longest is past a segment of 256.
fn sequences(model: &Model, longest: usize) -> Vec<Vec<u32>> {
    let all = tokens(model, longest + 80);
    [1, 3, 17, 40, 64, 65, 6, longest]
        .iter()
        .zip(0..)
        .map(|(&n, i)| all[i..i + n.min(longest)].to_vec())
        .collect()
}

fn logits_alone(model: &Model, options: &SessionOptions, tokens: &[u32]) -> Vec<u32> {
    bits(model.session(options).unwrap().evaluate(tokens).unwrap())
}

fn check_batch(model: &Model, options: &SessionOptions, longest: usize, case: &str) {
    let sequences = sequences(model, longest);
    let alone = SessionOptions { threads: 1, isa: None, ..options.clone() };
    let mut batch = model.batch(options, sequences.len()).unwrap();
    // All but the last token of the odd ones first, then the rest and all of the even ones together.
    let (early, late): (Vec<_>, Vec<_>) = sequences
        .iter()
        .enumerate()
        .map(|(sequence, tokens)| {
            let cut = if sequence % 2 == 1 { tokens.len() - 1 } else { 0 };
            let (early, late) = tokens.split_at(cut);
            (Append { sequence, tokens: early }, Append { sequence, tokens: late })
        })
        .unzip();
    let early: Vec<_> = early.into_iter().filter(|append| !append.tokens.is_empty()).collect();
    batch.evaluate(&early).unwrap();
    assert!(matches!(batch.logits(0), Err(Error::NoLogits)));
    batch.evaluate(&late).unwrap();
    for (sequence, tokens) in sequences.iter().enumerate() {
        let got = bits(batch.logits(sequence).unwrap());
        assert_eq!(batch.tokens(sequence), tokens);
        assert!(got == logits_alone(model, &alone, tokens), "{case}, sequence {sequence}");
    }
    // One that goes on alone, after a rewind.
    batch.rewind(5, 20).unwrap();
    batch.evaluate(&[Append { sequence: 5, tokens: &sequences[5][20..] }]).unwrap();
    assert!(bits(batch.logits(5).unwrap()) == logits_alone(model, &alone, &sequences[5]), "{case}");
}

#[test]
fn a_batch_has_the_bits_of_each_sequence_alone() {
    for (scheme, group_size) in [(Scheme::Int4, 64), (Scheme::Int8, 128)] {
        let model = quantized(&demo(), scheme, group_size);
        for kv in [KvType::F16, KvType::Int8] {
            for (threads, chunk) in [(1, 64), (2, 9), (3, 500)] {
                let options = SessionOptions { kv, threads, chunk, ..Default::default() };
                check_batch(&model, &options, 270, &format!("{scheme:?} {kv:?} {threads} {chunk}"));
            }
        }
    }
    let model = quantized(&golden("cerebras-17-heads"), Scheme::Int4, 32);
    let longest = model.config().n_positions.min(90);
    for isa in Isa::available() {
        for kv in [KvType::F16, KvType::Int8] {
            let options = SessionOptions { kv, isa: Some(isa), threads: 2, ..Default::default() };
            check_batch(&model, &options, longest, &format!("{isa} {kv:?}"));
        }
    }
}

#[test]
fn modern_networks_in_batches() {
    for (case, model) in unlimited() {
        for kv in [KvType::F16, KvType::Int8] {
            let options = SessionOptions { kv, threads: 2, chunk: 9, ..Default::default() };
            check_batch(&model, &options, 90, &format!("{case} {kv:?}"));
        }
    }
}

/// Evaluates all tokens of a sequence, and copies each block as soon as it is there.
fn blocks_of(batch: &mut Batch, tokens: &[u32]) -> Vec<Vec<u8>> {
    let (chunk, mut blocks) = (batch.chunk(), Vec::new());
    batch.reset(0);
    for part in tokens.chunks(chunk) {
        batch.evaluate(&[Append { sequence: 0, tokens: part }]).unwrap();
        while (blocks.len() + 1) * CACHE_BLOCK <= batch.position(0) {
            let mut block = vec![0; batch.block_bytes()];
            assert!(batch.copy_block(0, blocks.len() * CACHE_BLOCK, &mut block));
            blocks.push(block);
        }
    }
    blocks
}

/// Blocks of one sequence in another, of a batch with another context, chunk and history.
fn check_blocks(model: &Model, kv: KvType, longest: usize, case: &str) {
    let tokens = tokens(model, longest);
    let options = SessionOptions { kv, chunk: 40, context: Some(longest), ..Default::default() };
    let mut from = model.batch(&options, 1).unwrap();
    let blocks = blocks_of(&mut from, &tokens);
    assert_eq!(blocks.len(), longest / CACHE_BLOCK);
    let other = SessionOptions { chunk: 64, threads: 2, ..options.clone() };
    let mut to = model.batch(&other, 2).unwrap();
    assert_eq!(to.block_bytes(), from.block_bytes());
    // What the sequence held before is forgotten, in a ring as well.
    let held: Vec<u32> = tokens.iter().rev().copied().collect();
    to.evaluate(&[Append { sequence: 1, tokens: &held }]).unwrap();
    for count in [0, 1, 3, (longest - 1) / CACHE_BLOCK] {
        to.reset(1);
        for (tokens, block) in tokens.chunks(CACHE_BLOCK).zip(&blocks).take(count) {
            to.append_block(1, tokens, block).unwrap();
        }
        assert_eq!(to.tokens(1), &tokens[..count * CACHE_BLOCK]);
        assert!(matches!(to.logits(1), Err(Error::NoLogits)));
        to.evaluate(&[Append { sequence: 1, tokens: &tokens[count * CACHE_BLOCK..] }]).unwrap();
        let alone = logits_alone(model, &options, &tokens);
        assert!(bits(to.logits(1).unwrap()) == alone, "{case} {kv:?}, {count} blocks");
    }
    let full = to.append_block(1, &tokens[..CACHE_BLOCK], &blocks[0]);
    assert!(!longest.is_multiple_of(CACHE_BLOCK) || matches!(full, Err(Error::ContextFull { .. })));
    to.reset(0);
    let unknown = [model.config().vocab_size as u32; CACHE_BLOCK];
    let unknown = to.append_block(0, &unknown, &blocks[0]);
    assert!(matches!(unknown, Err(Error::TokenOutOfRange { .. })));
    assert_eq!(to.position(0), 0);
}

#[test]
fn blocks_of_a_cache_are_those_of_any_sequence_with_the_same_tokens() {
    for kv in [KvType::F16, KvType::Int8] {
        check_blocks(&quantized(&demo(), Scheme::Int4, 64), kv, 320, "demo");
        for (case, model) in unlimited().into_iter().take(2) {
            check_blocks(&model, kv, 96, case);
        }
        for (case, model) in windowed() {
            check_blocks(&model, kv, 592, case);
            // What a ring has forgotten is not handed out.
            let options = SessionOptions { kv, context: Some(592), ..Default::default() };
            let mut batch = model.batch(&options, 1).unwrap();
            batch.evaluate(&[Append { sequence: 0, tokens: &tokens(&model, 592) }]).unwrap();
            let mut block = vec![0; batch.block_bytes()];
            let has_first = batch.copy_block(0, 0, &mut block);
            batch.rewind(0, 16).unwrap();
            assert_eq!(has_first, batch.copy_block(0, 0, &mut block), "{case}");
            assert!(!batch.copy_block(0, 16, &mut block), "past the end");
        }
    }
}

/// A client that keeps the blocks of one prompt and puts them before others.
struct Keeper {
    requests: Vec<Request>,
    given: usize,
    blocks: Vec<Vec<u8>>,
    tokens: Vec<Vec<u32>>,
    reused: Vec<usize>,
    /// From which token on a job is not wanted any more.
    unwanted: Option<(usize, usize)>,
}

impl Client<'static> for Keeper {
    fn next(&mut self, _: bool) -> Next<Job<'static>> {
        let Some(request) = self.requests.get(self.given).cloned() else { return Next::End };
        self.given += 1;
        self.tokens.push(Vec::new());
        self.reused.push(usize::MAX);
        Next::Job(Job { request: std::borrow::Cow::Owned(request), constraint: None })
    }

    fn prepare(
        &mut self,
        _: usize,
        batch: &mut Batch,
        sequence: usize,
        prompt: &[u32],
    ) -> cerebellum::Result<()> {
        let known = self.blocks.len().min((prompt.len() - 1) / CACHE_BLOCK);
        batch.rewind(sequence, batch.position(sequence) / CACHE_BLOCK * CACHE_BLOCK)?;
        for n in batch.position(sequence) / CACHE_BLOCK..known {
            let tokens = &prompt[n * CACHE_BLOCK..(n + 1) * CACHE_BLOCK];
            batch.append_block(sequence, tokens, &self.blocks[n])?;
        }
        Ok(())
    }

    fn evaluated(&mut self, job: usize, batch: &mut Batch, sequence: usize) {
        while job == 0 && (self.blocks.len() + 1) * CACHE_BLOCK <= batch.position(sequence) {
            let mut block = vec![0; batch.block_bytes()];
            assert!(batch.copy_block(sequence, self.blocks.len() * CACHE_BLOCK, &mut block));
            self.blocks.push(block);
        }
    }

    fn is_wanted(&mut self, job: usize) -> bool {
        self.unwanted.is_none_or(|(other, from)| other != job || self.tokens[job].len() < from)
    }

    fn step(&mut self, job: usize, step: cerebellum::generate::Step) -> ControlFlow<StopReason> {
        self.tokens[job].push(step.token);
        ControlFlow::Continue(())
    }

    fn end(&mut self, job: usize, outcome: cerebellum::Result<cerebellum::generate::Generation>) {
        let generation = outcome.unwrap();
        self.reused[job] = generation.reused_tokens;
        let cancelled = self.unwanted.is_some_and(|(other, _)| other == job);
        assert_eq!(generation.stop_reason == StopReason::Cancelled, cancelled, "job {job}");
    }
}

#[test]
fn a_client_brings_what_it_kept_and_drops_what_nobody_wants() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let prompt = tokens(&model, 100);
    let sampler = SamplerOptions { temperature: 1.0, seed: 3, ..Default::default() };
    let options =
        GenerateOptions { max_tokens: 12, sampler, ignore_end_of_text: true, ..Default::default() };
    let request = Request { prompt: prompt.clone(), options: options.clone() };
    // One sequence: the third prompt finds none of its own there.
    let short = Request { prompt: prompt[40..44].to_vec(), options: options.clone() };
    let requests = vec![request.clone(), short.clone(), request.clone(), short, request];
    let mut batch = model.batch(&SessionOptions::default(), 1).unwrap();
    let mut keeper = Keeper {
        requests,
        given: 0,
        blocks: Vec::new(),
        tokens: Vec::new(),
        reused: Vec::new(),
        unwanted: Some((4, 5)),
    };
    serve(&mut batch, &mut keeper).unwrap();
    assert_eq!(keeper.reused, [0, 0, 96, 0, 96]);
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let mut alone = Vec::new();
    generate_tokens(&mut session, &prompt, &options, |token| {
        alone.push(token);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((&keeper.tokens[0], &keeper.tokens[2]), (&alone, &alone));
    assert_eq!(keeper.tokens[1], keeper.tokens[3]);
    assert_eq!(keeper.tokens[4], alone[..5]);
}

/// Each sequence's cache of a window wraps by itself; and what it no longer has is computed again.
#[test]
fn windows_in_batches() {
    for (case, model) in windowed() {
        for kv in [KvType::F16, KvType::Int8] {
            for (threads, chunk) in [(1, 64), (2, 9), (3, 500)] {
                let context = Some(600);
                let options = SessionOptions { kv, threads, chunk, context, ..Default::default() };
                let case = format!("{case} {kv:?} {threads} {chunk}");
                check_batch(&model, &options, 570, &case);
            }
            check_batch_calls(&model, kv, case);
        }
    }
}

/// Sequences that grow and are rewound, near and far, in any order, several at once.
fn check_batch_calls(model: &Model, kv: KvType, case: &str) {
    let options = SessionOptions { kv, chunk: 30, context: Some(700), ..Default::default() };
    let alone = SessionOptions { chunk: 500, ..options.clone() };
    let mut batch = model.batch(&options, 3).unwrap();
    let mut random = Random(11);
    let all = tokens(model, 900);
    for call in 0..60 {
        let mut below = |n: usize| random.bits() as usize % n;
        let (mut appends, mut evaluated) = (Vec::new(), Vec::new());
        for sequence in 0..3 {
            let position = batch.position(sequence);
            if below(3) == 0 {
                let back = [below(position + 1), below(position.min(50) + 1)][below(2)];
                batch.rewind(sequence, position - back).unwrap();
            }
            let room = batch.context() - batch.position(sequence);
            let count = (1 + [below(3), below(200)][below(2)]).min(room);
            let start = below(500);
            if below(4) > 0 && count > 0 {
                appends.push(Append { sequence, tokens: &all[start..start + count] });
                evaluated.push(sequence);
            }
        }
        if appends.is_empty() {
            continue;
        }
        batch.evaluate(&appends).unwrap();
        for sequence in evaluated {
            let want = logits_alone(model, &alone, batch.tokens(sequence));
            let got = bits(batch.logits(sequence).unwrap());
            assert!(got == want, "{case} {kv:?}, call {call}, sequence {sequence}");
        }
    }
}

#[test]
fn generating_together_with_windows() {
    for (case, model) in windowed() {
        let all = tokens(&model, 500);
        let sampler = |seed| SamplerOptions { temperature: 0.8, seed, ..SamplerOptions::default() };
        let requests: Vec<_> = [300, 2, 45, 290, 120, 16, 17]
            .into_iter()
            .zip(0..)
            .map(|(prompt, seed)| Request {
                prompt: all[..prompt].to_vec(),
                options: GenerateOptions {
                    max_tokens: [150, 20][seed % 2],
                    sampler: sampler(seed as u64),
                    ..Default::default()
                },
            })
            .collect();
        let options = SessionOptions { context: Some(460), chunk: 21, ..Default::default() };
        let mut batch = model.batch(&options, 3).unwrap();
        let mut texts = vec![Vec::new(); requests.len()];
        let results = generate(&mut batch, &requests, |request, token| {
            texts[request].push(token);
            ControlFlow::Continue(())
        });
        results.unwrap().into_iter().for_each(|result| assert!(result.is_ok()));
        for (request, text) in requests.iter().zip(texts) {
            let mut session = model.session(&options).unwrap();
            let mut want = Vec::new();
            generate_tokens(&mut session, &request.prompt, &request.options, |token| {
                want.push(token);
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(text, want, "{case}, a prompt of {}", request.prompt.len());
        }
    }
}

#[test]
fn a_failed_evaluation_leaves_every_sequence() {
    let model = quantized(&golden("cerebras-odd-inner"), Scheme::Int4, 64);
    let vocab_size = model.config().vocab_size as u32;
    let options = SessionOptions { context: Some(8), chunk: 4, ..Default::default() };
    let mut batch = model.batch(&options, 2).unwrap();
    let on = |sequence, tokens| Append { sequence, tokens };
    batch.evaluate(&[on(0, &[1, 2]), on(1, &[3])]).unwrap();
    let fails = |batch: &mut Batch, appends: &[Append]| batch.evaluate(appends).unwrap_err();
    assert!(matches!(fails(&mut batch, &[]), Error::NoTokens));
    assert!(matches!(fails(&mut batch, &[on(0, &[4]), on(1, &[])]), Error::NoTokens));
    let bad = [vocab_size];
    let error = fails(&mut batch, &[on(0, &[4]), on(1, &bad)]);
    assert!(matches!(error, Error::TokenOutOfRange { .. }));
    let error = fails(&mut batch, &[on(0, &[4; 7])]);
    assert!(matches!(error, Error::ContextFull { position: 2, tokens: 7, context: 8 }));
    for appends in [[on(0, &[4]), on(0, &[5])], [on(0, &[4]), on(2, &[5])]] {
        assert!(matches!(fails(&mut batch, &appends), Error::Option { name: "sequence", .. }));
    }
    assert!(matches!(batch.rewind(1, 2), Err(Error::Rewind { target: 2, position: 1 })));
    assert_eq!([batch.position(0), batch.position(1)], [2, 1]);
    batch.evaluate(&[on(1, &[5]), on(0, &[6])]).unwrap();
    for (sequence, tokens) in [(0, &[1, 2, 6][..]), (1, &[3, 5])] {
        let want = logits_alone(&model, &SessionOptions::default(), tokens);
        assert!(bits(batch.logits(sequence).unwrap()) == want);
    }
    let named = |batch: Result<Batch, Error>| match batch.err().expect("must be refused") {
        Error::Option { name, .. } => name,
        other => panic!("{other}"),
    };
    assert_eq!(named(model.batch(&options, 0)), "batch");
    assert_eq!(named(model.batch(&options, 100_000)), "batch");
}

#[test]
fn generating_together_gives_the_texts_of_each_alone() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let vocab_size = model.config().vocab_size as u32;
    let prompts = sequences(&model, 100);
    let mut requests: Vec<_> = (0..12)
        .map(|i| {
            let sampler = SamplerOptions {
                temperature: if i % 3 == 0 { 0.0 } else { 0.9 },
                repetition_penalty: if i % 2 == 0 { 1.0 } else { 1.2 },
                top_p: 0.9,
                seed: i as u64,
                ..Default::default()
            };
            let options = GenerateOptions {
                max_tokens: [0, 1, 30, 200][i % 4],
                sampler,
                ..Default::default()
            };
            Request { prompt: prompts[i % prompts.len()].clone(), options }
        })
        .collect();
    requests[3].prompt.clear();
    requests[5].prompt.push(vocab_size);
    requests[6].prompt = vec![0; 200];
    requests[7].options.sampler.top_p = 7.0;
    let stop_at = |request: usize, tokens: usize| match (request, tokens) {
        (10, 5) => ControlFlow::Break(StopReason::StopString),
        _ => ControlFlow::Continue(()),
    };
    for (sequences, threads, chunk) in [(1, 1, 64), (3, 2, 16), (8, 2, 4)] {
        let options = SessionOptions { context: Some(120), threads, chunk, ..Default::default() };
        let mut batch = model.batch(&options, sequences).unwrap();
        let mut texts = vec![Vec::new(); requests.len()];
        let results = generate(&mut batch, &requests, |request, token| {
            texts[request].push(token);
            stop_at(request, texts[request].len())
        })
        .unwrap();
        for (i, (request, result)) in requests.iter().zip(results).enumerate() {
            let mut session = model.session(&options).unwrap();
            let mut want = Vec::new();
            let alone = generate_tokens(&mut session, &request.prompt, &request.options, |token| {
                want.push(token);
                stop_at(i, want.len())
            });
            assert_eq!(texts[i], want, "request {i} of {sequences} at a time");
            match (result, alone) {
                (Ok(a), Ok(b)) => {
                    assert_eq!(a.stop_reason, b.stop_reason, "request {i}");
                    assert_eq!((a.prompt_tokens, a.tokens), (b.prompt_tokens, b.tokens));
                }
                (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
                (a, b) => panic!("request {i}: {a:?} and {b:?}"),
            }
        }
    }
}

/// Log-probabilities of a continuation's tokens, from the logits of an evaluation of its own.
fn scored_alone(model: &Model, kv: KvType, prompt: &[u32], continuation: &[u32]) -> Vec<u64> {
    let options = SessionOptions { kv, logits: LogitsFor::All, ..Default::default() };
    let mut session = model.session(&options).unwrap();
    let mut scores = Vec::new();
    session
        .evaluate_each(&[prompt, continuation].concat(), |position, logits| {
            let next = (position + 1).checked_sub(prompt.len()).and_then(|i| continuation.get(i));
            if let Some(&next) = next {
                scores.push(f64::from(logits[next as usize]) - log_sum_exp(logits));
            }
        })
        .unwrap();
    scores.into_iter().map(f64::to_bits).collect()
}

/// Sequences with shared beginnings of all lengths, one a beginning of another, two equal.
fn continuations(model: &Model) -> Vec<Vec<u32>> {
    let t = tokens(model, 60);
    let mut all = vec![t[..1].to_vec(), t[..4].to_vec(), t[..9].to_vec(), t[..4].to_vec()];
    for i in 0..20 {
        let shared = [0, 1, 2, 3, 8][i % 5];
        all.push([&t[..shared], &t[10 + i..10 + i + 1 + i % 7]].concat());
    }
    all
}

#[test]
fn a_tree_has_the_bits_of_each_continuation_alone() {
    for case in [demo(), golden("cerebras-odd-inner")] {
        let model = quantized(&case, Scheme::Int4, 64);
        let case = case.display().to_string();
        // The tree lies across the border of a segment, if the model has so many positions.
        let lengths = [1, 30, 252].into_iter().filter(|n| n + 9 <= model.config().n_positions);
        check_tree(&model, &continuations(&model), lengths, &case);
    }
}

#[test]
fn trees_of_modern_networks() {
    for (case, model) in unlimited() {
        check_tree(&model, &continuations(&model), [30], case);
    }
}

/// Trees deeper than a window, behind prompts that a cache of a window has wrapped around.
#[test]
fn trees_with_windows() {
    for (case, model) in windowed() {
        let mut continuations = continuations(&model);
        let deep = tokens(&model, 400)[300..].to_vec();
        for shared in [1, 16, 45] {
            continuations.push([&deep[..shared], &deep[70 - shared..][..20]].concat());
        }
        check_tree(&model, &continuations, [1, 30, 252, 530], case);
    }
}

fn check_tree(
    model: &Model,
    continuations: &[Vec<u32>],
    prompts: impl IntoIterator<Item = usize>,
    case: &str,
) {
    let tree = Continuations::new(continuations).unwrap();
    for prompt in prompts.into_iter().map(|n| tokens(model, 600)[600 - n..].to_vec()) {
        for kv in [KvType::F16, KvType::Int8] {
            let want: Vec<_> =
                continuations.iter().map(|c| scored_alone(model, kv, &prompt, c)).collect();
            for (threads, chunk, logits) in [
                (1, 64, LogitsFor::All),
                (2, 7, LogitsFor::All),
                (3, 500, LogitsFor::All),
                (2, 64, LogitsFor::Last),
                (1, 1, LogitsFor::Last),
            ] {
                let options = SessionOptions { kv, threads, chunk, logits, ..Default::default() };
                let mut session = model.session(&options).unwrap();
                session.evaluate(&prompt[..prompt.len() / 2 + 1]).unwrap();
                session.rewind(prompt.len() / 2).unwrap();
                let scores = session.score(&prompt[prompt.len() / 2..], &tree).unwrap();
                for (i, want) in want.iter().enumerate() {
                    let got: Vec<_> = scores.tokens(i).into_iter().map(f64::to_bits).collect();
                    let prompt = prompt.len();
                    assert_eq!(got, *want, "{case}, {prompt}, continuation {i}, {options:?}");
                }
                // The session goes on as if nothing but the prompt had been evaluated.
                assert_eq!(session.tokens(), prompt);
                assert!(session.last_logits().is_err());
                let again = session.score(&[], &tree).unwrap();
                assert_eq!(again.tokens(5)[0].to_bits(), want[5][0]);
                let alone = SessionOptions { kv, ..Default::default() };
                let all = [&prompt[..], &continuations[7]].concat();
                let got = bits(session.evaluate(&continuations[7]).unwrap());
                assert!(got == logits_alone(model, &alone, &all), "{case}");
            }
        }
    }
}

#[test]
fn scores_on_every_instruction_set_and_their_errors() {
    let model = quantized(&golden("cerebras-17-heads"), Scheme::Int8, 32);
    let continuations = continuations(&model);
    let tree = Continuations::new(&continuations).unwrap();
    let prompt = tokens(&model, 20);
    let totals = Isa::available().map(|isa| {
        let options = SessionOptions { isa: Some(isa), threads: 2, ..Default::default() };
        let mut session = model.session(&options).unwrap();
        let scores = session.score(&prompt, &tree).unwrap();
        (0..tree.len()).map(|i| scores.log_probability(i).to_bits()).collect::<Vec<_>>()
    });
    let totals: Vec<_> = totals.collect();
    assert!(totals.iter().all(|total| *total == totals[0]));

    let mut session =
        model.session(&SessionOptions { context: Some(29), ..Default::default() }).unwrap();
    session.evaluate(&prompt[..10]).unwrap();
    // 13 of the longest continuation's 14 tokens are evaluated.
    let error = session.score(&prompt[..7], &tree).unwrap_err();
    assert!(
        matches!(error, Error::ContextFull { position: 10, tokens: 20, context: 29 }),
        "{error}"
    );
    assert!(session.score(&prompt[..6], &tree).is_ok());
    session.rewind(10).unwrap();
    // A token that is only looked up must exist, too.
    let vocab_size = model.config().vocab_size as u32;
    let bad = Continuations::new(&[[1, vocab_size]]).unwrap();
    assert!(matches!(session.score(&[1], &bad), Err(Error::TokenOutOfRange { .. })));
    assert!(matches!(session.score(&[], &bad), Err(Error::TokenOutOfRange { .. })));
    assert_eq!(session.tokens(), &prompt[..10]);
    // An empty text begins behind the end-of-text token.
    session.reset();
    let end_of_text = model.config().eos_token_id.unwrap();
    let one = Continuations::new(&[[1, 2, 3]]).unwrap();
    let first = session.score(&[], &one).unwrap().tokens(0);
    assert_eq!(session.tokens(), [end_of_text]);
    session.reset();
    assert_eq!(first, session.score(&[end_of_text], &one).unwrap().tokens(0));
}

#[test]
fn embeddings_do_not_depend_on_how_they_are_computed() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let text = tokens(&model, 50);
    let embed = |options: &SessionOptions, before: usize, pooling| {
        let mut session = model.session(options).unwrap();
        if before > 0 {
            session.evaluate(&text[..before]).unwrap();
        }
        let mut embedding = vec![0.0; model.config().n_embd];
        session.embed(&text[before..], pooling, &mut embedding).unwrap();
        assert_eq!(session.tokens(), text);
        assert!(session.last_logits().is_err());
        let length: f64 = embedding.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
        bits(&embedding)
    };
    let base = SessionOptions::default();
    for pooling in [Pooling::Mean, Pooling::Last] {
        let want = embed(&base, 0, pooling);
        for (threads, chunk) in [(2, 7), (3, 1), (1, 50)] {
            let options = SessionOptions { threads, chunk, ..base.clone() };
            assert!(embed(&options, 0, pooling) == want, "{pooling:?}, {threads}, {chunk}");
        }
    }
    let last = embed(&base, 0, Pooling::Last);
    assert!(embed(&base, 0, Pooling::Mean) != last);
    // Of one token, both are the same, and the last one's does not depend on where a text was cut.
    assert!(embed(&base, 49, Pooling::Mean) == last);
    assert!(embed(&base, 20, Pooling::Last) == last);
}
