//! The numbers contract: the same bits whatever the instruction set, the threads, the chunks, and
//! whether keys come from the cache or are computed again.

mod common;
#[path = "emulation/random_models.rs"]
mod random_models;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use cerebellum::generate::{GenerateOptions, generate_tokens};
use cerebellum::kernels::Isa;
use cerebellum::quant::Scheme;
use cerebellum::score::Continuations;
use cerebellum::{Error, KvType, LogitsFor, Model, Pooling, Session, SessionOptions};
use common::{bits, demo, golden, quantized, tokens};
use random_models::random_file::Random;
use random_models::{unlimited, windowed};

const CACHES: [KvType; 2] = [KvType::F16, KvType::Int8];

/// Logits of every token, as bits.
fn all_logits(model: &Model, options: &SessionOptions, tokens: &[u32]) -> Vec<u32> {
    let options = SessionOptions { logits: LogitsFor::All, ..options.clone() };
    collect(&mut model.session(&options).unwrap(), tokens)
}

fn collect(session: &mut Session, tokens: &[u32]) -> Vec<u32> {
    let mut all = Vec::new();
    session.evaluate_each(tokens, |_, logits| all.extend(bits(logits))).unwrap();
    all
}

/// Evaluates `tokens` in many ways and compares with one thread, one chunk.
fn check(model: &Model, tokens: &[u32], kv: KvType) {
    check_threads_and_chunks(model, tokens, kv);
    check_isas(model, tokens, kv);
}

fn check_threads_and_chunks(model: &Model, tokens: &[u32], kv: KvType) {
    let base = SessionOptions { kv, chunk: tokens.len(), ..Default::default() };
    let want = all_logits(model, &base, tokens);
    for threads in [1, 2, 3, 4] {
        for chunk in [1, 7, 64, tokens.len()] {
            let options = SessionOptions { threads, chunk, ..base.clone() };
            let got = all_logits(model, &options, tokens);
            assert!(got == want, "{threads} threads, chunks of {chunk}, {kv:?}");
        }
    }
    check_cache(model, tokens, &base, &want);
}

/// Every instruction set that this processor supports gives the bits of the best one.
fn check_isas(model: &Model, tokens: &[u32], kv: KvType) {
    let base = SessionOptions { kv, threads: 2, ..Default::default() };
    let want = all_logits(model, &base, tokens);
    let others: Vec<Isa> = Isa::available().filter(|&isa| isa != Isa::best()).collect();
    println!("{} against {others:?}", Isa::best());
    for isa in others {
        let options = SessionOptions { isa: Some(isa), ..base.clone() };
        assert!(all_logits(model, &options, tokens) == want, "{isa}, {kv:?}");
    }
}

/// Keys from the cache, after a rewind that other tokens preceded, equal keys computed again.
fn check_cache(model: &Model, tokens: &[u32], base: &SessionOptions, want: &[u32]) {
    let options = SessionOptions { logits: LogitsFor::All, threads: 2, ..base.clone() };
    let mut session = model.session(&options).unwrap();
    let kept = tokens.len() / 3;
    let other: Vec<u32> = tokens.iter().rev().copied().collect();
    session.evaluate(&tokens[..kept]).unwrap();
    session.evaluate(&other[kept..]).unwrap();
    session.rewind(kept).unwrap();
    let got = collect(&mut session, &tokens[kept..]);
    assert!(got == want[want.len() - got.len()..], "after a rewind");
    session.reset();
    assert!(collect(&mut session, tokens) == want, "after a reset");
}

/// More positions than a segment of 256, so that segments merge.
fn check_past_one_segment(scheme: Scheme, group_size: usize) {
    let model = quantized(&demo(), scheme, group_size);
    let tokens = tokens(&model, 300);
    for kv in [KvType::F16, KvType::Int8] {
        check_threads_and_chunks(&model, &tokens, kv);
        // Emulated FMA is slow: a few tokens past the first segment are enough.
        check_isas(&model, &tokens[..260], kv);
    }
}

// Two tests, for two cores.
#[test]
fn demo_model_in_int4_past_one_segment() {
    check_past_one_segment(Scheme::Int4, 64);
}

#[test]
fn demo_model_in_int8_past_one_segment() {
    check_past_one_segment(Scheme::Int8, 128);
}

#[test]
fn odd_shapes() {
    for (case, scheme, group_size) in [
        ("cerebras-17-heads", Scheme::Int4, 32),
        ("cerebras-odd-inner", Scheme::Int4, 128),
        ("head80-bf16-sharded", Scheme::Int8, 64),
        ("inverse-layer-scale", Scheme::Int8, 32),
        ("unscaled-relu", Scheme::Int4, 64),
    ] {
        let model = quantized(&golden(case), scheme, group_size);
        for kv in [KvType::F16, KvType::Int8] {
            check(&model, &tokens(&model, 40), kv);
        }
    }
}

/// A record of the bits themselves: a change that alters every way of computing alike, or a processor
/// that differs from the one the record was made on, is caught here.
#[test]
fn logits_of_the_demo_model_are_recorded() {
    for (scheme, group_size, want) in
        [(Scheme::Int4, 64, 0xb258_230e), (Scheme::Int8, 128, 0x60b6_36b4)]
    {
        let model = quantized(&demo(), scheme, group_size);
        let tokens = tokens(&model, 300);
        let logits = all_logits(&model, &SessionOptions::default(), &tokens);
        let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
        let got = cerebellum::format::checksum(&bytes);
        assert_eq!(got, want, "{scheme:?}: {got:#x} instead of {want:#x}");
    }
}

/// When the last token's logits alone are wanted, the last layer leaves the other tokens out.
#[test]
fn evaluate_returns_the_last_token_s_logits() {
    for case in ["cerebras-odd-inner", "cerebras-17-heads", "head80-bf16-sharded", "unscaled-relu"]
    {
        let model = quantized(&golden(case), Scheme::Int8, 128);
        let tokens = tokens(&model, 20);
        let want = all_logits(&model, &SessionOptions::default(), &tokens);
        let vocab_size = model.config().vocab_size;
        for logits in [LogitsFor::Last, LogitsFor::All] {
            for (chunk, threads) in [(1, 1), (6, 2), (20, 3), (64, 1)] {
                let options = SessionOptions { logits, chunk, threads, ..Default::default() };
                let mut session = model.session(&options).unwrap();
                let got = bits(session.evaluate(&tokens).unwrap());
                let want = &want[want.len() - vocab_size..];
                assert!(got == want, "{case}, {logits:?}, chunks of {chunk}");
            }
        }
    }
}

#[test]
fn modern_networks() {
    for (case, model) in unlimited() {
        println!("{case}");
        for kv in CACHES {
            check(&model, &tokens(&model, 90), kv);
        }
    }
}

/// Long enough for the caches of windows to wrap.
#[test]
fn windows() {
    for (case, model) in windowed() {
        println!("{case}");
        for kv in CACHES {
            check_threads_and_chunks(&model, &tokens(&model, 500), kv);
        }
    }
}

/// So deep that attention of one token goes by segments, where heads do not come out even for the threads.
#[test]
fn single_tokens_after_many() {
    const BEFORE: usize = 1600;
    let models = windowed().into_iter().chain(unlimited());
    for (case, model) in models.filter(|(_, model)| model.config().n_positions > BEFORE + 9) {
        let text = tokens(&model, BEFORE + 9);
        for kv in CACHES {
            let after = |threads| -> Vec<u32> {
                let context = Some(text.len());
                let options =
                    SessionOptions { kv, threads, context, draft: 0, ..Default::default() };
                let mut session = model.session(&options).unwrap();
                session.evaluate(&text[..BEFORE]).unwrap();
                let each = |token| bits(session.evaluate(&[token]).unwrap());
                text[BEFORE..].iter().copied().flat_map(each).collect()
            };
            let want = after(1);
            for threads in [2, 3] {
                assert!(after(threads) == want, "{case}, {kv:?}, {threads} threads");
            }
        }
    }
}

/// The logits after `tokens`, by a session of its own that has room for all keys at once.
fn logits_of(model: &Model, kv: KvType, tokens: &[u32]) -> Vec<u32> {
    let options =
        SessionOptions { kv, context: Some(tokens.len()), chunk: 500, ..Default::default() };
    bits(model.session(&options).unwrap().evaluate(tokens).unwrap())
}

/// What the cache of a window no longer has is computed again.
#[test]
fn rewinding_past_a_window() {
    for (case, model) in windowed() {
        let text = tokens(&model, 800);
        let other = tokens(&model, 1000)[900..].to_vec();
        for kv in CACHES {
            for (chunk, threads, draft) in [(8, 1, 0), (100, 2, 4)] {
                let options = SessionOptions {
                    kv,
                    chunk,
                    threads,
                    draft,
                    context: Some(900),
                    ..Default::default()
                };
                let mut session = model.session(&options).unwrap();
                session.evaluate(&text).unwrap();
                for target in [799, 785, 761, 700, 550, 300, 257, 256, 255, 41, 40, 17, 16, 1, 0] {
                    session.rewind(target).unwrap();
                    let more = &other[..1 + target % 5];
                    let got = bits(session.evaluate(more).unwrap());
                    let want = logits_of(&model, kv, &[&text[..target], more].concat());
                    assert!(got == want, "{case}, {kv:?}, chunks of {chunk}, back to {target}");
                    session.rewind(target).unwrap();
                }
                // And on from the beginning, over all that was stored.
                let got = bits(session.evaluate(&text).unwrap());
                assert!(got == logits_of(&model, kv, &text), "{case}, {kv:?}, again");
            }
        }
    }
}

/// Whoever gives up while a window is computed again finds the same tokens, and then the same bits.
#[test]
fn giving_up_while_a_window_is_filled_loses_nothing() {
    for (case, model) in windowed() {
        let text = tokens(&model, 800);
        let options = SessionOptions { chunk: 8, context: Some(800), ..Default::default() };
        let mut session = model.session(&options).unwrap();
        let cancel = Arc::new(AtomicBool::new(false));
        session.cancel_by(cancel.clone());
        session.evaluate(&text).unwrap();
        for target in [500, 333, 20, 0] {
            session.rewind(target).unwrap();
            cancel.store(true, Relaxed);
            let given_up = session.evaluate(&text[10..15]);
            assert!(matches!(given_up, Err(Error::Cancelled)), "{case}, {target}");
            assert_eq!(session.tokens(), &text[..target]);
            let got = bits(session.evaluate(&text[10..15]).unwrap());
            let want = logits_of(&model, KvType::F16, &[&text[..target], &text[10..15]].concat());
            assert!(got == want, "{case}, {target}");
            session.rewind(target).unwrap();
        }
    }
}

/// A saved session has the same bytes from any session, and any goes on from it.
#[test]
fn sessions_of_other_sizes_go_on_from_a_saved_one() {
    for (case, model) in windowed() {
        let text = tokens(&model, 800);
        for kv in CACHES {
            let session = |chunk, context| {
                let context = Some(context);
                let options = SessionOptions { kv, chunk, context, ..Default::default() };
                model.session(&options).unwrap()
            };
            let mut first = session(64, 900);
            for position in [1, 15, 16, 17, 40, 41, 255, 256, 257, 300, 512, 600, 730] {
                first.evaluate(&text[first.position()..position]).unwrap();
                let mut saved = Vec::new();
                first.save(&mut saved).unwrap();
                assert_eq!(saved.len(), first.saved_bytes());
                let want = logits_of(&model, kv, &text[..position + 60]);
                for (chunk, context) in [(7, position + 60), (300, 1000), (1, 801)] {
                    let case = format!("{case}, {kv:?}, {position}, {chunk}, {context}");
                    let mut second = session(chunk, context);
                    // What is there before does not matter.
                    second.evaluate(&text[20..(context - 1).min(700)]).unwrap();
                    second.restore_bytes(&saved).unwrap();
                    let mut again = Vec::new();
                    second.save(&mut again).unwrap();
                    assert!(again == saved, "{case}: saved again");
                    let got = bits(second.evaluate(&text[position..position + 60]).unwrap());
                    assert!(got == want, "{case}: restored");
                    // Behind what was restored there is nothing to go back to but the tokens.
                    second.rewind(position / 2).unwrap();
                    let got = bits(second.evaluate(&text[position / 2..position + 60]).unwrap());
                    assert!(got == want, "{case}: restored and rewound");
                    second.rewind(position).unwrap();
                    let mut again = Vec::new();
                    second.save(&mut again).unwrap();
                    // Without the logits, which a rewind loses.
                    assert_eq!(cache_of(&again, &model), cache_of(&saved, &model), "{case}");
                    let mut third = session(chunk + 4, context);
                    third.evaluate(&text[..context / 2]).unwrap();
                    third.copy_from(&mut second).unwrap();
                    let got = bits(third.evaluate(&text[position..position + 60]).unwrap());
                    assert!(got == want, "{case}: forked");
                }
            }
        }
    }
}

/// Length and checksum of the cache in a saved session.
fn cache_of(saved: &[u8], model: &Model) -> (usize, u32) {
    let number = |at: usize| u64::from_le_bytes(saved[at..at + 8].try_into().unwrap()) as usize;
    assert!([0, model.config().vocab_size].contains(&number(40)));
    let cache = &saved[56 + 4 * (number(32) + number(40))..saved.len() - 4];
    (cache.len(), cerebellum::format::checksum(cache))
}

/// A text that repeats itself, so that guesses are right, and then is not what was guessed.
#[test]
fn guesses_change_no_bit() {
    for (case, model) in windowed().into_iter().chain(unlimited()) {
        let once = tokens(&model, 23);
        let prompt = once.repeat(14);
        for kv in CACHES {
            let make = |draft, chunk, threads| {
                let options = SessionOptions {
                    kv,
                    draft,
                    chunk,
                    threads,
                    context: Some(600),
                    ..Default::default()
                };
                let mut session = model.session(&options).unwrap();
                let mut made = Vec::new();
                let options = GenerateOptions { max_tokens: 200, ..Default::default() };
                generate_tokens(&mut session, &prompt, &options, |token| {
                    made.push(token);
                    ControlFlow::Continue(())
                })
                .unwrap();
                // Then a text that is given, token by token, right and wrong.
                let mut logits = Vec::new();
                for (i, &token) in once.repeat(2).iter().enumerate() {
                    let token = if i % 11 == 10 { once[0] } else { token };
                    logits.extend(bits(session.evaluate(&[token]).unwrap()));
                }
                (made, logits, session.draft_counts())
            };
            let (want, want_logits, _) = make(0, 64, 1);
            for (draft, chunk, threads) in [(4, 64, 1), (15, 3, 2)] {
                let (made, logits, counts) = make(draft, chunk, threads);
                assert_eq!(made, want, "{case}, {kv:?}, {draft} guesses");
                assert!(logits == want_logits, "{case}, {kv:?}, {draft} guesses");
                println!("{case}, {draft}: {counts:?}");
            }
        }
    }
}

/// Calls in any order: afterwards a session's logits are those of a new one with the same tokens.
/// `DETERMINISM_CALLS=n` makes `n` calls of each model.
#[test]
fn sessions_are_what_their_tokens_say() {
    let calls = std::env::var("DETERMINISM_CALLS").map_or(150, |n| n.parse().unwrap());
    for (case, model) in windowed() {
        for (kv, seed) in CACHES.into_iter().zip(1..) {
            let session = |chunk, threads, context, draft| {
                let context = Some(context);
                let options =
                    SessionOptions { kv, chunk, threads, context, draft, ..Default::default() };
                model.session(&options).unwrap()
            };
            let mut sessions =
                [session(5, 1, 600, 0), session(33, 2, 900, 4), session(300, 1, 640, 15)];
            let mut random = Random(seed);
            let mut log = Vec::new();
            for _ in 0..calls {
                let mut below = |n: usize| random.bits() as usize % n;
                let (at, from, call) = (below(3), below(3), below(10));
                let room = sessions[at].context() - sessions[at].position();
                let count = (1 + [below(4), below(60), below(400)][below(3)]).min(room);
                let start = below(200);
                let text = tokens(&model, 700)[start..start + count].to_vec();
                let position = sessions[at].position();
                log.push((at, from, call, position, count));
                match call {
                    0..=3 if count > 0 => drop(sessions[at].evaluate(&text).unwrap()),
                    4 => sessions[at].rewind(below(position + 1)).unwrap(),
                    5 => sessions[at].rewind(position - below(position.min(60) + 1)).unwrap(),
                    6 => {
                        let mut saved = Vec::new();
                        sessions[from].save(&mut saved).unwrap();
                        if sessions[from].position() <= sessions[at].context() {
                            sessions[at].restore_bytes(&saved).unwrap();
                        }
                    }
                    7 if at != from && sessions[from].position() <= sessions[at].context() => {
                        let [to, source] = sessions.get_disjoint_mut([at, from]).unwrap();
                        to.copy_from(source).unwrap();
                    }
                    8 if count > 30 && position > 0 => {
                        let tree = [&text[..9], &text[..4], &text[5..25], &text[3..30]];
                        let tree = Continuations::new(&tree).unwrap();
                        if room > 60 {
                            sessions[at].score(&[], &tree).unwrap();
                        }
                    }
                    9 if count > 0 => {
                        let mut embedding = vec![0.0; model.config().n_embd];
                        sessions[at].embed(&text, Pooling::Mean, &mut embedding).unwrap();
                    }
                    _ => {}
                }
                let session = &mut sessions[at];
                let so_far = session.tokens().to_vec();
                let got = match session.last_logits() {
                    Ok(logits) => bits(logits),
                    Err(_) if below(3) > 0 || so_far.len() == session.context() => continue,
                    Err(_) => bits(session.evaluate(&[3]).unwrap()),
                };
                let want = logits_of(&model, kv, session.tokens());
                assert!(got == want, "{case}, {kv:?}: {:?}", &log[log.len().saturating_sub(12)..]);
            }
        }
    }
}
