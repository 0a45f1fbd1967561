//! Chat templates of any bytes, with any messages: each ends in a text and its tokens or in an error. The fuzz
//! target `chat` runs this, too, and holds it to a bound of memory.
//!
//! Bytes choose: the first one the options; the template, or what the header has of conversations, up to a zero
//! byte; and messages, with a zero byte between them.

#[path = "chat_memory.rs"]
mod chat_memory;

use std::time::Duration;

use cerebellum::chat::{ChatOptions, ChatTemplate, Date, Message, Role};
use cerebellum::format::ChatFormat;
use cerebellum::text::Tokenizer;
use cerebellum::{Error, Result};

/// A text is at most so much longer than four times its messages.
const EXTRA: usize = 1 << 20;

/// What any template may take. The processor's time is not told of a thread of its own, so this is long for a
/// machine that is busy: the slowest take half a second.
pub const TIME: Duration = Duration::from_secs(20);

/// The template and the messages that the bytes ask for.
fn parse(bytes: &[u8]) -> (u8, ChatFormat, Vec<Message>) {
    let (&choice, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let mut parts = bytes.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let template = parts.next().unwrap_or_default();
    let format = ChatFormat::parse(&template).unwrap_or_else(|_| ChatFormat {
        template: Some(template.into_owned()),
        beginning_token: "<|end|>".into(),
        end_token: "<|end|>".into(),
        ..ChatFormat::default()
    });
    let mut roles = [Role::User, Role::Assistant].into_iter().cycle();
    let mut first = Some(Role::System).filter(|_| choice & 1 == 1);
    let messages = parts
        .map(|content| Message::new(first.take().or_else(|| roles.next()).unwrap(), content))
        .collect();
    (choice, format, messages)
}

/// The most bytes of memory that [`chat`] may take: what the library asks for before the engine runs, and 1 KiB for
/// each byte of the input.
#[allow(dead_code, reason = "the fuzz target's bound")]
pub fn most_memory(bytes: &[u8]) -> usize {
    let (_, _, messages) = parse(bytes);
    chat_memory::asked_for(&messages) + (1 << 20) + (bytes.len() << 10)
}

/// Makes the text and the tokens that the bytes ask for; returns how many bytes the text has.
pub fn chat(bytes: &[u8]) -> Result<usize> {
    let (choice, format, messages) = parse(bytes);
    let options = ChatOptions {
        date: Date::new(2024, 7, 26),
        thinking: [None, Some(false), Some(true)][usize::from(choice >> 2) % 3],
    };
    let answer = choice & 2 == 2;

    let table = include_bytes!("../data/hostile/tokenizer_table/seed.bin");
    let tokenizer = Tokenizer::parse(&table[..]).unwrap();
    let has_template = format.template.is_some();
    let template = ChatTemplate::new(format, &tokenizer)?;
    let tokens = template.tokens(&tokenizer, &messages, answer, options);
    if let Ok(tokens) = &tokens {
        let known = |id: &u32| tokenizer.table().token_bytes(*id).is_some();
        assert!(tokens.iter().all(known), "a token that does not exist");
    }
    // It is put a conversation with tools, too.
    match template.call_notation(tokenizer.table(), options) {
        Ok(_) | Err(Error::Chat(_)) => {}
        Err(error) => return Err(error),
    }
    let text = template.text(&messages, answer, options)?;
    let content: usize = messages.iter().map(|message| message.content.len()).sum();
    assert!(!has_template || text.len() <= 4 * content + EXTRA, "{} bytes of text", text.len());
    match tokens {
        // The table has tokens for few bytes.
        Ok(_) | Err(Error::Text(_)) => Ok(text.len()),
        Err(error) => Err(error),
    }
}

/// What the fuzz target starts from, and what was once a fault.
#[test]
fn templates_of_any_bytes() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hostile/chat");
    let mut texts = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let start = std::time::Instant::now();
        let result = chat(&std::fs::read(&path).unwrap());
        let name = path.file_name().unwrap().to_str().unwrap();
        match result {
            Ok(_) => texts += 1,
            Err(Error::Chat(_)) if !name.starts_with("seed") => {}
            Err(error) => panic!("{name}: {error}"),
        }
        assert!(start.elapsed() < TIME, "{name}");
    }
    assert!(texts >= 4, "{texts}");
}
