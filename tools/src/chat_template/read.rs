//! Reads what files of a checkpoint say of conversations.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use serde::Deserialize;

use super::error::ChatTemplateError;
use crate::gguf::{Gguf, Value, keys};
use crate::json::{self, Object};

/// The largest file that is read: `tokenizer_config.json` has up to some hundred KB.
const MAX_FILE_BYTES: u64 = 16 << 20;

const TEMPLATE: &str = "chat_template.jinja";
const TOKENIZER: &str = "tokenizer_config.json";
const GENERATION: &str = "generation_config.json";
const CONFIG: &str = "config.json";

/// All files of a directory that are read.
pub const FILES: [&str; 4] = [TEMPLATE, TOKENIZER, GENERATION, CONFIG];

const GGUF_BEGINNING: &str = "tokenizer.ggml.bos_token_id";

/// What a checkpoint says, unchecked.
#[derive(Debug, Default)]
pub struct Found {
    pub template: Option<String>,
    pub beginning_token: String,
    pub end_token: String,
    pub end_tokens: Vec<u32>,
    /// The same as texts.
    pub end_texts: Vec<String>,
}

/// A token of `tokenizer_config.json`: its text alone, or with options.
#[derive(Deserialize)]
#[serde(untagged)]
enum NamedToken {
    Text(String),
    Full { content: String },
}

impl NamedToken {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Full { content: text } => text,
        }
    }
}

/// `chat_template`: a text, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Several(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

/// One id, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

pub fn directory(directory: &Path) -> Result<Found, ChatTemplateError> {
    let mut found = Found::default();
    if let Some(bytes) = read(&directory.join(TOKENIZER))? {
        let path = directory.join(TOKENIZER);
        let object: Object = parse(&path, &bytes)?;
        let token = |key| -> Result<String, ChatTemplateError> {
            // What is no text and no object is null, or false.
            let token = object.text(key).and_then(|text| serde_json::from_str(text).ok());
            Ok(token.map_or_else(String::new, NamedToken::text))
        };
        (found.beginning_token, found.end_token) = (token("bos_token")?, token("eos_token")?);
        found.end_texts.extend((!found.end_token.is_empty()).then(|| found.end_token.clone()));
        found.template = match object.get("chat_template").map_err(|e| invalid(&path, e))? {
            None => None,
            Some(Templates::One(template)) => Some(template),
            Some(Templates::Several(all)) => {
                all.into_iter().find(|it| it.name == "default").map(|it| it.template)
            }
        };
    }
    if let Some(bytes) = read(&directory.join(TEMPLATE))? {
        let path = directory.join(TEMPLATE);
        found.template = Some(String::from_utf8(bytes).map_err(|e| invalid(&path, e))?);
    }
    for name in [GENERATION, CONFIG] {
        let path = directory.join(name);
        let Some(bytes) = read(&path)? else { continue };
        let object: Object = parse(&path, &bytes)?;
        let Some(text) = object.text("eos_token_id") else { continue };
        // An id that is no number is the checkpoint reader's to refuse.
        match serde_json::from_str(text) {
            Ok(Ids::One(id)) => found.end_tokens.push(id),
            Ok(Ids::Several(ids)) => found.end_tokens.extend(ids),
            Err(_) => {}
        }
    }
    Ok(found)
}

pub fn gguf(path: &Path) -> Result<Found, ChatTemplateError> {
    let io = |source| ChatTemplateError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is only read, as bytes that may have any value, and is dropped in this function; that
    // nobody changes the file meanwhile is asked of whoever quantizes it.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    let gguf = Gguf::parse(&map).map_err(|e| invalid(path, e))?;
    let id = |key| match gguf.get(key) {
        Some(Value::Int(id)) => u32::try_from(id).ok(),
        _ => None,
    };
    let text = |id: Option<u32>| match (gguf.get(keys::TOKENS), id) {
        (Some(Value::Array(tokens)), Some(id)) => match tokens.iter().nth(id as usize) {
            Some(Value::Text(text)) => text.to_owned(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    Ok(Found {
        template: match gguf.get(keys::CHAT_TEMPLATE) {
            Some(Value::Text(template)) => Some(template.to_owned()),
            _ => None,
        },
        beginning_token: text(id(GGUF_BEGINNING)),
        end_token: text(id(keys::END_TOKENS[0])),
        end_tokens: keys::END_TOKENS.into_iter().filter_map(id).collect(),
        end_texts: Vec::new(),
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ChatTemplateError> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(None) };
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(invalid(path, format!("no file of at most {MAX_FILE_BYTES} bytes")));
    }
    let bytes = std::fs::read(path);
    bytes.map(Some).map_err(|source| ChatTemplateError::Io { path: path.into(), source })
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, bytes: &'a [u8]) -> Result<T, ChatTemplateError> {
    json::parse(bytes).map_err(|e| invalid(path, e))
}

fn invalid(path: &Path, detail: impl ToString) -> ChatTemplateError {
    ChatTemplateError::Invalid { path: path.into(), detail: detail.to_string() }
}
