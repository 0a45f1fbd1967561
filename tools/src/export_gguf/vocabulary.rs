//! The tokenizer and what concerns conversations, as metadata entries.

use std::collections::HashMap;
use std::path::Path;

use cerebellum::text::layout;

use super::error::WriteError;
use crate::chat_template::ImportedChat;
use crate::checkpoint::gguf::Family;
use crate::gguf::{Header, keys};
use crate::tokenizer::{AddedToken, Vocabulary, pre_tokenizer};

/// Says that there is no tokenizer, but so many tokens.
pub fn write_none(header: &mut Header, family: &Family, vocab_size: usize) {
    header.text(keys::TOKENIZER, "no_vocab");
    let size = u32::try_from(vocab_size).expect("bounded by the configuration's check");
    header.u32(&family.key(keys::VOCAB_SIZE), size);
}

/// Adds a tokenizer, and returns warnings.
pub fn write(
    header: &mut Header,
    tokenizer: &Vocabulary,
    vocab_size: usize,
) -> Result<Vec<String>, WriteError> {
    let mut warnings = Vec::new();
    let mut warn = |is_lost: bool, what: &str| {
        if is_lost {
            warnings.push(format!("{what}: such texts may be encoded differently"));
        }
    };
    let strips = |token: &AddedToken| token.lstrip || token.rstrip || token.single_word;
    warn(
        tokenizer.added.iter().any(strips),
        "GGUF cannot say that an added token swallows white space or matches whole words only",
    );
    let (tokens, types) = tokenizer.to_lists(vocab_size);
    let has = |flag: u32| tokenizer.flags & flag != 0;
    if tokenizer.kind == layout::SENTENCEPIECE_BPE {
        let scores = scores(tokenizer, &tokens);
        let again = Vocabulary::from_scores(&tokens, &types, &scores, Path::new(""));
        warn(
            !again.is_ok_and(|again| again.merges == tokenizer.merges),
            "GGUF has a score for each token instead of the order of merges, which is another here",
        );
        warn(has(layout::NFC), "llama.cpp does not normalize texts, but this tokenizer does (NFC)");
        warn(
            has(layout::ADD_PREFIX_SPACE) != has(layout::ALWAYS_PREFIX_SPACE)
                || has(layout::FIRST_PREFIX_SPACE),
            "GGUF can only say that a space is put before every piece between control tokens",
        );
        header.text(keys::TOKENIZER, "llama");
        header.text(keys::PRE_TOKENIZER, "default");
        header.texts(keys::TOKENS, &tokens);
        header.f32s(keys::SCORES, &scores);
    } else {
        let Some((name, normalizes)) = pre_tokenizer(tokenizer.rule, tokenizer.flags) else {
            return Err(WriteError::Tokenizer("cuts texts into words in a way of its own"));
        };
        warn(
            has(layout::NFC) && !normalizes,
            "llama.cpp does not normalize texts, but this tokenizer does (NFC)",
        );
        let merges: Vec<String> =
            tokenizer.merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        header.text(keys::TOKENIZER, "gpt2");
        header.text(keys::PRE_TOKENIZER, name);
        header.texts(keys::TOKENS, &tokens);
        header.texts(keys::MERGES, &merges);
    }
    header.i32s(keys::TOKEN_TYPES, types.into_iter().map(|kind| kind.to_gguf()));
    header.bool(keys::ADD_PREFIX_SPACE, has(layout::ADD_PREFIX_SPACE));
    header.bool(keys::ADD_BOS, has(layout::ADD_BOS));
    Ok(warnings)
}

/// A score for each token: those that merge first have the highest. Tokens that no merge makes need none.
fn scores(tokenizer: &Vocabulary, tokens: &[String]) -> Vec<f32> {
    let ids: HashMap<&str, usize> =
        tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut scores = vec![0.0; tokens.len()];
    let mut made = 0;
    for (left, right) in &tokenizer.merges {
        let Some(&id) = ids.get(format!("{left}{right}").as_str()) else { continue };
        if scores[id] == 0.0 {
            made += 1;
            scores[id] = -(made as f32);
        }
    }
    scores
}

/// Adds the template and the tokens that end a turn, and returns warnings.
pub fn write_chat(header: &mut Header, chat: &ImportedChat) -> Option<String> {
    if let Some(template) = chat.format.as_ref().and_then(|format| format.template.as_ref()) {
        header.text(keys::CHAT_TEMPLATE, template);
    }
    // The first end is the configuration's.
    let [_, others @ ..] = keys::END_TOKENS;
    for (key, id) in others.iter().zip(&chat.end_tokens) {
        header.u32(key, *id);
    }
    let lost = chat.end_tokens.get(others.len()..).unwrap_or_default();
    (!lost.is_empty()).then(|| {
        format!("GGUF has no entry for so many tokens that end a text: {lost:?} are left out")
    })
}
