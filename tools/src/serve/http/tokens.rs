//! `/tokenize` and `/detokenize`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use cerebellum::chat::ChatOptions;
use cerebellum::text::EncodeOptions;
use serde::Serialize;
use serde_json::Value;

use super::{Server, body, on_a_thread};
use crate::serve::refusal::Refusal;
use crate::serve::wire::answer::token_text;
use crate::serve::wire::messages::{Spoken, WireMessage};
use crate::serve::wire::prompt::decode;

#[derive(Serialize)]
struct Tokens {
    count: usize,
    tokens: Vec<u32>,
    /// The text of each; bytes that are no whole character become replacement characters.
    pieces: Vec<String>,
}

/// The tokens of a text, as a prompt has them, or of messages, perhaps with tools.
pub async fn tokenize(
    State(server): State<Arc<Server>>,
    request: Body,
) -> Result<Response, Refusal> {
    let mut fields = body::fields(request, server.options.max_body).await?;
    server.check_model(&mut fields)?;
    let text: Option<String> = fields.take("text")?;
    let wire: Option<Vec<WireMessage>> = fields.take("messages")?;
    let tools: Vec<Value> = fields.take("tools")?.unwrap_or_default();
    let begin_of_text = fields.take("begin_of_text")?.unwrap_or(true);
    let parse_special = fields.take("parse_special")?.unwrap_or(false);
    fields.finish()?;
    let tokens = on_a_thread(move || {
        let tokenizer = server.engine.tokenizer();
        let tokens = match (text, wire) {
            (Some(text), None) => {
                let options = EncodeOptions { begin_of_text, parse_special };
                tokenizer.encode(&text, options).map_err(cerebellum::Error::from)?
            }
            (None, Some(wire)) => {
                let about = |refusal: Refusal| refusal.about("messages");
                let spoken = Spoken::new(wire, tools).map_err(about)?;
                let options = ChatOptions::default();
                spoken.prompt(server.template()?, tokenizer, options, usize::MAX).map_err(about)?
            }
            _ => return Err(Refusal::param("text", "give text or messages")),
        };
        let pieces = tokens.iter().map(|&token| token_text(tokenizer, token)).collect();
        Ok(Tokens { count: tokens.len(), tokens, pieces })
    });
    Ok(body::json(&tokens.await?))
}

#[derive(Serialize)]
struct Text {
    text: String,
}

/// The text of tokens.
pub async fn detokenize(
    State(server): State<Arc<Server>>,
    request: Body,
) -> Result<Response, Refusal> {
    let mut fields = body::fields(request, server.options.max_body).await?;
    server.check_model(&mut fields)?;
    let tokens: Vec<u32> = fields.need("tokens")?;
    fields.finish()?;
    let vocab_size = server.engine.model().config().vocab_size;
    if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
        let error = cerebellum::Error::TokenOutOfRange { token, vocab_size };
        return Err(Refusal::from(error).about("tokens"));
    }
    Ok(body::json(&Text { text: decode(server.engine.tokenizer(), &tokens) }))
}
