//! Importing a checkpoint's tokenizer: the formats it comes in, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use cerebellum::text::{EncodeOptions, TokenTable, Tokenizer, layout};
use cerebellum_tools::tokenizer::{ImportedTokenizer, TokenizerError, import};
use serde_json::{Value, json};
use tempfile::TempDir;

const PARSE: EncodeOptions = EncodeOptions::PARSE_SPECIAL;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tokenizers").join(name)
}

fn demo_json() -> Value {
    serde_json::from_slice(&fs::read(data("demo/tokenizer.json")).unwrap()).unwrap()
}

/// A directory with these files.
fn dir(files: &[(&str, String)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn import_json(json: &Value, vocab_size: u32) -> Result<ImportedTokenizer, TokenizerError> {
    let dir = dir(&[("tokenizer.json", json.to_string())]);
    import(dir.path(), vocab_size).map(Option::unwrap)
}

/// The demo tokenizer with one change.
fn import_changed(change: impl FnOnce(&mut Value)) -> Result<ImportedTokenizer, TokenizerError> {
    let mut json = demo_json();
    change(&mut json);
    import_json(&json, 4096)
}

/// The demo tokenizer as GPT-2's own files.
fn demo_files() -> [(&'static str, String); 3] {
    let json = demo_json();
    let line =
        |pair: &Value| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    let merges: String = json["model"]["merges"].as_array().unwrap().iter().map(line).collect();
    let config = json!({
        "tokenizer_class": "GPT2Tokenizer",
        "added_tokens_decoder": {"0": json["added_tokens"][0]},
        "eos_token": "<|endoftext|>",
    });
    [
        ("vocab.json", json["model"]["vocab"].to_string()),
        ("merges.txt", format!("#version: 0.2\n{merges}")),
        ("tokenizer_config.json", config.to_string()),
    ]
}

#[test]
fn the_demo_tokenizer_is_read_whole() {
    let imported = import(&data("demo"), 4096).unwrap().unwrap();
    assert_eq!((imported.tokens, imported.unused_ids, imported.merges), (4096, 0, 3839));
    assert_eq!((imported.warnings.len(), imported.source), (0, data("demo/tokenizer.json")));
    let table = TokenTable::parse(imported.blob).unwrap();
    assert_eq!(table.len(), 4096);
    assert!(table.split_rule() == layout::SPLIT_GPT2 && !table.add_prefix_space());
    let end_of_text = table.added_token(0).unwrap();
    assert_eq!(end_of_text.flags, layout::SPECIAL | layout::IN_VOCABULARY);
    // The library's own reading of the vocabulary.
    let library = tokenizers::Tokenizer::from_file(data("demo/tokenizer.json")).unwrap();
    for id in 1..4096 {
        let expected = library.decode(&[id], false).unwrap();
        let ours = table.token_bytes(id).unwrap();
        assert_eq!(String::from_utf8_lossy(ours), expected, "token {id}");
    }
}

#[test]
fn the_two_formats_give_the_same_table() {
    let files = dir(&demo_files());
    let from_files = import(files.path(), 4096).unwrap().unwrap();
    let from_json = import(&data("demo"), 4096).unwrap().unwrap();
    assert_eq!(from_files.blob, from_json.blob);
}

#[test]
fn both_spellings_of_merges_give_the_same_table() {
    let lines = import_changed(|json| {
        for merge in json["model"]["merges"].as_array_mut().unwrap() {
            *merge =
                format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()).into();
        }
    });
    assert_eq!(lines.unwrap().blob, import_json(&demo_json(), 4096).unwrap().blob);
}

#[test]
fn importing_twice_gives_the_same_bytes() {
    let [first, second] = [0, 1].map(|_| import(&data("gpt2"), 50257).unwrap().unwrap());
    assert_eq!(first, second);
}

#[test]
fn special_tokens_are_found_in_every_file() {
    let [vocab, merges, _] = demo_files();
    let with = |name, content: Value| {
        let dir = dir(&[vocab.clone(), merges.clone(), (name, content.to_string())]);
        let blob = import(dir.path(), 5000).unwrap().unwrap().blob;
        Tokenizer::parse(blob).unwrap()
    };
    // GPT-2's own is special without being told; so is a named one.
    let map = with(
        "special_tokens_map.json",
        json!({
            "additional_special_tokens": ["the", {"content": "he", "lstrip": true}, "[nowhere]"],
            "pad_token": null,
        }),
    );
    let the = map.table().added_token_id("the").unwrap();
    assert!(map.table().is_special(0) && map.table().is_special(the));
    assert_eq!(map.table().added_token_id("[nowhere]"), None);
    assert_eq!(map.encode("a   he", PARSE).unwrap().len(), 2);

    let added = with("added_tokens.json", json!({"<user>": 4100, "<|endoftext|>": 0}));
    assert_eq!(added.encode("<user>", EncodeOptions::default()).unwrap(), [4100]);
    assert!(added.table().is_special(0) && !added.table().is_special(4100));

    let options = json!({"content": "<bot>", "special": true, "rstrip": true, "normalized": false});
    let config = with("tokenizer_config.json", json!({"added_tokens_decoder": {"4099": options}}));
    assert_eq!(config.table().added_token(4099).unwrap().flags, layout::SPECIAL | layout::RSTRIP);
    assert_eq!(config.encode("<bot>  <bot>", PARSE).unwrap(), [4099, 4099]);

    let prefix = with("tokenizer_config.json", json!({"add_prefix_space": true}));
    assert!(prefix.table().add_prefix_space());
    let [with_space, without] = [" the", "the"].map(|text| prefix.encode(text, PARSE).unwrap());
    assert_eq!(with_space, without);
}

#[test]
fn unknown_features_are_named() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 15] = [
        ("normalizer NFKC", |j| j["normalizer"] = json!({"type": "NFKC"})),
        ("normalizer Prepend", |j| {
            j["normalizer"] = json!({"type": "Prepend", "prepend": "\u{2581}"})
        }),
        ("pre_tokenizer Split by x+", |j| {
            j["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
            ]});
        }),
        ("pre_tokenizer missing", |j| j["pre_tokenizer"] = Value::Null),
        ("pre_tokenizer Whitespace", |j| j["pre_tokenizer"] = json!({"type": "Whitespace"})),
        ("pre_tokenizer of unknown type", |j| j["pre_tokenizer"] = json!(7)),
        ("post_processor TemplateProcessing", |j| {
            j["post_processor"] = json!({"type": "TemplateProcessing"});
        }),
        ("decoder Metaspace", |j| j["decoder"] = json!({"type": "Metaspace"})),
        ("model Unigram", |j| j["model"] = json!({"type": "Unigram", "vocab": [["a", 0.0]]})),
        ("byte_fallback", |j| j["model"]["byte_fallback"] = json!(true)),
        ("dropout", |j| j["model"]["dropout"] = json!(0.1)),
        ("end_of_word_suffix", |j| j["model"]["end_of_word_suffix"] = json!("</w>")),
        ("continuing_subword_prefix", |j| j["model"]["continuing_subword_prefix"] = json!("##")),
        ("\"日本\" (id 4096) is not in the byte-level alphabet", |j| {
            j["model"]["vocab"]["日本"] = json!(4096);
        }),
        ("\"Ġthe\" (id 5000) is also a token in byte-level spelling", |j| {
            let vocab = j["model"]["vocab"].as_object_mut().unwrap();
            vocab.insert("Ġthe".into(), json!(5000));
            let added = json!({"id": 5000, "content": "Ġthe", "special": true});
            j["added_tokens"].as_array_mut().unwrap().push(added);
        }),
    ];
    for (named, change) in cases {
        let mut json = demo_json();
        change(&mut json);
        let error = import_json(&json, 6000).unwrap_err();
        assert!(matches!(error, TokenizerError::Unsupported { .. }), "{named}: {error}");
        let message = error.to_string();
        assert!(message.contains(named), "{named}: {message}");
        assert!(message.contains("tokenizer.json") && message.contains("--tokenizer"), "{message}");
    }
}

#[test]
fn neutral_options_are_accepted() {
    let changed = import_changed(|json| {
        json["model"]["dropout"] = json!(0.0);
        json["model"]["end_of_word_suffix"] = json!("");
        json["model"]["continuing_subword_prefix"] = json!("");
        json["model"]["unk_token"] = json!("<|endoftext|>");
        json["post_processor"] = Value::Null;
        json["truncation"] = json!({"max_length": 5});
        json["model"].as_object_mut().unwrap().remove("type");
    });
    assert_eq!(changed.unwrap().blob, import_json(&demo_json(), 4096).unwrap().blob);
}

#[test]
fn contradictions_are_named() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 7] = [
        ("merge 3839 needs token \"zqzq\"", |j| {
            j["model"]["merges"].as_array_mut().unwrap().push(json!(["zq", "zq"]));
        }),
        ("merge 0, \"a b c\", is not two tokens", |j| j["model"]["merges"] = json!(["a b c"])),
        ("shares its id 5", |j| j["model"]["vocab"]["unheard-of"] = json!(5)),
        ("shares its id 7", |j| j["added_tokens"][0] = json!({"id": 7, "content": "<x>"})),
        ("has id 7, but 0 in the vocabulary", |j| j["added_tokens"][0]["id"] = json!(7)),
        ("has no content", |j| j["added_tokens"][0]["content"] = json!("")),
        ("the limit is 1048576", |j| j["model"]["vocab"]["far"] = json!(4_000_000_000_u32)),
    ];
    for (named, change) in cases {
        let mut json = demo_json();
        change(&mut json);
        let error = import_json(&json, u32::MAX).unwrap_err();
        assert!(matches!(error, TokenizerError::Invalid { .. }), "{named}: {error}");
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
}

#[test]
fn ids_without_a_token_stay_empty() {
    let mut json = demo_json();
    json["added_tokens"].as_array_mut().unwrap().push(json!({"id": 4999, "content": "<new>"}));
    let imported = import_json(&json, 5120).unwrap();
    assert_eq!((imported.tokens, imported.unused_ids), (4097, 1023));
    let tokenizer = Tokenizer::parse(imported.blob).unwrap();
    assert_eq!(tokenizer.encode("<new>", PARSE).unwrap(), [4999]);
    for hole in [4096, 4998, 5000, 5119] {
        assert_eq!(tokenizer.table().token_bytes(hole), None);
    }
}

#[test]
fn added_tokens_beyond_the_model_are_left_out_with_a_warning() {
    let mut json = demo_json();
    json["added_tokens"].as_array_mut().unwrap().push(json!({"id": 4096, "content": "[PAD]"}));
    json["model"]["vocab"]["[PAD]"] = json!(4096);
    let imported = import_json(&json, 4096).unwrap();
    assert_eq!(imported.blob, import_json(&demo_json(), 4096).unwrap().blob);
    let [warning] = imported.warnings.as_slice() else { panic!("{:?}", imported.warnings) };
    assert!(warning.contains("[PAD]") && warning.contains("4096"), "{warning}");
}

#[test]
fn another_model_s_tokenizer_is_refused() {
    let error = import(&data("gpt2"), 4096).unwrap_err();
    assert!(matches!(error, TokenizerError::BeyondModel { vocab_size: 4096, .. }), "{error}");
    assert!(error.to_string().contains("another model's tokenizer"), "{error}");
}

#[test]
fn a_directory_without_a_tokenizer_is_no_error() {
    let empty = dir(&[("config.json", "{}".into())]);
    assert!(import(empty.path(), 10).unwrap().is_none());
}

#[test]
fn half_a_tokenizer_is_an_error() {
    let [vocab, merges, _] = demo_files();
    for (present, missing) in [(vocab, "merges.txt"), (merges, "vocab.json")] {
        let half = dir(&[present]);
        let error = import(half.path(), 4096).unwrap_err();
        assert!(matches!(error, TokenizerError::Missing { .. }), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[test]
fn other_classes_with_the_same_files_are_refused() {
    let [vocab, merges, _] = demo_files();
    for (config, named) in [
        (json!({"tokenizer_class": "CLIPTokenizer"}), "CLIPTokenizer"),
        (json!({"add_bos_token": true}), "add_bos_token, but no bos_token"),
        (json!({"add_bos_token": true, "bos_token": "<none>"}), "add_bos_token"),
    ] {
        let config = ("tokenizer_config.json", config.to_string());
        let dir = dir(&[vocab.clone(), merges.clone(), config]);
        let error = import(dir.path(), 4096).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// `add_bos_token` of `tokenizer_config.json` counts, whatever else a file says.
#[test]
fn the_token_that_begins_a_text_is_obeyed() {
    let [vocab, merges, _] = demo_files();
    let first = |files: &[(&str, String)]| {
        let imported = import(dir(files).path(), 4096).unwrap().unwrap();
        TokenTable::parse(imported.blob).unwrap().begin_of_text()
    };
    let config = |adds: bool| {
        let config = json!({"add_bos_token": adds, "bos_token": {"content": "<|endoftext|>"}});
        ("tokenizer_config.json", config.to_string())
    };
    let plain = ("tokenizer.json", demo_json().to_string());
    let mut json = demo_json();
    let special = json!({"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    json["post_processor"] = json!({
        "type": "TemplateProcessing", "single": [special, text], "pair": [],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]},
        },
    });
    let begun = ("tokenizer.json", json.to_string());
    assert_eq!(first(std::slice::from_ref(&plain)), None);
    assert_eq!(first(std::slice::from_ref(&begun)), Some(0));
    for files in [vec![plain], vec![begun], vec![vocab, merges]] {
        for adds in [true, false] {
            let files = [&files[..], &[config(adds)]].concat();
            assert_eq!(first(&files), adds.then_some(0), "{files:.60?}");
        }
    }
}

#[test]
fn damaged_files_are_named() {
    for content in ["", "{", "[]", "{\"model\": {\"vocab\": {\"a\": -1}}}", &"[".repeat(100_000)] {
        let dir = dir(&[("tokenizer.json", content.to_string())]);
        let error = import(dir.path(), 4096).unwrap_err();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tokenizer.json")).unwrap();
    let error = import(dir.path(), 4096).unwrap_err();
    assert!(matches!(error, TokenizerError::NotAFile { .. }), "{error}");
}
