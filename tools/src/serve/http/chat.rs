//! `/v1/chat/completions`: answers in conversations.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use cerebellum::chat::ChatOptions;
use serde::Serialize;

use super::stream::{Out, Render, stream};
use super::texts::{Count, Texts, gather};
use super::{Server, body, on_a_thread};
use crate::receipt::Receipt;
use crate::serve::engine::Event;
use crate::serve::refusal::Refusal;
use crate::serve::wire::answer::{ChatLogprob, Usage, finish_reason, now};
use crate::serve::wire::messages::{WireMessage, messages, prompt};
use crate::serve::wire::sampling::{MAX_TOP, Making};

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: String,
    /// Never: what a model says is its content.
    refusal: Option<String>,
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

#[derive(Serialize)]
struct Logprobs {
    content: Vec<ChatLogprob>,
}

/// The route.
pub async fn chat(State(server): State<Arc<Server>>, request: Body) -> Result<Response, Refusal> {
    let mut fields = body::fields(request, server.options.max_body).await?;
    server.check_model(&mut fields)?;
    let wire: Vec<WireMessage> = fields.need("messages")?;
    let tells = fields.take("logprobs")?.unwrap_or(false);
    let top: Option<usize> = fields.take("top_logprobs")?;
    if top.is_some() && !tells {
        let message = "top_logprobs needs logprobs: true";
        return Err(Refusal::param("top_logprobs", message));
    }
    if let Some(top) = top.filter(|&top| top > MAX_TOP) {
        let message = format!("top_logprobs: {top} is not in 0..={MAX_TOP}");
        return Err(Refusal::param("top_logprobs", message));
    }
    let thinking = fields.take("thinking")?;
    let tools = "this server knows no tools; ask for an answer of a JSON schema by response_format";
    fields.refuse("tools", &["[]"], tools)?;
    fields.refuse("tool_choice", &["\"none\"", "\"auto\""], tools)?;
    fields.refuse("store", &["false"], "this server keeps nothing")?;
    // Without a limit an answer may be as long as there are positions.
    let making = Making::take(&mut fields, server.engine.context())?;
    fields.finish()?;
    let Making { options, form, n, stream: is_stream, include_usage, receipt } = making;
    let top = tells.then_some(top.unwrap_or(0));
    let (events, mut count) = {
        let server = Arc::clone(&server);
        on_a_thread(move || {
            let options_of_chat = ChatOptions { thinking, ..ChatOptions::default() };
            let context = server.engine.context();
            let messages = messages(wire).map_err(|refusal| refusal.about("messages"))?;
            let tokenizer = server.engine.tokenizer();
            let template = server.template()?;
            let tokens = prompt(template, tokenizer, messages, options_of_chat, context);
            let prompts = vec![tokens.map_err(|refusal| refusal.about("messages"))?];
            Texts { prompts, n, options, form, top, receipt }.order(&server)
        })
        .await?
    };
    let id = server.id("chatcmpl");
    if is_stream {
        let tells = top.is_some();
        let render = Stream { server, id, created: now(), n, tells, include_usage, count };
        return Ok(stream(events, n, render));
    }
    let made = gather(events, n, &mut count).await?;
    let tokenizer = server.engine.tokenizer();
    let choices = made.into_iter().enumerate().map(|(index, made)| {
        let tokens = made.tokens.iter();
        let tokens =
            tokens.map(|(token, chance)| ChatLogprob::new(tokenizer, *token, chance.as_ref()));
        Choice {
            index,
            logprobs: top.map(|_| Logprobs { content: tokens.collect() }),
            message: Some(Message { role: "assistant", content: made.text, refusal: None }),
            delta: None,
            finish_reason: made.reason.map(finish_reason),
            receipt: made.receipt,
        }
    });
    let answer = Answer {
        id: &id,
        object: "chat.completion",
        created: now(),
        model: &server.options.name,
        choices: choices.collect(),
        usage: Some(count.usage()),
    };
    Ok(body::json(&answer))
}

/// The answer, piece by piece.
struct Stream {
    server: Arc<Server>,
    id: String,
    created: u64,
    n: usize,
    tells: bool,
    include_usage: bool,
    count: Count,
}

impl Stream {
    fn piece(&self, choices: Vec<Choice>, usage: Option<Usage>, out: &mut Out) {
        out.data(&Answer {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.server.options.name,
            choices,
            usage,
        });
    }

    fn delta(index: usize, delta: Delta) -> Choice {
        Choice {
            index,
            message: None,
            delta: Some(delta),
            logprobs: None,
            finish_reason: None,
            receipt: None,
        }
    }
}

impl Render for Stream {
    fn begin(&mut self, out: &mut Out) {
        for index in 0..self.n {
            let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
            self.piece(vec![Self::delta(index, delta)], None, out);
        }
    }

    fn event(&mut self, index: usize, event: Event, out: &mut Out) {
        let receipt = self.count.see(index, &event);
        match event {
            Event::Begun { .. } => {}
            Event::Step { token, text, chance } => {
                if text.is_empty() && !self.tells {
                    return;
                }
                let delta = Delta { content: Some(text), role: None };
                let logprob = self.tells.then(|| {
                    ChatLogprob::new(self.server.engine.tokenizer(), token, chance.as_ref())
                });
                let logprobs = logprob.map(|logprob| Logprobs { content: vec![logprob] });
                self.piece(vec![Choice { logprobs, ..Self::delta(index, delta) }], None, out);
            }
            Event::End(Err(refusal)) => out.error(&refusal),
            Event::End(Ok(end)) => {
                if !end.text.is_empty() {
                    let delta = Delta { content: Some(end.text), role: None };
                    self.piece(vec![Self::delta(index, delta)], None, out);
                }
                let finish_reason = Some(finish_reason(end.reason));
                let choice =
                    Choice { finish_reason, receipt, ..Self::delta(index, Delta::default()) };
                self.piece(vec![choice], None, out);
            }
        }
    }

    fn end(&mut self, out: &mut Out) {
        if self.include_usage {
            self.piece(Vec::new(), Some(self.count.usage()), out);
        }
        out.raw("[DONE]");
    }
}
