//! Tokenizers of all families beside the `tokenizers` library's: the published form of each `tokenizer.json`, over
//! a small vocabulary.
#![allow(dead_code, reason = "the tests and the fuzz target use parts of it")]

use std::collections::HashMap;
use std::sync::LazyLock;

use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum_tools::tokenizer::import;
use serde_json::{Value, json};

pub const PARSE: EncodeOptions = EncodeOptions::PARSE_SPECIAL;
pub const PLAIN: EncodeOptions = EncodeOptions { parse_special: false, begin_of_text: false };

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer of ours beside the library's, which read the same file.
pub struct Family {
    pub name: &'static str,
    pub ours: Tokenizer<Vec<u8>>,
    parse: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer,
    pub added: Vec<String>,
}

impl Family {
    fn new(name: &'static str, json: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        let parse = tokenizers::Tokenizer::from_file(&path).unwrap();
        let mut plain = parse.clone();
        plain.set_encode_special_tokens(true);
        let imported = import(directory.path(), 1 << 20).unwrap().unwrap();
        let content = |token: &Value| token["content"].as_str().unwrap().to_owned();
        let added = json["added_tokens"].as_array().unwrap().iter().map(content).collect();
        Self { name, ours: Tokenizer::parse(imported.blob).unwrap(), parse, plain, added }
    }

    /// Encodes a text in both ways with both, and fails where they differ.
    pub fn check(&self, text: &str) {
        for (options, library) in [(PARSE, &self.parse), (PLAIN, &self.plain)] {
            let ids = self.ours.encode(text, options).unwrap();
            let expected = library.encode_fast(text, false).unwrap();
            assert!(
                ids == expected.get_ids(),
                "{}, {options:?}: {text:?}\n{ids:?}\n{:?}",
                self.name,
                expected.get_ids()
            );
        }
    }

    /// What the tokens of a text mean, from its beginning.
    pub fn decoded(&self, text: &str) -> String {
        let ids = self.ours.encode(text, PLAIN).unwrap();
        let mut bytes = Vec::new();
        self.ours.table().decode_into(&ids, &mut bytes);
        String::from_utf8(self.ours.table().without_prefix_space(&bytes).to_vec()).unwrap()
    }
}

fn demo() -> Value {
    let json = include_bytes!("../data/tokenizers/demo/tokenizer.json");
    serde_json::from_slice(json).unwrap()
}

fn added(id: usize, content: &str, options: &[&str]) -> Value {
    let mut token = json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": false,
    });
    for option in options {
        token[option] = true.into();
    }
    token
}

/// Adds tokens behind all others.
fn add(json: &mut Value, tokens: &[(&str, &[&str])]) {
    let in_vocabulary = json["model"]["vocab"].as_object().unwrap().len();
    let has = |json: &Value, content: &str| json["model"]["vocab"][content].as_u64();
    let ids =
        json["added_tokens"].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap());
    let mut next = ids.map(|id| id as usize + 1).max().unwrap_or(0).max(in_vocabulary);
    for (content, options) in tokens {
        let id = has(json, content).map_or_else(
            || {
                next += 1;
                next - 1
            },
            |id| id as usize,
        );
        json["added_tokens"].as_array_mut().unwrap().push(added(id, content, options));
    }
}

/// The demo's vocabulary with these special tokens and these others.
pub fn with_added(special: &[&str], other: &[&str]) -> Family {
    let mut json = demo();
    let special = special.iter().map(|&token| (token, &["special"][..]));
    let tokens: Vec<_> = special.chain(other.iter().map(|&token| (token, &[][..]))).collect();
    add(&mut json, &tokens);
    Family::new("with added tokens", &json)
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn split_by(expression: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false},
        byte_level(false),
    ]})
}

fn template(bos: &str) -> Value {
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [1], "tokens": [bos]}},
    })
}

pub fn smollm() -> Family {
    let mut json = demo();
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true}, byte_level(true),
    ]});
    add(&mut json, &[("<|im_start|>", &["special"]), ("<|im_end|>", &["special"])]);
    Family::new("SmolLM", &json)
}

pub fn llama3() -> Family {
    let mut json = demo();
    json["pre_tokenizer"] = split_by(LLAMA3);
    json["post_processor"] = json!({"type": "Sequence", "processors": [
        byte_level(true), template("<|begin_of_text|>"),
    ]});
    json["model"]["ignore_merges"] = true.into();
    // Tokens that merges do not make.
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    let mut number = 0;
    merges.retain(|_| {
        number += 1;
        number % 40 != 0
    });
    add(&mut json, &[("<|begin_of_text|>", &["special"]), ("<|eot_id|>", &["special"])]);
    Family::new("Llama 3", &json)
}

pub fn qwen2() -> Family {
    let mut json = demo();
    json["normalizer"] = json!({"type": "NFC"});
    json["pre_tokenizer"] = split_by(QWEN2);
    add(&mut json, &[("<|im_start|>", &["special"]), ("<tool_call>", &[])]);
    Family::new("Qwen", &json)
}

pub fn gpt_neox() -> Family {
    let mut json = demo();
    json["normalizer"] = json!({"type": "NFC"});
    add(
        &mut json,
        &[
            ("<|padding|>", &["special"]),
            ("        ", &["normalized"]),
            ("    ", &["normalized"]),
            ("  ", &["normalized"]),
        ],
    );
    Family::new("GPT-NeoX", &json)
}

pub fn olmo() -> Family {
    let mut json = demo();
    json["normalizer"] = json!({"type": "NFC"});
    json["post_processor"] = Value::Null;
    add(&mut json, &[("|||IP_ADDRESS|||", &["normalized"]), ("e\u{301}<x>", &["normalized"])]);
    Family::new("OLMo", &json)
}

/// The demo's vocabulary as SentencePiece spells it.
fn pieces() -> Value {
    let demo = demo();
    let mut by_id: Vec<(u64, String)> = Vec::new();
    for (name, id) in demo["model"]["vocab"].as_object().unwrap() {
        let bytes = cerebellum::text::byte_level::unspell(name).unwrap_or_default();
        if let Ok(text) = String::from_utf8(bytes) {
            by_id.push((id.as_u64().unwrap(), text.replace(' ', "\u{2581}")));
        }
    }
    by_id.sort();
    let texts: Vec<String> =
        by_id.into_iter().map(|(_, text)| text).filter(|text| !text.starts_with('<')).collect();
    let (singles, several): (Vec<_>, Vec<_>) =
        texts.into_iter().partition(|text| text.chars().count() == 1);
    let mut names: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    names.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    names.extend(
        ["\u{2581}\u{2581}", "\u{2581}\u{2581}\u{2581}", "\u{2581}\u{2581}\u{2581}\u{2581}"]
            .map(String::from),
    );
    names.extend(several);
    names.extend(
        ["\u{2581}\u{65e5}\u{672c}", "\u{65e5}\u{672c}", "\u{e9}t", "<\u{2581}"].map(String::from),
    );
    names.extend(singles.into_iter().filter(|single| !" \0".contains(single.as_str())));
    names.extend("\u{2581}\u{e9}\u{65e5}\u{672c}\u{8a9e}\u{1f642}<>".chars().map(String::from));
    let mut ids: HashMap<String, usize> = HashMap::new();
    for name in names {
        let next = ids.len();
        ids.entry(name).or_insert(next);
    }
    // As the transformers library makes merges of a vocabulary.
    let mut merges = Vec::new();
    for (name, &id) in &ids {
        for (at, _) in name.char_indices().skip(1) {
            let (left, right) = name.split_at(at);
            if let (Some(&a), Some(&b)) = (ids.get(left), ids.get(right)) {
                merges.push((id, a, b, left, right));
            }
        }
    }
    merges.sort();
    let merges: Vec<_> = merges.into_iter().map(|(.., left, right)| json!([left, right])).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [
            added(0, "<unk>", &["special"]), added(1, "<s>", &["special"]), added(2, "</s>", &["special"]),
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "pre_tokenizer": null,
        "post_processor": template("<s>"),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": ids, "merges": merges,
        },
    })
}

pub fn llama2() -> Family {
    Family::new("Llama 2", &pieces())
}

/// With control tokens that are looked for behind the normalizer, as in the first files.
fn llama2_normalized() -> Family {
    let mut json = pieces();
    for token in json["added_tokens"].as_array_mut().unwrap() {
        token["normalized"] = true.into();
    }
    Family::new("Llama 2, normalized", &json)
}

fn metaspace(scheme: &str, split: bool, name: &'static str) -> Family {
    let mut json = pieces();
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] = json!({
        "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split,
    });
    Family::new(name, &json)
}

fn phi3() -> Family {
    let mut json = pieces();
    let tokens = ["<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>"];
    add(&mut json, &tokens.map(|token| (token, &["special", "rstrip"][..])));
    Family::new("Phi-3", &json)
}

pub fn gemma(glued: bool) -> Family {
    let mut json = pieces();
    json["normalizer"] =
        json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    json["pre_tokenizer"] = json!({
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false,
    });
    if glued {
        // A token with a space inside, as Gemma has one, and one more: then words cannot be cut at spaces.
        let next = json["model"]["vocab"].as_object().unwrap().len();
        for (id, token) in (next..).zip(["\u{2581}t>", ">\u{2581}t", "e\u{2581}t"]) {
            json["model"]["vocab"][token] = id.into();
        }
        let merges = json["model"]["merges"].as_array_mut().unwrap();
        merges.insert(0, json!(["e", "\u{2581}t"]));
        merges.push(json!([">", "\u{2581}t"]));
    }
    let runs = [
        "\n\n",
        "\n\n\n",
        "\u{2581}\u{2581}",
        "\u{2581}\u{2581}\u{2581}\u{2581}",
        "<table>",
        "\t\t",
    ];
    add(&mut json, &runs.map(|run| (run, &[][..])));
    add(&mut json, &[("<start_of_turn>", &["special"])]);
    Family::new(if glued { "Gemma, glued" } else { "Gemma" }, &json)
}

/// All of them.
pub fn families() -> Vec<Family> {
    vec![
        smollm(),
        llama3(),
        qwen2(),
        gpt_neox(),
        olmo(),
        llama2(),
        llama2_normalized(),
        metaspace("first", false, "Llama 2, Metaspace first"),
        metaspace("always", true, "Metaspace always, split"),
        metaspace("never", false, "Metaspace never"),
        phi3(),
        gemma(false),
        gemma(true),
    ]
}

/// Checks a text with the family that the first byte names: what the fuzz target does.
pub fn check_bytes(bytes: &[u8]) {
    static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(families);
    let (&family, text) = bytes.split_first().unwrap_or((&0, &[]));
    let family = &FAMILIES[usize::from(family) % FAMILIES.len()];
    family.check(&comparable(String::from_utf8_lossy(text).into_owned()));
}

/// The text without digits that only one of two libraries knows: `Digits` asks the standard library what a number
/// is, whose Unicode is newer than that of the expressions.
pub fn comparable(mut text: String) -> String {
    text.retain(|c| !matches!(c, '\u{11de0}'..='\u{11de9}' | '\u{11ff0}'..='\u{16fff}' | '\u{1ccf0}'..='\u{1ccf9}'));
    text
}
