//! The numbers contract: the same bits whatever the instruction set, the threads, the chunks, and
//! whether keys come from the cache or are computed again.

mod common;

use cerebellum::kernels::Isa;
use cerebellum::quant::Scheme;
use cerebellum::{KvType, LogitsFor, Model, Session, SessionOptions};
use common::{bits, demo, golden, quantized, tokens};

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
    for threads in [1, 2, 3] {
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
        [(Scheme::Int4, 64, 0xd001_1573), (Scheme::Int8, 128, 0xddf6_8b66)]
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
