//! What a model file says of texts: where they begin and end, and how conversations are put.

use std::fmt;

use cerebellum::Error;
use cerebellum::chat::{ChatOptions, ChatTemplate, Date, Message, Role};
use cerebellum::format::{ChatFormat, FileLayout, Header, TensorKind};
use cerebellum::terminal::quoted;
use cerebellum::text::{TokenTable, Tokenizer};
use serde::Serialize;

/// Fields of a file's report.
#[derive(Serialize)]
pub struct TextReport {
    /// Bytes of the chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template_bytes: Option<usize>,
    /// Whether there is a form of it that needs no template engine.
    pub chat_form: bool,
    /// Tokens that end a text or an answer.
    pub end_tokens: Vec<Token>,
    /// The token that the model wants before every text.
    pub begin_of_text: Option<Token>,
}

/// A token and its text.
#[derive(Serialize)]
pub struct Token {
    pub id: u32,
    pub text: String,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.id, quoted(&self.text))
    }
}

impl TextReport {
    /// Of a file with this content.
    pub fn new(file: &[u8], header: &Header, layout: &FileLayout) -> Self {
        let table = table(file, layout);
        let token = |id: u32| {
            let bytes = table.as_ref().and_then(|table| table.token_bytes(id)).unwrap_or_default();
            Token { id, text: String::from_utf8_lossy(bytes).into_owned() }
        };
        // One that cannot be read is for `verify` to tell.
        let chat = header.chat.as_ref().and_then(|chat| ChatFormat::parse(chat.text()).ok());
        let chat = chat.unwrap_or_default();
        let ends = header.config.eos_token_id.into_iter().chain(header.end_tokens.iter().copied());
        Self {
            chat_template_bytes: chat.template.as_ref().map(String::len),
            chat_form: chat.form.is_some(),
            end_tokens: ends.map(token).collect(),
            begin_of_text: table.as_ref().and_then(TokenTable::begin_of_text).map(token),
        }
    }

    /// Lines of a name and a value.
    pub fn lines(&self) -> [(&'static str, String); 4] {
        let listed = |tokens: &[Token]| match tokens {
            [] => "none".to_owned(),
            tokens => tokens.iter().map(Token::to_string).collect::<Vec<_>>().join(", "),
        };
        let form = match (self.chat_form, self.chat_template_bytes) {
            (true, _) => "yes: conversations need no template engine",
            (false, Some(_)) => "no: conversations need the template engine",
            (false, None) => "none",
        };
        let template = self.chat_template_bytes.map_or("none".into(), |n| format!("{n} bytes"));
        [
            ("chat template", template),
            ("simple form", form.to_owned()),
            ("end tokens", listed(&self.end_tokens)),
            ("begin of text", listed(self.begin_of_text.as_slice())),
        ]
    }
}

fn table<'a>(file: &'a [u8], layout: &FileLayout) -> Option<TokenTable<&'a [u8]>> {
    let tensor = layout.tensors().iter().find(|tensor| tensor.kind == TensorKind::Tokenizer)?;
    TokenTable::parse(file.get(tensor.range.clone())?).ok()
}

fn detail(error: Error) -> String {
    match error {
        Error::Chat(detail) => detail,
        error => error.to_string(),
    }
}

/// What is wrong with a file's way to put conversations, if it has one: a message of the user's must become
/// tokens.
pub fn check_chat(file: &[u8], header: &Header, layout: &FileLayout) -> Option<Result<(), String>> {
    let chat = header.chat.as_ref()?;
    let check = || -> Result<(), String> {
        let format = ChatFormat::parse(chat.text())?;
        let table = table(file, layout).ok_or("the file has no sound tokenizer")?;
        let tokenizer = Tokenizer::from(table);
        let options = ChatOptions { date: Date::parse("2025-01-31"), thinking: None };
        let messages = [Message::new(Role::User, "Hello")];
        // The engine, if there is a template, and the simple form.
        let engine_only = ChatFormat { form: None, ..format.clone() };
        let formats = [Some(engine_only).filter(|format| format.template.is_some()), Some(format)];
        for format in formats.into_iter().flatten() {
            let template = ChatTemplate::new(format, &tokenizer).map_err(detail)?;
            template.tokens(&tokenizer, &messages, true, options).map_err(detail)?;
        }
        Ok(())
    };
    Some(check())
}
