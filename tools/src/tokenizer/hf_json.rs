//! Hugging Face's `tokenizer.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use cerebellum::terminal;
use cerebellum::text::layout;
use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::error::{TokenizerError, invalid, unsupported};
use super::pipeline::Pipeline;
use super::reading::{parse_json, read_file};
use super::vocabulary::{AddedToken, Vocabulary, split_merge};
use crate::json::Object;

/// Merges are pairs since version 0.20 of the `tokenizers` library, lines `"left right"` before.
///
/// Untagged, serde would keep each as a tree of values before it knows which it is.
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Merge {
    /// Merge number `n` of the file `path` as a pair.
    fn pair(self, n: usize, path: &Path) -> Result<(String, String), TokenizerError> {
        match self {
            Self::Pair(left, right) => Ok((left, right)),
            Self::Line(line) => match split_merge(&line) {
                Ok((left, right)) => Ok((left.to_owned(), right.to_owned())),
                Err(_) => {
                    let line = terminal::quoted(&line);
                    Err(invalid(path, format!("merge {n}, {line}, is not two tokens")))
                }
            },
        }
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairOrLine;

        impl<'de> Visitor<'de> for PairOrLine {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("two tokens, as a list or with a space between them")
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<Merge, E> {
                Ok(Merge::Line(line.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Merge, A::Error> {
                let (left, right) = Deserialize::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(Merge::Pair(left, right))
            }
        }

        deserializer.deserialize_any(PairOrLine)
    }
}

/// Reads `tokenizer.json` and refuses every feature that would change what the tokens are. (`truncation`
/// and `padding` concern batches and are not read.)
pub fn read(path: &Path) -> Result<Vocabulary, TokenizerError> {
    read_bytes(&read_file(path)?, path)
}

/// As [`read`], of the file's content.
pub fn read_bytes(bytes: &[u8], path: &Path) -> Result<Vocabulary, TokenizerError> {
    let file: Object = parse_json(bytes, path)?;
    let json = |source| TokenizerError::Json { path: path.into(), source };
    let pipeline = Pipeline::read(&file, path)?;
    let model: Object = file.require("model").map_err(json)?;
    let ignores_merges = check_model(&model, pipeline.kind, path)?;
    let merges: Vec<Merge> = model.require("merges").map_err(json)?;
    let tokens: BTreeMap<String, u32> = model.require("vocab").map_err(json)?;
    let added = with_content(file.get("added_tokens").map_err(json)?.unwrap_or_default(), path)?;
    let bos = match pipeline.bos {
        None => None,
        Some(bos) => {
            let of_added = added.iter().find(|token| token.content == bos).map(|token| token.id);
            let id = of_added.or_else(|| tokens.get(&bos).copied());
            let missing = || invalid(path, format!("there is no token {}", terminal::quoted(&bos)));
            Some(id.ok_or_else(missing)?)
        }
    };
    let mut flags = pipeline.flags;
    flags |= if bos.is_some() { layout::ADD_BOS } else { 0 };
    flags |= if ignores_merges { layout::WHOLE_WORDS } else { 0 };
    Ok(Vocabulary {
        kind: pipeline.kind,
        rule: pipeline.rule,
        flags,
        bos,
        tokens,
        merges: merges
            .into_iter()
            .enumerate()
            .map(|(n, merge)| merge.pair(n, path))
            .collect::<Result<_, _>>()?,
        added,
    })
}

fn with_content(tokens: Vec<AddedToken>, path: &Path) -> Result<Vec<AddedToken>, TokenizerError> {
    match tokens.iter().find(|token| token.content.is_empty()) {
        Some(token) => Err(invalid(path, format!("added token {} has no content", token.id))),
        None => Ok(tokens),
    }
}

/// Options of the BPE model that would change the tokens. Returns whether a word that is a token is that token.
fn check_model(model: &Object, kind: u8, path: &Path) -> Result<bool, TokenizerError> {
    // Old files leave the type out; their vocabulary and merges then have to parse as BPE's.
    let name = model.text("type").map(|_| model.get::<String>("type"));
    match name {
        None => {}
        Some(Ok(Some(name))) if name == "BPE" => {}
        Some(Ok(Some(name))) => {
            return Err(unsupported(path, format!("model {}", terminal::name(&name))));
        }
        Some(_) => return Err(unsupported(path, "model of unknown type")),
    }
    let is_set = |option: &str| model.text(option).is_some_and(is_set);
    let is_sentencepiece = kind == layout::SENTENCEPIECE_BPE;
    if is_set("byte_fallback") != is_sentencepiece {
        let without = if is_sentencepiece { "out" } else { "" };
        return Err(unsupported(
            path,
            format!("such a pipeline with{without} model option byte_fallback"),
        ));
    }
    // `unk_token` and `fuse_unk` are no obstacle: every byte has a token, or the encoder says so.
    let options = ["dropout", "continuing_subword_prefix", "end_of_word_suffix"];
    if let Some(option) = options.into_iter().find(|option| is_set(option)) {
        return Err(unsupported(path, format!("model option {option}")));
    }
    match is_set("ignore_merges") {
        true if is_sentencepiece => Err(unsupported(path, "model option ignore_merges")),
        ignores => Ok(ignores),
    }
}

/// Whether an option's JSON is not its neutral value.
fn is_set(option: &str) -> bool {
    option != "false" && option != r#""""# && option.parse::<f64>() != Ok(0.0)
}
