//! What answers are made of.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use cerebellum::TokenizerBytes;
use cerebellum::generate::StopReason;
use cerebellum::text::Tokenizer;
use serde::{Serialize, Serializer};

use crate::serve::engine::Chance;

/// What all pieces of an answer have in common.
#[derive(Clone, Debug)]
pub struct About {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
}

/// An answer with choices, or a piece of one.
#[derive(Serialize)]
struct Answer<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<C>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

impl About {
    /// An answer of this model that begins now.
    pub fn new(id: String, object: &'static str, model: &str) -> Self {
        Self { id, object, created: now(), model: model.to_owned() }
    }

    /// Its JSON with these choices.
    pub fn answer<C: Serialize>(&self, choices: Vec<C>, usage: Option<Usage>) -> impl Serialize {
        let Self { id, object, created, model } = self;
        Answer { id, object, created: *created, model, choices, usage }
    }
}

/// How many tokens there were.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    /// Of the prompts.
    pub prompt_tokens: usize,
    /// Of the texts.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// More about the prompts.
    pub prompt_tokens_details: PromptDetails,
}

/// More about the prompts.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PromptDetails {
    /// How many of their tokens were not evaluated again.
    pub cached_tokens: usize,
}

/// Why a text ended, as OpenAI's clients know it.
pub fn finish_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::MaxTokens | StopReason::ContextFull | StopReason::Incomplete => "length",
        _ => "stop",
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A token's text; bytes that are no whole character become replacement characters.
pub fn token_text(tokenizer: &Tokenizer<TokenizerBytes>, token: u32) -> String {
    String::from_utf8_lossy(tokenizer.table().token_bytes(token).unwrap_or_default()).into_owned()
}

/// The log-probabilities of a completion's tokens.
#[derive(Debug, Default, Serialize)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    token_ids: Vec<u32>,
    token_logprobs: Vec<Option<f64>>,
    /// Null where the text begins, or its form left no choice.
    top_logprobs: Vec<Option<Top>>,
    text_offset: Vec<usize>,
    #[serde(skip)]
    characters: usize,
}

/// Tokens by their texts, the most probable first.
#[derive(Debug)]
struct Top(Vec<(String, f64)>);

impl Serialize for Top {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Different tokens may have the same text; the most probable one stands for it.
        let mut first = BTreeMap::new();
        for (i, (text, _)) in self.0.iter().enumerate() {
            first.entry(text).or_insert(i);
        }
        let kept = self.0.iter().enumerate().filter(|(i, (text, _))| first[text] == *i);
        serializer.collect_map(kept.map(|(_, (text, value))| (text, value)))
    }
}

impl CompletionLogprobs {
    /// Those of a text that begins behind so many characters.
    pub fn from(characters: usize) -> Self {
        Self { characters, ..Self::default() }
    }

    /// Adds a token.
    pub fn push(
        &mut self,
        tokenizer: &Tokenizer<TokenizerBytes>,
        token: u32,
        chance: Option<&Chance>,
    ) {
        let text = token_text(tokenizer, token);
        self.text_offset.push(self.characters);
        self.characters += text.chars().count();
        self.tokens.push(text);
        self.token_ids.push(token);
        self.token_logprobs.push(chance.map(|chance| chance.log_probability));
        self.top_logprobs.push(chance.map(|chance| {
            Top(chance.top.iter().map(|&(id, p)| (token_text(tokenizer, id), p)).collect())
        }));
    }

    /// How many characters the text has so far.
    pub fn characters(&self) -> usize {
        self.characters
    }
}

/// The log-probability of an answer's token.
#[derive(Debug, Serialize)]
pub struct ChatLogprob {
    #[serde(flatten)]
    token: ChatToken,
    top_logprobs: Vec<ChatToken>,
}

#[derive(Debug, Serialize)]
struct ChatToken {
    token: String,
    id: u32,
    /// Null where the form left no choice.
    logprob: Option<f64>,
    bytes: Vec<u8>,
}

impl ChatToken {
    fn new(tokenizer: &Tokenizer<TokenizerBytes>, id: u32, logprob: Option<f64>) -> Self {
        let bytes = tokenizer.table().token_bytes(id).unwrap_or_default().to_vec();
        Self { token: token_text(tokenizer, id), id, logprob, bytes }
    }
}

impl ChatLogprob {
    /// Of a token.
    pub fn new(tokenizer: &Tokenizer<TokenizerBytes>, token: u32, chance: Option<&Chance>) -> Self {
        let top = chance.map_or(&[][..], |chance| &chance.top);
        Self {
            token: ChatToken::new(tokenizer, token, chance.map(|it| it.log_probability)),
            top_logprobs: top
                .iter()
                .map(|&(id, p)| ChatToken::new(tokenizer, id, Some(p)))
                .collect(),
        }
    }
}
