//! Hugging Face's `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::vocabulary::{AddedToken, Vocabulary, split_merge};
use super::{TokenizerError, invalid, read_json, unsupported};

/// The file. Parts that differ from one kind of tokenizer to the next are read later, once the
/// kind is known. `truncation` and `padding` concern batches and are not read.
#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Value,
}

/// The model, once it is known to be BPE.
#[derive(Deserialize)]
struct Bpe {
    vocab: BTreeMap<String, u32>,
    merges: Merges,
}

/// Merges are pairs since version 0.20 of the `tokenizers` library, lines `"left right"` before.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merges {
    Pairs(Vec<(String, String)>),
    Lines(Vec<String>),
}

#[derive(Deserialize)]
struct ByteLevel {
    #[serde(default = "yes")]
    add_prefix_space: bool,
    #[serde(default = "yes")]
    use_regex: bool,
}

fn yes() -> bool {
    true
}

/// Reads `tokenizer.json` and refuses every feature that would change what the tokens are.
pub fn read(path: &Path) -> Result<Vocabulary, TokenizerError> {
    let file: TokenizerJson = read_json(path)?;
    check_pipeline(&file, path)?;
    check_model(&file.model, path)?;
    let json = |source| TokenizerError::Json { path: path.into(), source };
    let splitter: ByteLevel = serde_json::from_value(file.pre_tokenizer).map_err(json)?;
    let bpe: Bpe = serde_json::from_value(file.model).map_err(json)?;
    let merges = match bpe.merges {
        Merges::Pairs(pairs) => pairs,
        Merges::Lines(lines) => split_lines(&lines, path)?,
    };
    Ok(Vocabulary {
        tokens: bpe.vocab,
        merges,
        added: with_content(file.added_tokens, path)?,
        add_prefix_space: splitter.add_prefix_space,
        use_regex: splitter.use_regex,
    })
}

fn split_lines(lines: &[String], path: &Path) -> Result<Vec<(String, String)>, TokenizerError> {
    lines.iter().enumerate().map(|(rank, line)| split_merge(line, rank, path)).collect()
}

fn with_content(tokens: Vec<AddedToken>, path: &Path) -> Result<Vec<AddedToken>, TokenizerError> {
    match tokens.iter().find(|token| token.content.is_empty()) {
        Some(token) => Err(invalid(path, format!("added token {} has no content", token.id))),
        None => Ok(tokens),
    }
}

/// The stages around the model: only byte-level ones, and no normalizer.
fn check_pipeline(file: &TokenizerJson, path: &Path) -> Result<(), TokenizerError> {
    let stages = [
        ("normalizer", &file.normalizer, true, false),
        ("pre_tokenizer", &file.pre_tokenizer, false, true),
        ("post_processor", &file.post_processor, true, true),
        ("decoder", &file.decoder, true, true),
    ];
    for (stage, value, may_be_absent, may_be_byte_level) in stages {
        let supported = match kind(value) {
            None => may_be_absent,
            Some(kind) => may_be_byte_level && kind == "ByteLevel",
        };
        if !supported {
            return Err(unsupported(path, format!("{stage} {}", kind(value).unwrap_or("missing"))));
        }
    }
    Ok(())
}

/// The `type` of a stage, `None` for an absent one.
fn kind(stage: &Value) -> Option<&str> {
    match stage {
        Value::Null => None,
        stage => Some(stage.get("type").and_then(Value::as_str).unwrap_or("of unknown type")),
    }
}

/// Options of the BPE model that GPT-2's does not have.
fn check_model(model: &Value, path: &Path) -> Result<(), TokenizerError> {
    // Old files leave the type out; their vocabulary and merges then have to parse as BPE's.
    let kind = model.get("type").map_or(Some("BPE"), Value::as_str);
    if kind != Some("BPE") {
        return Err(unsupported(path, format!("model {}", kind.unwrap_or("of unknown type"))));
    }
    // `unk_token` and `fuse_unk` are no obstacle: every byte has a token, or the encoder says so.
    let options = [
        "dropout",
        "byte_fallback",
        "ignore_merges",
        "continuing_subword_prefix",
        "end_of_word_suffix",
    ];
    match options.iter().find(|option| is_set(model.get(**option))) {
        Some(option) => Err(unsupported(path, format!("model option {option}"))),
        None => Ok(()),
    }
}

/// Whether an option is there and is not its neutral value.
fn is_set(option: Option<&Value>) -> bool {
    match option {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(_) => true,
    }
}
