//! What a session promises: errors that leave it usable, memory as planned, no allocation per token.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cerebellum::batch::Append;
use cerebellum::format::ModelBytes;
use cerebellum::generate::{
    GenerateOptions, Generator, StopReason, TextGenerator, generate_text, generate_tokens,
};
use cerebellum::quant::Scheme;
use cerebellum::sampler::SamplerOptions;
use cerebellum::{Access, DraftCounts, Error, KvType, Model, Session, SessionOptions};
use common::{bits, demo, golden, quantize_to, quantized, tokens};

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands every call on to the system's allocator, whose contract is the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more.
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        let _ = BYTES.try_with(|n| n.set(n.get() + layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often, and how much, `work` allocates on this thread.
fn allocations<T>(work: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = (ALLOCATIONS.get(), BYTES.get());
    let result = work();
    (ALLOCATIONS.get() - before.0, BYTES.get() - before.1, result)
}

fn small() -> Model {
    quantized(&golden("cerebras-odd-inner"), Scheme::Int4, 64)
}

/// `Session` has no `Debug`, which `unwrap_err` would need.
fn session_error(model: &Model, options: &SessionOptions) -> Error {
    model.session(options).err().expect("must be refused")
}

#[test]
fn errors_leave_the_session_usable() {
    let model = small();
    let vocab_size = model.config().vocab_size;
    let prompt = tokens(&model, 10);
    let options = SessionOptions { context: Some(12), chunk: 4, ..Default::default() };
    let mut session = model.session(&options).unwrap();
    let want = bits(session.evaluate(&prompt).unwrap());

    session.reset();
    session.evaluate(&prompt[..6]).unwrap();
    assert!(matches!(session.evaluate(&[]), Err(Error::NoTokens)));
    // The bad token comes in the second chunk: nothing of the first may be kept.
    let bad = [0, 1, 2, 3, vocab_size as u32];
    let error = session.evaluate(&bad).unwrap_err();
    assert!(matches!(error, Error::TokenOutOfRange { token, .. } if token as usize == vocab_size));
    assert!(matches!(session.evaluate(&[u32::MAX]), Err(Error::TokenOutOfRange { .. })));
    let error = session.evaluate(&[0; 7]).unwrap_err();
    assert!(matches!(error, Error::ContextFull { position: 6, tokens: 7, context: 12 }));
    assert!(matches!(session.rewind(7), Err(Error::Rewind { target: 7, position: 6 })));
    assert_eq!(session.position(), 6);
    assert_eq!(bits(session.evaluate(&prompt[6..]).unwrap()), want);

    session.evaluate(&[1, 2]).unwrap();
    assert!(matches!(session.evaluate(&[1]), Err(Error::ContextFull { .. })));
    session.rewind(6).unwrap();
    assert_eq!(bits(session.evaluate(&prompt[6..]).unwrap()), want);
}

#[test]
fn options_out_of_range_are_named() {
    let model = small();
    let named = |options: SessionOptions| match session_error(&model, &options) {
        Error::Option { name, .. } => name,
        other => panic!("{other}"),
    };
    let base = SessionOptions::default;
    assert_eq!(named(SessionOptions { context: Some(0), ..base() }), "context");
    assert_eq!(named(SessionOptions { context: Some(97), ..base() }), "context");
    assert_eq!(named(SessionOptions { threads: 0, ..base() }), "threads");
    assert_eq!(named(SessionOptions { threads: 100_000, ..base() }), "threads");
    assert_eq!(named(SessionOptions { chunk: 0, ..base() }), "chunk");
    // A chunk beyond the context costs nothing.
    let large = model.plan(&SessionOptions { chunk: usize::MAX, ..base() }).unwrap();
    assert_eq!(large, model.plan(&SessionOptions { chunk: 96, ..base() }).unwrap());
}

#[test]
fn a_session_allocates_what_was_planned() {
    let model = small();
    for kv in [KvType::F16, KvType::Int8] {
        let options = SessionOptions { kv, ..Default::default() };
        let plan = model.plan(&options).unwrap();
        assert_eq!(plan.total_private_bytes, plan.kv_bytes + plan.scratch_bytes);
        let (_, bytes, _session) = allocations(|| model.session(&options).unwrap());
        let beside = bytes - plan.total_private_bytes;
        assert!(beside < 1024, "{beside} bytes beside the plan");
    }
    let plan = |kv| model.plan(&SessionOptions { kv, ..Default::default() }).unwrap().kv_bytes;
    // [2 layers, 3 heads, 96 positions, 32 dimensions], keys and values.
    assert_eq!(plan(KvType::F16), 2 * 3 * 96 * 32 * 2 * 2);
    assert_eq!(plan(KvType::Int8), 2 * 3 * 96 * (32 + 4) * 2);
}

#[test]
fn evaluating_and_sampling_allocate_nothing_per_token() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let tokenizer = model.tokenizer().unwrap();
    for threads in [1, 2] {
        let options = SessionOptions { threads, ..Default::default() };
        let mut session = model.session(&options).unwrap();
        let prompt = tokens(&model, 100);
        let (n, _, _) = allocations(|| session.evaluate(&prompt).map(drop).unwrap());
        assert_eq!(n, 0, "evaluating a prompt, {threads} threads");

        session.reset();
        let sampler = SamplerOptions {
            temperature: 0.9,
            top_k: 50,
            top_p: 0.95,
            min_p: 0.01,
            repetition_penalty: 1.1,
            ..Default::default()
        };
        let generate = GenerateOptions {
            max_tokens: 60,
            sampler,
            stop: vec!["never written".to_owned()],
            ignore_end_of_text: true,
        };
        let mut counts = Vec::with_capacity(200);
        let table = tokenizer.table();
        generate_text(&mut session, table, &prompt, &generate, |_| {
            counts.push(ALLOCATIONS.get());
            ControlFlow::Continue(())
        })
        .unwrap();
        // The first pieces may still grow the text buffers.
        let settled = &counts[counts.len() / 2..];
        assert!(settled.len() > 10);
        assert_eq!(settled.first(), settled.last(), "generating text, {threads} threads");
    }
}

#[test]
fn a_batch_allocates_what_was_planned_and_nothing_per_token() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    for threads in [1, 2] {
        let options = SessionOptions { threads, chunk: 16, ..Default::default() };
        let plan = model.plan_batch(&options, 3).unwrap();
        assert_eq!(plan.kv_bytes, 3 * model.plan(&options).unwrap().kv_bytes);
        let (_, bytes, mut batch) = allocations(|| model.batch(&options, 3).unwrap());
        if threads == 1 {
            let beside = bytes - plan.total_private_bytes;
            assert!(beside < 8192, "{beside} bytes beside the plan");
        }
        let prompt = tokens(&model, 40);
        let sampler = SamplerOptions { temperature: 0.9, top_p: 0.9, ..Default::default() };
        let (n, _, _) = allocations(|| {
            batch
                .evaluate(&[
                    Append { sequence: 0, tokens: &prompt },
                    Append { sequence: 2, tokens: &prompt[7..] },
                ])
                .unwrap();
            for _ in 0..5 {
                let next = [0, 2].map(|sequence| [batch.sample(sequence, &sampler).unwrap()]);
                let appends = [
                    Append { sequence: 0, tokens: &next[0] },
                    Append { sequence: 2, tokens: &next[1] },
                ];
                batch.evaluate(&appends).unwrap();
            }
        });
        assert_eq!(n, 0, "{threads} threads");
    }
}

/// Generated tokens, and what became of the guesses.
fn generated(
    model: &Model,
    options: &SessionOptions,
    prompt: &[u32],
    generate: &GenerateOptions,
) -> (Vec<u32>, DraftCounts) {
    let mut session = model.session(options).unwrap();
    let mut text = Vec::new();
    let generation = generate_tokens(&mut session, prompt, generate, |token| {
        text.push(token);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(generation.tokens, text.len());
    assert_eq!(session.tokens()[prompt.len()..], text[..text.len().saturating_sub(1)]);
    (text, session.draft_counts())
}

/// Prompts that end like they begin, whose continuation is likely guessed right, and some that do not.
fn prompts(model: &Model) -> Vec<Vec<u32>> {
    let tokenizer = model.tokenizer().unwrap();
    let copied = "English: I am hungry.\nFrench: J'ai faim.\n\n";
    [
        copied.repeat(4) + "English: I am",
        "the king and the queen, the king and the queen, the king".to_owned(),
        "Once upon a time there was a poor woodcutter. Once upon a time".to_owned(),
        "Utterance: set an alarm for six\nIntent: alarm\n\nUtterance: set an alarm".to_owned(),
    ]
    .iter()
    .map(|text| tokenizer.encode(text, Default::default()).unwrap())
    .collect()
}

#[test]
fn guesses_change_no_text() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let penalized = SamplerOptions { repetition_penalty: 1.3, ..Default::default() };
    let greedy = [SamplerOptions::default(), penalized];
    let drawn = (0..6).map(|seed| SamplerOptions {
        temperature: if seed % 2 == 0 { 0.7 } else { 0.2 },
        top_k: 40,
        top_p: 0.95,
        repetition_penalty: if seed < 3 { 1.0 } else { 1.1 },
        seed,
        ..Default::default()
    });
    let mut counts = Vec::new();
    for (i, sampler) in greedy.into_iter().chain(drawn).enumerate() {
        for (j, prompt) in prompts(&model).iter().enumerate() {
            let generate = GenerateOptions {
                max_tokens: 60,
                sampler: sampler.clone(),
                ignore_end_of_text: true,
                ..Default::default()
            };
            let kv = if j % 2 == 0 { KvType::F16 } else { KvType::Int8 };
            let base = SessionOptions { kv, threads: 1 + i % 2, draft: 0, ..Default::default() };
            let (want, none) = generated(&model, &base, prompt, &generate);
            assert_eq!(none, DraftCounts::default());
            for draft in [4, 15] {
                let options = SessionOptions { draft, ..base.clone() };
                let (got, count) = generated(&model, &options, prompt, &generate);
                assert_eq!(got, want, "draft {draft}, prompt {j}, sampler {i}");
                counts.push(count);
            }
        }
    }
    let drafted: u64 = counts.iter().map(|c| c.drafted).sum();
    let accepted: u64 = counts.iter().map(|c| c.accepted).sum();
    println!("{accepted} of {drafted} guesses were right");
    assert!(accepted > 50 && drafted > accepted, "{accepted} of {drafted}: nothing was tried");
}

#[test]
fn guesses_leave_no_trace_in_a_session() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let text: Vec<u32> = tokens(&model, 6).repeat(8);
    for context in [30, 200] {
        let base = SessionOptions { context: Some(context), ..Default::default() };
        let mut plain = model.session(&SessionOptions { draft: 0, ..base.clone() }).unwrap();
        let mut guessing = model.session(&SessionOptions { draft: 7, ..base.clone() }).unwrap();
        for (i, &token) in text.iter().enumerate().take(context) {
            // Now and then another token than the guess comes, or a rewind.
            let token = if i % 11 == 10 { token ^ 1 } else { token };
            if i % 13 == 12 {
                for session in [&mut plain, &mut guessing] {
                    session.rewind(i - 2).unwrap();
                    session.evaluate(&text[i - 2..i]).unwrap();
                }
            }
            let want = bits(plain.evaluate(&[token]).unwrap());
            assert_eq!(bits(guessing.evaluate(&[token]).unwrap()), want, "token {i}");
            assert_eq!(guessing.tokens(), plain.tokens());
            if i % 7 == 6 {
                let mut saved = [Vec::new(), Vec::new()];
                plain.save(&mut saved[0]).unwrap();
                guessing.save(&mut saved[1]).unwrap();
                assert!(saved[0] == saved[1], "saved at token {i}");
            }
        }
        assert!(guessing.draft_counts().accepted > 0);
    }
    let error = session_error(&model, &SessionOptions { draft: 16, ..Default::default() });
    assert!(matches!(error, Error::Option { name: "draft", .. }), "{error}");
}

#[test]
fn mapped_read_and_borrowed_models_are_the_same() {
    #[repr(C, align(64))]
    struct Aligned([u8; 1 << 20]);
    static ALIGNED: OnceLock<Box<Aligned>> = OnceLock::new();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.cbl");
    quantize_to(&path, &golden("cerebras-odd-inner"), Scheme::Int8, 128);
    let bytes = std::fs::read(&path).unwrap();
    let mut aligned = Box::new(Aligned([0; 1 << 20]));
    aligned.0[..bytes.len()].copy_from_slice(&bytes);
    let aligned = &ALIGNED.get_or_init(|| aligned).0[..bytes.len()];

    let mut logits =
        [Model::open(&path, Access::Map), Model::open(&path, Access::Read), Model::borrow(aligned)]
            .map(|model| {
                let mut session = model.unwrap().session(&SessionOptions::default()).unwrap();
                bits(session.evaluate(&[1, 2, 3]).unwrap())
            });
    logits.sort();
    assert_eq!(logits[0], logits[2]);

    let error = ModelBytes::borrow(&aligned[1..]).err().unwrap();
    assert!(matches!(error, Error::Misaligned { offset: 1, .. }));
}

#[test]
fn a_mapped_file_that_changes_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.cbl");
    quantize_to(&path, &golden("cerebras-odd-inner"), Scheme::Int8, 128);
    let open = |access| {
        let model = Model::open(&path, access).unwrap();
        model.session(&SessionOptions::default()).unwrap()
    };
    let (mut mapped, mut read) = (open(Access::Map), open(Access::Read));
    let want = bits(read.evaluate(&[1]).unwrap());

    // Replaced by renaming: the map keeps the old file.
    let other = directory.path().join("other.cbl");
    std::fs::copy(&path, &other).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(bits(mapped.evaluate(&[1]).unwrap()), want);

    // Rewritten in place, to another length.
    let mut mapped = open(Access::Map);
    let longer = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    longer.set_len(longer.metadata().unwrap().len() + 1).unwrap();
    assert!(matches!(mapped.evaluate(&[1]), Err(Error::FileChanged { .. })));
    read.reset();
    assert_eq!(bits(read.evaluate(&[1]).unwrap()), want);
}

/// Overwrites one float32 of a tensor in a copy of a model.
fn damaged(tensor: &str, value: f32) -> Model {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.cbl");
    quantize_to(&path, &golden("cerebras-odd-inner"), Scheme::Int8, 128);
    let model = Model::open(&path, Access::Read).unwrap();
    let start = model.layout().get(tensor).unwrap().range.start;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[start + 20..start + 24].copy_from_slice(&value.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    Model::open(&path, Access::Read).unwrap()
}

#[test]
fn non_finite_weights_are_an_error() {
    // Where an infinity acts as the limit of large numbers instead (docs/numbers.md, section 1), only
    // NaN is tried: in the MLP, and in the keys, which lie in the middle of c_attn's outputs.
    let infinite = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].as_slice();
    for (tensor, values) in [
        ("h.0.ln_1.weight", infinite),
        ("h.0.attn.c_attn.bias", infinite),
        ("h.0.attn.c_proj.bias", infinite),
        ("h.1.mlp.c_fc.bias", &[f32::NAN, f32::INFINITY]),
        ("ln_f.bias", infinite),
    ] {
        for &value in values {
            let model = damaged(tensor, value);
            assert_eq!(model.verify().unwrap()[0].tensor, tensor);
            let mut session = model.session(&SessionOptions::default()).unwrap();
            let error = session.evaluate(&[1, 2, 3]).unwrap_err();
            assert!(matches!(error, Error::NonFinite { position: 2 }), "{tensor}: {error}");
            assert_eq!(session.position(), 0);
        }
    }
}

#[test]
fn generation_stops_for_each_reason() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let tokenizer = model.tokenizer().unwrap();
    let table = tokenizer.table();
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let intent = tokenizer.encode("Utterance: set an alarm for six\nIntent:", Default::default());
    let intent = intent.unwrap();
    let run = |session: &mut Session, prompt: &[u32], options: &GenerateOptions| {
        session.reset();
        let mut text = String::new();
        let generation = generate_text(session, table, prompt, options, |piece| {
            text.push_str(piece);
            if text.len() < 200 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        (generation.unwrap(), text)
    };
    let base = GenerateOptions::default();

    let (generation, text) = run(&mut session, &intent, &base);
    assert_eq!((generation.stop_reason, text.as_str()), (StopReason::EndOfText, " alarm\n"));
    assert_eq!(generation.prompt_tokens, intent.len());

    let (generation, _) =
        run(&mut session, &[], &GenerateOptions { max_tokens: 3, ..base.clone() });
    assert_eq!((generation.stop_reason, generation.tokens), (StopReason::MaxTokens, 3));
    assert_eq!(generation.prompt_tokens, 1);

    let stop = GenerateOptions { stop: vec!["arm".to_owned()], ..base.clone() };
    let (generation, text) = run(&mut session, &intent, &stop);
    assert_eq!((generation.stop_reason, text.as_str()), (StopReason::StopString, " al"));

    let endless = GenerateOptions { max_tokens: 400, ignore_end_of_text: true, ..base.clone() };
    let (generation, text) = run(&mut session, &[], &endless);
    assert_eq!(generation.stop_reason, StopReason::Cancelled);
    assert!(text.len() >= 200);

    let context = SessionOptions { context: Some(20), ..Default::default() };
    let mut short = model.session(&context).unwrap();
    let (generation, _) = run(&mut short, &intent, &endless);
    assert_eq!(generation.stop_reason, StopReason::ContextFull);
    // The last token chosen needs no position of its own.
    assert_eq!(generation.tokens, 20 - intent.len() + 1);
}

#[test]
fn the_same_seed_gives_the_same_text_on_any_threads() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let sampler = SamplerOptions { temperature: 1.0, top_p: 0.9, seed: 11, ..Default::default() };
    let options = GenerateOptions { max_tokens: 40, sampler, ..Default::default() };
    let texts = [1, 2, 3].map(|threads| {
        let mut session = model.session(&SessionOptions { threads, ..Default::default() }).unwrap();
        let mut text = Vec::new();
        generate_tokens(&mut session, &[], &options, |token| {
            text.push(token);
            ControlFlow::Continue(())
        })
        .unwrap();
        text
    });
    assert!(texts[0].len() > 10);
    assert!(texts.iter().all(|text| *text == texts[0]));
}

#[test]
fn sessions_on_one_model_and_one_team_do_not_disturb_each_other() {
    use cerebellum::threads::{Executor, Team};
    let model = quantized(&demo(), Scheme::Int4, 64);
    let executor = Arc::new(Executor::Team(Team::new(2).unwrap()));
    let prompt = tokens(&model, 30);
    let options = SessionOptions::default();
    let want = bits(model.session(&options).unwrap().evaluate(&prompt).unwrap());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut session = model.session_on(&options, executor.clone()).unwrap();
                for _ in 0..5 {
                    session.reset();
                    let got = bits(session.evaluate(&prompt).unwrap());
                    results.lock().unwrap().push(got);
                }
            });
        }
    });
    assert!(results.into_inner().unwrap().iter().all(|got| *got == want));
}

#[test]
fn generators_give_what_functions_are_handed() {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let tokenizer = model.tokenizer().unwrap();
    let (prompt, mut session) = (tokens(&model, 5), model.session(&Default::default()).unwrap());
    let base = GenerateOptions { max_tokens: 30, ignore_end_of_text: true, ..Default::default() };
    let mut handed = Vec::new();
    let expected = generate_tokens(&mut session, &prompt, &base, |token| {
        handed.push(token);
        ControlFlow::Continue(())
    });
    let expected = expected.unwrap();
    session.reset();
    let (mut generator, mut asked) =
        (Generator::new(&mut session, &prompt, &base, None).unwrap(), Vec::new());
    assert_eq!((generator.prompt_tokens(), generator.stop_reason()), (5, None));
    while let Some(step) = generator.next_step().unwrap() {
        let logits = step.logits.unwrap();
        assert!(logits.iter().all(|&logit| logit <= logits[step.token as usize]));
        asked.push(step.token);
    }
    assert!(generator.next_step().unwrap().is_none());
    let generation = generator.end();
    assert_eq!(asked, handed);
    assert_eq!(
        (generation.tokens, generation.stop_reason, generation.pending),
        (expected.tokens, expected.stop_reason, expected.pending)
    );

    // Text, whatever stops it; left early it is cancelled, and goes on from the pending token.
    let mut bytes = Vec::new();
    tokenizer.table().decode_into(&handed, &mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let at = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    let stop = vec![text[at..].chars().take(4).collect()];
    for options in [base.clone(), GenerateOptions { stop, ..base.clone() }] {
        session.reset();
        let mut handed = String::new();
        generate_text(&mut session, tokenizer.table(), &prompt, &options, |piece| {
            handed.push_str(piece);
            ControlFlow::Continue(())
        })
        .unwrap();
        session.reset();
        let table = tokenizer.table();
        let mut generator =
            TextGenerator::new(&mut session, table, &prompt, &options, None).unwrap();
        let mut asked = String::new();
        while let Some(piece) = generator.next_text().unwrap() {
            assert!(!piece.is_empty());
            asked.push_str(piece);
        }
        assert_eq!(asked, handed);
        let is_cut = generator.end().stop_reason == StopReason::StopString;
        assert_eq!(is_cut, !options.stop.is_empty());
    }
    session.reset();
    let mut generator = Generator::new(&mut session, &prompt, &base, None).unwrap();
    let first: Vec<u32> = (0..3).map(|_| generator.next_step().unwrap().unwrap().token).collect();
    let left = generator.end();
    assert_eq!((left.stop_reason, left.tokens), (StopReason::Cancelled, 3));
    assert_eq!((left.pending, &first[..]), (first.last().copied(), &handed[..3]));
    assert!(left.prompt_time > Duration::ZERO && left.decode_time > Duration::ZERO);
}

/// A checksum is no signature: whoever writes the file can make it match.
#[test]
fn saved_logits_that_are_not_finite_are_refused() {
    let model = quantized(&golden("cerebras-17-heads"), Scheme::Int4, 64);
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let given = tokens(&model, 3);
    session.evaluate(&given).unwrap();
    let mut saved = Vec::new();
    session.save(&mut saved).unwrap();
    let logits = 56 + given.len() * 4;
    let last = logits + (model.config().vocab_size - 1) * 4;
    for (at, bad) in [(logits, f32::NAN), (last, f32::INFINITY), (last, f32::NEG_INFINITY)] {
        let mut forged = saved.clone();
        forged[at..at + 4].copy_from_slice(&bad.to_le_bytes());
        let end = forged.len() - 4;
        let checksum = crc32fast::hash(&forged[..end]);
        forged[end..].copy_from_slice(&checksum.to_le_bytes());
        let mut other = model.session(&SessionOptions::default()).unwrap();
        other.evaluate(&given[..1]).unwrap();
        let error = other.restore_bytes(&forged).unwrap_err();
        assert!(matches!(error, Error::SavedSession("its logits are not finite")), "{error}");
        // It is as it was.
        assert_eq!(other.tokens(), &given[..1]);
        assert!(other.sample(&SamplerOptions::default()).is_ok());
    }
    session.restore_bytes(&saved).unwrap();
}

/// A file's finite logits may be as large as a float can be.
#[test]
fn huge_logits_give_tokens_by_any_options() {
    let file = "tests/data/hostile/model/hugelogit.cbl";
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let model = Model::open(file, cerebellum::Access::Read).unwrap();
    let mut session = model.session(&SessionOptions::default()).unwrap();
    for (temperature, repetition_penalty, bias) in
        [(1.0, 1.1, 0.0), (1e-45, 0.01, -1000.0), (100.0, 100.0, 1000.0), (0.0, 0.01, 1000.0)]
    {
        let options = SamplerOptions {
            temperature,
            repetition_penalty,
            min_p: 0.05,
            top_p: 0.5,
            top_k: 2,
            logit_bias: vec![(0, bias)],
            ..Default::default()
        };
        session.reset();
        let mut token = 0;
        for _ in 0..session.context().min(8) {
            session.evaluate(&[token]).unwrap();
            token = session.sample(&options).unwrap();
            let within = session.sample_within(&options, &[0b10]).unwrap();
            assert_eq!(within, 1);
        }
    }
    let unknown = SamplerOptions { logit_bias: vec![(u32::MAX, 1.0)], ..Default::default() };
    let error = session.sample(&unknown).unwrap_err().to_string();
    assert!(error.contains("logit_bias: token id 4294967295 is not below"), "{error}");
}

#[test]
fn sessions_that_save_to_one_path_leave_whole_files() {
    const ROUNDS: usize = 150;
    let model = small();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("saved");
    let new = || model.session(&SessionOptions::default()).unwrap();
    let mut first = new();
    first.evaluate(&[1, 2, 3]).unwrap();
    first.save_file(&path).unwrap();
    let writing = std::sync::atomic::AtomicUsize::new(2);
    let reads = std::thread::scope(|scope| {
        for tokens in [&[1, 2, 3][..], &[4, 5, 6, 7, 8]] {
            let (path, writing) = (&path, &writing);
            let mut session = new();
            scope.spawn(move || {
                session.evaluate(tokens).unwrap();
                for _ in 0..ROUNDS {
                    session.save_file(path).unwrap();
                }
                writing.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        let (mut reader, mut reads) = (new(), 0);
        while writing.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            reader.restore_file(&path).unwrap();
            assert!([&[1, 2, 3][..], &[4, 5, 6, 7, 8]].contains(&reader.tokens()));
            reads += 1;
        }
        reads
    });
    assert!(reads > 10, "{reads}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn errors_of_saved_files_name_the_file() {
    let model = small();
    let mut session = model.session(&SessionOptions::default()).unwrap();
    session.evaluate(&[1, 2, 3]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("saved");
    let name = path.to_str().unwrap();
    let error = session.restore_file(&path).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("cannot open"), "{error}");
    session.save_file(&path).unwrap();
    let mut saved = std::fs::read(&path).unwrap();
    saved[70] ^= 1;
    std::fs::write(&path, saved).unwrap();
    let error = session.restore_file(&path).unwrap_err();
    assert!(
        matches!(&error, Error::Restore { source, .. } if matches!(**source, Error::SavedSession(_)))
    );
    assert!(error.to_string().contains(name) && error.to_string().contains("damaged"), "{error}");
    let error = session.save_file(path.join("below")).unwrap_err().to_string();
    assert!(error.contains(name), "{error}");
    assert_eq!(session.tokens(), [1, 2, 3]);
}

/// Reads and writes a byte or two at a time, as pipes and networks do.
struct Short<T>(T, usize);

impl<T> Short<T> {
    fn part(&mut self, bytes: usize) -> usize {
        self.1 += 1;
        bytes.min(1 + self.1 % 3)
    }
}

impl<T: std::io::Write> std::io::Write for Short<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let part = self.part(bytes.len());
        if self.1.is_multiple_of(5) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        self.0.write(&bytes[..part])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl<T: std::io::Read> std::io::Read for Short<T> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let part = self.part(bytes.len());
        if self.1.is_multiple_of(5) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        self.0.read(&mut bytes[..part])
    }
}

impl<T: std::io::Seek> std::io::Seek for Short<T> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn short_and_interrupted_reads_and_writes_are_continued() {
    let model = small();
    let mut session = model.session(&SessionOptions::default()).unwrap();
    session.evaluate(&[1, 2, 3]).unwrap();
    let (mut whole, mut parts) = (Vec::new(), Short(Vec::new(), 0));
    session.save(&mut whole).unwrap();
    session.save(&mut parts).unwrap();
    assert!(whole == parts.0);
    let logits = bits(session.last_logits().unwrap());
    session.reset();
    session.restore(&mut Short(std::io::Cursor::new(whole), 0)).unwrap();
    assert_eq!(bits(session.last_logits().unwrap()), logits);
}
