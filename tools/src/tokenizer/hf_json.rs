//! Hugging Face's `tokenizer.json`.

use std::fmt;
use std::path::Path;

use cerebellum::terminal;
use cerebellum::text::layout;
use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::error::{TokenizerError, invalid, unsupported};
use super::reading::{parse_json, read_file};
use super::vocabulary::{AddedToken, Vocabulary, split_merge};
use crate::json::Object;

/// The stages of the pipeline around the model, which differ from one kind of tokenizer to the next.
const STAGES: [Stage; 4] = [
    Stage { name: "normalizer", may_be_absent: true, may_be_byte_level: false },
    Stage { name: "pre_tokenizer", may_be_absent: false, may_be_byte_level: true },
    Stage { name: "post_processor", may_be_absent: true, may_be_byte_level: true },
    Stage { name: "decoder", may_be_absent: true, may_be_byte_level: true },
];

struct Stage {
    name: &'static str,
    may_be_absent: bool,
    may_be_byte_level: bool,
}

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

/// Reads `tokenizer.json` and refuses every feature that would change what the tokens are. (`truncation`
/// and `padding` concern batches and are not read.)
pub fn read(path: &Path) -> Result<Vocabulary, TokenizerError> {
    let bytes = read_file(path)?;
    let file: Object = parse_json(&bytes, path)?;
    let json = |source| TokenizerError::Json { path: path.into(), source };
    check_pipeline(&file, path)?;
    let model: Object = file.require("model").map_err(json)?;
    check_model(&model, path)?;
    let splitter: ByteLevel = file.require("pre_tokenizer").map_err(json)?;
    let merges: Vec<Merge> = model.require("merges").map_err(json)?;
    Ok(Vocabulary {
        tokens: model.require("vocab").map_err(json)?,
        merges: merges
            .into_iter()
            .enumerate()
            .map(|(n, merge)| merge.pair(n, path))
            .collect::<Result<_, _>>()?,
        added: with_content(file.get("added_tokens").map_err(json)?.unwrap_or_default(), path)?,
        rule: if splitter.use_regex { layout::SPLIT_GPT2 } else { layout::SPLIT_NONE },
        flags: if splitter.add_prefix_space { layout::ADD_PREFIX_SPACE } else { 0 },
        ..Vocabulary::default()
    })
}

fn with_content(tokens: Vec<AddedToken>, path: &Path) -> Result<Vec<AddedToken>, TokenizerError> {
    match tokens.iter().find(|token| token.content.is_empty()) {
        Some(token) => Err(invalid(path, format!("added token {} has no content", token.id))),
        None => Ok(tokens),
    }
}

/// The stages around the model: only byte-level ones, and no normalizer.
fn check_pipeline(file: &Object, path: &Path) -> Result<(), TokenizerError> {
    for Stage { name, may_be_absent, may_be_byte_level } in STAGES {
        let kind = file.text(name).map(kind);
        let supported = match kind.as_deref() {
            None => may_be_absent,
            Some(kind) => may_be_byte_level && kind == "ByteLevel",
        };
        if !supported {
            let kind = kind.as_deref().unwrap_or("missing");
            return Err(unsupported(path, format!("{name} {}", terminal::name(kind))));
        }
    }
    Ok(())
}

/// The `type` of a stage or a model.
fn kind(stage: &str) -> String {
    let kind = Object::of(stage).and_then(|stage| stage.get("type").ok().flatten());
    kind.unwrap_or_else(|| "of unknown type".to_owned())
}

/// Options of the BPE model that GPT-2's does not have.
fn check_model(model: &Object, path: &Path) -> Result<(), TokenizerError> {
    // Old files leave the type out; their vocabulary and merges then have to parse as BPE's.
    let kind = model.text("type").map(|_| model.get::<String>("type"));
    match kind {
        None => {}
        Some(Ok(Some(kind))) if kind == "BPE" => {}
        Some(Ok(Some(kind))) => {
            return Err(unsupported(path, format!("model {}", terminal::name(&kind))));
        }
        Some(_) => return Err(unsupported(path, "model of unknown type")),
    }
    // `unk_token` and `fuse_unk` are no obstacle: every byte has a token, or the encoder says so.
    let options = [
        "dropout",
        "byte_fallback",
        "ignore_merges",
        "continuing_subword_prefix",
        "end_of_word_suffix",
    ];
    match options.iter().find(|option| model.text(option).is_some_and(is_set)) {
        Some(option) => Err(unsupported(path, format!("model option {option}"))),
        None => Ok(()),
    }
}

/// Whether an option's JSON is not its neutral value.
fn is_set(option: &str) -> bool {
    option != "false" && option != r#""""# && option.parse::<f64>() != Ok(0.0)
}
