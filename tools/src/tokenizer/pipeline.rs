//! The stages around the model of a `tokenizer.json`: which kind of tokenizer they make.

use std::path::Path;

use cerebellum::terminal;
use cerebellum::text::layout;
use serde_json::Value;

use super::error::{TokenizerError, unsupported};
use crate::json::Object;

/// What is written for a space by SentencePiece.
pub const METASPACE: &str = "\u{2581}";

/// Expressions by which texts are split, as they are published, and the rule that does the same.
///
/// A possessive `?+` or `++` takes what it takes without: what follows cannot match what it took.
const EXPRESSIONS: [(&str, u8); 5] = [
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        layout::SPLIT_GPT2,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        layout::SPLIT_LLAMA3,
    ),
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        layout::SPLIT_LLAMA3,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        layout::SPLIT_QWEN2,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        layout::SPLIT_QWEN2,
    ),
];

/// The longest stage that is read: parsed, JSON takes up to seventy times its length. Those of the known
/// tokenizers have less than 2 KB.
const MAX_STAGE_BYTES: usize = 1 << 16;

/// The kind of tokenizer that a file's stages make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Kind, of `cerebellum::text::layout`.
    pub kind: u8,
    /// Split rule.
    pub rule: u8,
    /// Header flags.
    pub flags: u32,
    /// Text of the token that a post-processor puts before a text.
    pub bos: Option<String>,
}

impl Pipeline {
    /// Reads a file's stages.
    ///
    /// # Errors
    /// [`TokenizerError::Unsupported`], naming the stage that is not known.
    pub fn read(file: &Object, path: &Path) -> Result<Self, TokenizerError> {
        let stage = |name| file.text(name).and_then(|text| serde_json::from_str(text).ok());
        let stages = |name| flatten(stage(name).unwrap_or(Value::Null), steps_of(name));
        let names = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];
        let too_long =
            |name: &&&str| file.text(name).is_some_and(|text| text.len() > MAX_STAGE_BYTES);
        if let Some(name) = names.iter().find(too_long) {
            let why = format!("{name} of more than {MAX_STAGE_BYTES} bytes");
            return Err(unsupported(path, why));
        }
        let [normalizers, splitters, processors, decoders] = names.map(stages);
        let refuse = |name: &str, stage: &Value| {
            Err(unsupported(path, format!("{name} {}", terminal::name(&kind(stage)))))
        };

        let mut this =
            Self { kind: layout::BYTE_LEVEL_BPE, rule: layout::SPLIT_NONE, flags: 0, bos: None };
        let mut replaces = false;
        for stage in &normalizers {
            match kind(stage).as_str() {
                "NFC" => this.flags |= layout::NFC,
                "Prepend" if stage["prepend"] == METASPACE => {
                    this.flags |= layout::ADD_PREFIX_SPACE | layout::ALWAYS_PREFIX_SPACE;
                }
                "Replace" if stage["pattern"]["String"] == " " && stage["content"] == METASPACE => {
                    replaces = true;
                }
                _ => return refuse("normalizer", stage),
            }
        }
        if replaces {
            this.kind = layout::SENTENCEPIECE_BPE;
            this.rule = layout::SPLIT_SPACES;
        }
        match this.split(&splitters, replaces) {
            Ok(()) => {}
            Err(None) => return Err(unsupported(path, "pre_tokenizer missing")),
            Err(Some(what)) => {
                return Err(unsupported(path, format!("pre_tokenizer {}", terminal::name(&what))));
            }
        }
        let is_sentencepiece = this.kind == layout::SENTENCEPIECE_BPE;
        let mixed =
            this.flags & if is_sentencepiece { layout::NFC } else { layout::ALWAYS_PREFIX_SPACE };
        if let Some(stage) = normalizers.first().filter(|_| mixed != 0) {
            return refuse("normalizer", stage);
        }
        for stage in &processors {
            match kind(stage).as_str() {
                "ByteLevel" => {}
                "TemplateProcessing" => match template(stage) {
                    Some(bos) => this.bos = bos,
                    None => return refuse("post_processor", stage),
                },
                _ => return refuse("post_processor", stage),
            }
        }
        let known: &[&str] = match is_sentencepiece {
            true => &["Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"],
            false => &["ByteLevel"],
        };
        match decoders.iter().find(|stage| !known.contains(&kind(stage).as_str())) {
            Some(stage) => refuse("decoder", stage),
            None => Ok(this),
        }
    }

    /// What the pre-tokenizers do; or what is not known of them, if they are there.
    fn split(&mut self, stages: &[Value], replaces: bool) -> Result<(), Option<String>> {
        let kinds: Vec<String> = stages.iter().map(kind).collect();
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let unknown = |what: String| Err(Some(what));
        match (kinds.as_slice(), stages) {
            ([], _) if replaces => Ok(()),
            ([], _) => Err(None),
            // After all spaces were replaced, there is nothing to split at.
            (["Split"], [split]) if replaces && split["pattern"]["String"] == " " => Ok(()),
            (["Metaspace"], [stage]) if self.flags == 0 => {
                self.kind = layout::SENTENCEPIECE_BPE;
                let text = |key: &str| stage[key].as_str();
                if text("replacement") != Some(METASPACE) {
                    return unknown("Metaspace with another character".into());
                }
                let scheme = text("prepend_scheme").unwrap_or("always");
                let never = stage["add_prefix_space"] == false || scheme == "never";
                self.flags |= match scheme {
                    _ if never => 0,
                    "always" => layout::ADD_PREFIX_SPACE,
                    "first" => layout::ADD_PREFIX_SPACE | layout::FIRST_PREFIX_SPACE,
                    _ => return unknown("Metaspace with an unknown prepend_scheme".into()),
                };
                let splits = stage["split"] != false;
                self.rule = if splits { layout::SPLIT_EACH_SPACE } else { layout::SPLIT_SPACES };
                Ok(())
            }
            (["ByteLevel"], [stage]) if !replaces => {
                let is_on = |key: &str| stage[key] != false;
                self.rule =
                    if is_on("use_regex") { layout::SPLIT_GPT2 } else { layout::SPLIT_NONE };
                self.flags |= if is_on("add_prefix_space") { layout::ADD_PREFIX_SPACE } else { 0 };
                Ok(())
            }
            (["Digits", "ByteLevel"], [digits, bytes]) if !replaces => {
                let alone = digits["individual_digits"] == true;
                if !alone || bytes["add_prefix_space"] != false || bytes["use_regex"] == false {
                    return unknown("Digits, ByteLevel with these options".into());
                }
                self.rule = layout::SPLIT_GPT2_DIGITS;
                Ok(())
            }
            (["Split", "ByteLevel"], [split, bytes]) if !replaces => {
                let expression = split["pattern"]["Regex"].as_str().unwrap_or_default();
                let rule = EXPRESSIONS.iter().find(|(known, _)| *known == expression);
                let Some((_, rule)) = rule else {
                    return unknown(format!("Split by {expression}"));
                };
                let isolates = split["behavior"] == "Isolated" && split["invert"] != true;
                if !isolates || bytes["add_prefix_space"] != false || bytes["use_regex"] != false {
                    return unknown("Split, ByteLevel with these options".into());
                }
                self.rule = *rule;
                Ok(())
            }
            _ => unknown(kinds.join(", ")),
        }
    }
}

/// What the key of a sequence's steps is.
fn steps_of(stage: &str) -> &'static str {
    match stage {
        "normalizer" => "normalizers",
        "pre_tokenizer" => "pretokenizers",
        "post_processor" => "processors",
        _ => "decoders",
    }
}

/// The steps of a stage, of sequences in sequences too.
fn flatten(stage: Value, steps: &str) -> Vec<Value> {
    if stage.is_null() {
        return Vec::new();
    }
    match stage.get(steps) {
        Some(Value::Array(several)) if kind(&stage) == "Sequence" => {
            several.iter().flat_map(|step| flatten(step.clone(), steps)).collect()
        }
        _ => vec![stage],
    }
}

/// The `type` of a stage.
fn kind(stage: &Value) -> String {
    stage["type"].as_str().unwrap_or("of unknown type").to_owned()
}

/// The token that a template puts before a single text, if it does no more than that.
fn template(stage: &Value) -> Option<Option<String>> {
    let token = |step: &Value| step["SpecialToken"]["id"].as_str().map(str::to_owned);
    let is_text = |step: &Value| step["Sequence"].is_object();
    match stage["single"].as_array()?.as_slice() {
        [text] if is_text(text) => Some(None),
        [bos, text] if is_text(text) => Some(Some(token(bos)?)),
        _ => None,
    }
}
