//! Texts and token ids of requests: one or several, as strings or as numbers.

use cerebellum::TokenizerBytes;
use cerebellum::text::{EncodeOptions, Tokenizer};
use serde::Deserialize;

use crate::serve::refusal::Refusal;

/// Prompts, or inputs of embeddings.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Prompts {
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Token ids of a text.
    Tokens(Vec<u32>),
    /// Token ids of several.
    TokenLists(Vec<Vec<u32>>),
}

/// A prompt as the model gets it.
pub struct Prompt {
    /// Its text, decoded if it came as token ids.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

impl Prompts {
    /// The prompts, each of which is to fit into `context` positions.
    ///
    /// # Errors
    /// If one is too long; if there is none.
    pub fn prompts(
        self,
        tokenizer: &Tokenizer<TokenizerBytes>,
        context: usize,
    ) -> Result<Vec<Prompt>, Refusal> {
        let of_text = |text: String| {
            let tokens = encode(tokenizer, &text, context)?;
            Ok(Prompt { text, tokens })
        };
        let of_tokens = |tokens: Vec<u32>| {
            check_length(tokens.len(), context)?;
            Ok(Prompt { text: decode(tokenizer, &tokens), tokens })
        };
        let prompts: Vec<Prompt> = match self {
            Self::Text(text) => vec![of_text(text)?],
            Self::Texts(texts) => texts.into_iter().map(of_text).collect::<Result<_, Refusal>>()?,
            Self::Tokens(tokens) => vec![of_tokens(tokens)?],
            Self::TokenLists(lists) => {
                lists.into_iter().map(of_tokens).collect::<Result<_, Refusal>>()?
            }
        };
        if prompts.is_empty() {
            return Err(Refusal::bad("the list is empty; give a text"));
        }
        Ok(prompts)
    }
}

/// The tokens of a text at the beginning of a context.
///
/// # Errors
/// If there are more than `context`.
pub fn encode(
    tokenizer: &Tokenizer<TokenizerBytes>,
    text: &str,
    context: usize,
) -> Result<Vec<u32>, Refusal> {
    let options = EncodeOptions::default().at_the_beginning();
    let tokens = tokenizer.encode_within(text, options, context)?;
    check_length(tokens.len(), context)?;
    Ok(tokens)
}

/// Fails if so many tokens do not fit.
///
/// # Errors
/// As it says.
pub fn check_length(tokens: usize, context: usize) -> Result<(), Refusal> {
    match tokens <= context {
        true => Ok(()),
        false => Err(cerebellum::Error::ContextFull { position: 0, tokens, context }.into()),
    }
}

/// The text of tokens; bytes that are no character become replacement characters.
pub fn decode(tokenizer: &Tokenizer<TokenizerBytes>, tokens: &[u32]) -> String {
    let mut bytes = Vec::new();
    tokenizer.table().decode_into(tokens, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
