//! Takes a checkpoint's chat template into the model file, with a simple form of it that needs no template
//! engine, and the tokens that end an answer.

mod error;
mod form;
mod read;

use std::path::{Path, PathBuf};

use cerebellum::format::{ChatFormat, Config, MAX_CHAT_TEMPLATE_BYTES, MAX_END_TOKENS};
use cerebellum::text::TokenTable;

pub use error::ChatTemplateError;
pub use form::simple_form;
use read::Found;

/// What of a checkpoint concerns conversations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportedChat {
    /// How the model is put conversations, if the checkpoint says so.
    pub format: Option<ChatFormat>,
    /// Tokens that end a text besides the configuration's end-of-text token.
    pub end_tokens: Vec<u32>,
    /// What could not be taken, one sentence each, to be shown to the user.
    pub warnings: Vec<String>,
}

/// Reads what the checkpoint at `path` (a directory, or a GGUF file) says of conversations, for a model with
/// this configuration and these tables of a tokenizer. A template that cannot be used is left out with a
/// warning: the model is none the worse for it.
///
/// In a directory these are `chat_template.jinja`, or `chat_template` in `tokenizer_config.json` (a text, or a
/// list with one of the name `default`); and `eos_token_id` of `generation_config.json` and `config.json`. In a
/// GGUF file, `tokenizer.chat_template` and the ids of the tokens that end a text and a turn.
///
/// # Errors
/// [`ChatTemplateError`], naming the file.
pub fn import(
    path: &Path,
    config: &Config,
    tokenizer: Option<&[u8]>,
) -> Result<ImportedChat, ChatTemplateError> {
    import_with(path, config, tokenizer, None)
}

/// As [`import`], with this template instead of the checkpoint's.
///
/// # Errors
/// Those of [`import`].
pub fn import_with(
    path: &Path,
    config: &Config,
    tokenizer: Option<&[u8]>,
    template: Option<String>,
) -> Result<ImportedChat, ChatTemplateError> {
    let mut found = if path.is_file() { read::gguf(path)? } else { read::directory(path)? };
    found.template = template.or(found.template);
    let table = tokenizer.and_then(|blob| TokenTable::parse(blob).ok());
    Ok(take(found, config, table.as_ref()))
}

/// The files that [`import`] reads of the checkpoint at `path`, as far as they are there.
pub fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    read::FILES.iter().map(|name| path.join(name)).filter(|path| path.exists()).collect()
}

/// Names of all files of a directory that [`import`] may read.
#[cfg(feature = "hub")]
pub(crate) fn file_names() -> impl Iterator<Item = &'static str> {
    read::FILES.into_iter()
}

fn take(found: Found, config: &Config, table: Option<&TokenTable<&[u8]>>) -> ImportedChat {
    let mut imported = ImportedChat::default();
    let id = |text: &str| table.and_then(|table| table.added_token_id(text));
    let mut ends = found.end_tokens;
    ends.extend(found.end_texts.iter().filter_map(|text| id(text)));
    if let Some(template) = found.template {
        let bytes = template.len();
        let mut format = ChatFormat {
            beginning_token: found.beginning_token,
            end_token: found.end_token,
            ..ChatFormat::default()
        };
        match simple_form(&template, &format.beginning_token, &format.end_token) {
            Ok(form) => {
                let end = table.and_then(|table| end_of_turn(table, &form.assistant.after));
                ends.extend(end);
                format.form = Some(form);
            }
            Err(why) => imported.warnings.push(format!(
                "the chat template has no simple form ({why}): a library without the feature `chat` cannot use it"
            )),
        }
        if bytes <= MAX_CHAT_TEMPLATE_BYTES {
            format.template = Some(template);
        } else {
            imported.warnings.push(format!(
                "the chat template is left out: it has {bytes} bytes, {MAX_CHAT_TEMPLATE_BYTES} are allowed"
            ));
        }
        let any = format.template.is_some() || format.form.is_some();
        imported.format = Some(format).filter(|_| any && table.is_some());
    }
    ends.retain(|&token| {
        (token as usize) < config.vocab_size && Some(token) != config.eos_token_id
    });
    let mut known = Vec::new();
    ends.retain(|token| {
        !known.contains(token) && {
            known.push(*token);
            true
        }
    });
    if ends.len() > MAX_END_TOKENS {
        ends.truncate(MAX_END_TOKENS);
        imported.warnings.push(format!("of the tokens that end a text, {MAX_END_TOKENS} are kept"));
    }
    imported.end_tokens = ends;
    imported
}

/// The control token that an answer is followed by, if it is.
fn end_of_turn(table: &TokenTable<&[u8]>, after: &str) -> Option<u32> {
    let after = after.trim_start();
    let special = table.added_tokens().filter(|token| table.is_special(token.id));
    let written = special.filter(|token| {
        let bytes = table.token_bytes(token.id).unwrap_or_default();
        !bytes.is_empty() && after.as_bytes().starts_with(bytes)
    });
    written.max_by_key(|token| table.token_bytes(token.id).map(<[u8]>::len)).map(|token| token.id)
}

#[cfg(test)]
mod tests {
    use cerebellum::format::Config;

    use super::*;

    fn template(name: &str) -> String {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/chat");
        std::fs::read_to_string(format!("{directory}/{name}.jinja")).unwrap()
    }

    #[test]
    fn usual_templates_have_simple_forms() {
        for (name, tokens, system, in_user) in [
            ("smollm2", ("<|im_start|>", "<|im_end|>"), true, false),
            ("qwen2.5", ("", "<|im_end|>"), true, false),
            ("qwen3", ("", "<|im_end|>"), true, false),
            ("gemma3", ("<bos>", "<eos>"), true, true),
            ("mistral-v0.1", ("<s>", "</s>"), false, false),
            ("zephyr", ("<s>", "</s>"), true, false),
        ] {
            let form = simple_form(&template(name), tokens.0, tokens.1);
            let form = form.unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!((form.system.is_some(), form.system_in_user), (system, in_user), "{name}");
            assert_eq!(form.drop_thinking, name == "qwen3");
            assert_eq!(form.user.trim, name == "gemma3");
        }
    }

    #[test]
    fn what_has_no_simple_form_says_why() {
        for (template, why) in [
            (&*template("llama3.2"), "it writes the date"),
            (&template("granite3.3"), "it writes the date"),
            (&template("mistral-nemo"), "system message"),
            (&template("phi3"), "otherwise"),
            ("{{ messages[0].content }}", "leaves messages out"),
            ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "repeats"),
            ("{{ raise_exception('no') }}", "no"),
            ("{% for", "unexpected end"),
        ] {
            let error = simple_form(template, "<s>", "</s>").unwrap_err();
            assert!(error.contains(why), "{template}: {error}");
        }
    }

    #[test]
    fn files_of_a_directory_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let import = || {
            let mut config = Config::gpt2(100, 8, 64, 1, 1);
            config.eos_token_id = Some(0);
            import(path, &config, None).unwrap()
        };
        assert_eq!(import(), ImportedChat::default());
        let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
        write("generation_config.json", r#"{"eos_token_id": [0, 7, 100, 7]}"#);
        write("config.json", r#"{"eos_token_id": 9}"#);
        assert_eq!(import().end_tokens, [7, 9]);
        let read = || read::directory(path).unwrap();
        write(
            "tokenizer_config.json",
            r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": null,
                "chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}"#,
        );
        let found = read();
        assert_eq!((&*found.beginning_token, &*found.end_token), ("<s>", "</s>"));
        assert_eq!(found.template.as_deref(), Some("d"));
        write("tokenizer_config.json", r#"{"chat_template": "one"}"#);
        assert_eq!(read().template.as_deref(), Some("one"));
        write("chat_template.jinja", "beside");
        assert_eq!(read().template.as_deref(), Some("beside"));
        write("tokenizer_config.json", "{");
        assert!(read::directory(path).is_err());
    }
}
