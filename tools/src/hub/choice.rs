//! Which files of a repository are needed: those that the readers of checkpoints, tokenizers and chat templates
//! read, and no weights in a second format.

use cerebellum::format::is_template_name;

use super::error::{Error, Result};
use super::name::Name;
use crate::checkpoint::{ADAPTER_CONFIG, CONFIG, weight_files};
use crate::{chat_template, tokenizer};

/// Files of a repository.
#[derive(Debug, PartialEq)]
pub(super) struct Choice {
    /// Paths in the repository.
    pub files: Vec<String>,
    /// The one of them that names shards, which are needed, too.
    pub index: Option<String>,
    /// Whether the model is the first file, and not the directory with all of them.
    pub is_file: bool,
}

/// Chooses among all files of a repository.
///
/// # Errors
/// [`Error::File`], [`Error::NoWeights`], [`Error::SeveralModels`] and [`Error::Part`].
pub(super) fn choose(name: &Name, files: &[String]) -> Result<Choice> {
    let has = |wanted: &str| files.iter().any(|file| file == wanted);
    let gguf: Vec<&String> =
        files.iter().filter(|file| file.to_ascii_lowercase().ends_with(".gguf")).collect();
    if let Some(file) = &name.file {
        if !has(file) {
            let alternatives = gguf.into_iter().cloned().collect();
            let repository = Name { file: None, ..name.clone() }.to_string();
            return Err(Error::File { name: repository, file: file.clone(), alternatives });
        }
        return single(file);
    }
    for (whole, index) in weight_files() {
        let (weights, index) = match (has(whole), has(index)) {
            // As the reader prefers it.
            (true, _) => (whole, None),
            (false, true) => (index, Some(index.to_owned())),
            (false, false) => continue,
        };
        return Ok(Choice { files: directory(files, weights), index, is_file: false });
    }
    match gguf[..] {
        [file] => single(file),
        // Named for what it is when it is opened.
        [] if has(ADAPTER_CONFIG) => {
            Ok(Choice { files: vec![ADAPTER_CONFIG.to_owned()], index: None, is_file: false })
        }
        [] => Err(Error::NoWeights { name: name.to_string(), files: files.to_vec() }),
        _ => {
            let named = |file: &&String| Name { file: Some((*file).clone()), ..name.clone() };
            let names = gguf.iter().map(|file| named(file).to_string()).collect();
            Err(Error::SeveralModels { name: name.to_string(), names })
        }
    }
}

/// A GGUF file, which has everything inside.
fn single(file: &str) -> Result<Choice> {
    if is_part(file) {
        return Err(Error::Part { file: file.to_owned() });
    }
    Ok(Choice { files: vec![file.to_owned()], index: None, is_file: true })
}

/// Small files first, so that what is wrong with them is seen before the weights are loaded.
fn directory(files: &[String], weights: &str) -> Vec<String> {
    let has = |wanted: &str| files.iter().any(|file| file == wanted);
    let mut chosen: Vec<&str> = vec![CONFIG];
    chosen.extend(tokenizer::file_names(has));
    chosen.extend(chat_template::file_names());
    let templates = files.iter().map(String::as_str).filter(|file| is_template(file));
    let mut unique: Vec<String> = Vec::new();
    for file in chosen.into_iter().chain(templates) {
        if has(file) && !unique.iter().any(|other| other == file) {
            unique.push(file.to_owned());
        }
    }
    unique.push(weights.to_owned());
    unique
}

/// Whether a file is one of the templates that `quantize` takes along: `templates/NAME.txt`.
fn is_template(file: &str) -> bool {
    let name = file.strip_prefix("templates/").and_then(|file| file.strip_suffix(".txt"));
    name.is_some_and(is_template_name)
}

/// Whether a GGUF file is one of several that make a model: `…-00001-of-00003.gguf`.
fn is_part(file: &str) -> bool {
    let stem = &file[..file.len() - ".gguf".len()];
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts =
        stem.rsplit_once("-of-").and_then(|(rest, all)| Some((rest.rsplit_once('-')?.1, all)));
    parts.is_some_and(|(part, all)| number(part) && number(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn choose_of(name: &str, files: &[&str]) -> Result<Choice> {
        let name = Name::of(Path::new(name)).unwrap().unwrap();
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        choose(&name, &files)
    }

    /// What a model of today has, and more than is needed.
    const EVERYTHING: [&str; 22] = [
        ".gitattributes",
        "README.md",
        "added_tokens.json",
        "chat_template.jinja",
        "config.json",
        "consolidated.00.pth",
        "consolidated.safetensors",
        "flax_model.msgpack",
        "generation_config.json",
        "merges.txt",
        "model.fp16.safetensors",
        "model.safetensors",
        "onnx/model.onnx",
        "pytorch_model.bin",
        "rust_model.ot",
        "special_tokens_map.json",
        "tf_model.h5",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "templates/reply.txt",
    ];

    #[test]
    fn only_what_is_read_is_chosen() {
        let choice = choose_of("hf:a/b", &EVERYTHING).unwrap();
        let expected = [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "added_tokens.json",
            "special_tokens_map.json",
            "chat_template.jinja",
            "generation_config.json",
            "templates/reply.txt",
            "model.safetensors",
        ];
        assert_eq!(choice.files, expected);
        assert_eq!((choice.index, choice.is_file), (None, false));
    }

    #[test]
    fn without_tokenizer_json_the_older_files_are() {
        let files = ["config.json", "merges.txt", "vocab.json", "pytorch_model.bin"];
        let choice = choose_of("hf:a/b", &files).unwrap();
        assert_eq!(choice.files, ["config.json", "vocab.json", "merges.txt", "pytorch_model.bin"]);
    }

    #[test]
    fn an_index_stands_for_its_shards() {
        let (index, bin) = ("model.safetensors.index.json", "pytorch_model.bin");
        let choice =
            choose_of("hf:a/b", &["config.json", bin, index, "model-00001-of-00002.safetensors"]);
        let choice = choice.unwrap();
        assert_eq!(choice.index.as_deref(), Some(index));
        assert_eq!(choice.files, ["config.json", index]);
        // One file wins over an index, as in the reader.
        let choice = choose_of("hf:a/b", &["config.json", index, "model.safetensors"]).unwrap();
        assert_eq!(
            (choice.index, choice.files.last().unwrap().as_str()),
            (None, "model.safetensors")
        );
    }

    #[test]
    fn gguf_files_are_chosen_by_name_or_alone() {
        let files = ["README.md", "x-q4.gguf", "sub/x-q8.gguf"];
        let file = choose_of("hf:a/b/sub/x-q8.gguf@v1", &files).unwrap();
        assert_eq!((file.files, file.is_file), (vec!["sub/x-q8.gguf".to_owned()], true));
        assert!(choose_of("hf:a/b", &files[..2]).unwrap().is_file);
        let several = choose_of("hf:a/b@v1", &files).unwrap_err().to_string();
        assert!(several.contains("hf:a/b/x-q4.gguf@v1, hf:a/b/sub/x-q8.gguf@v1"), "{several}");
        let missing = choose_of("hf:a/b/y.gguf", &files).unwrap_err().to_string();
        assert!(missing.contains("\"y.gguf\"; it has x-q4.gguf, sub/x-q8.gguf"), "{missing}");
        let part = choose_of("hf:a/b", &["x-00001-of-00003.gguf"]).unwrap_err();
        assert!(matches!(part, Error::Part { .. }), "{part}");
    }

    #[test]
    fn nothing_to_convert_is_said_with_what_is_there() {
        let error = choose_of("hf:a/b", &["README.md", "model.onnx"]).unwrap_err().to_string();
        assert!(error.contains("its files are README.md, model.onnx"), "{error}");
        let adapter = choose_of("hf:a/b", &["adapter_config.json", "adapter_model.safetensors"]);
        assert_eq!(adapter.unwrap().files, ["adapter_config.json"]);
    }
}
