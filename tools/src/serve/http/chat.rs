//! `/v1/chat/completions`: answers in conversations.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use cerebellum::chat::ChatOptions;
use serde::Serialize;

use super::calls::{Call, Calls, Reader, Said, no_tools};
use super::stream::{Out, Render, stream};
use super::texts::{Count, Texts, gather};
use super::{Server, body, on_a_thread};
use crate::receipt::Receipt;
use crate::serve::engine::Event;
use crate::serve::refusal::Refusal;
use crate::serve::wire::answer::{About, ChatLogprob, finish_reason};
use crate::serve::wire::messages::{Spoken, WireMessage};
use crate::serve::wire::sampling::{MAX_TOP, Making};
use crate::serve::wire::tools::Tools;

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
    /// None where the answer only calls a tool.
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[Call; 1]>,
    /// Never: what a model says is its content.
    refusal: Option<String>,
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[Call; 1]>,
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
    let tools = Tools::take(&mut fields)?;
    fields.refuse("store", &["false"], "this server keeps nothing")?;
    // Without a limit an answer may be as long as there are positions.
    let making = Making::take(&mut fields, server.engine.context())?;
    fields.finish()?;
    let Making { options, form, n, stream: is_stream, include_usage, receipt } = making;
    let top = tells.then_some(top.unwrap_or(0));
    if form.is_some() && !tools.callable.is_empty() {
        let message = "tools: an answer that has another form cannot call tools; give one of them";
        return Err(Refusal::param("tools", message));
    }
    let (events, mut count, readers) = {
        let server = Arc::clone(&server);
        on_a_thread(move || {
            let options_of_chat = ChatOptions { thinking, ..ChatOptions::default() };
            let (tokenizer, context) = (server.engine.tokenizer(), server.engine.context());
            let template = server.template()?;
            let param = if tools.all.is_empty() { "messages" } else { "tools" };
            let about = |refusal: Refusal| refusal.about("messages");
            let spoken = Spoken::new(wire, tools.all.clone()).map_err(about)?;
            let calls = if spoken.needs_tools() {
                let notation = server.notation(options_of_chat)?.ok_or_else(|| no_tools(param))?;
                Calls::new(notation.clone(), tools)
            } else {
                None
            };
            let tokens = spoken.prompt(template, tokenizer, options_of_chat, context);
            let prompts = vec![tokens.map_err(about)?];
            let form = form.or_else(|| calls.as_ref().map(Calls::form));
            let texts = Texts { prompts, n, options, form, top, receipt };
            let (events, count) = texts.order(&server)?;
            let reader = |_| calls.as_ref().map(|calls| calls.reader(&server));
            Ok((events, count, (0..n).map(reader).collect::<Vec<_>>()))
        })
        .await?
    };
    let about = |object| About::new(server.id("chatcmpl"), object, &server.options.name);
    if is_stream {
        let (about, tells) = (about("chat.completion.chunk"), top.is_some());
        let render = Stream { server, about, n, tells, include_usage, count, readers };
        return Ok(stream(events, n, render));
    }
    let made = gather(events, n, &mut count).await?;
    let tokenizer = server.engine.tokenizer();
    let choices = made.into_iter().zip(readers).enumerate().map(|(index, (made, reader))| {
        let tokens = made.tokens.iter();
        let tokens =
            tokens.map(|(token, chance)| ChatLogprob::new(tokenizer, *token, chance.as_ref()));
        let mut choice = Choice {
            index,
            logprobs: top.map(|_| Logprobs { content: tokens.collect() }),
            message: None,
            delta: None,
            finish_reason: made.reason.map(finish_reason),
            receipt: made.receipt,
        };
        let (mut content, mut tool_calls) = (Some(made.text), None);
        if let Some(mut reader) = reader {
            let Said { text, call } = reader.read_all(&content.take().unwrap_or_default());
            content = Some(text).filter(|text| call.is_none() || !text.is_empty());
            tool_calls = call.map(|call| [call]);
            choice.finish_reason = choice.finish_reason.map(|reason| end_of(&reader, reason));
        }
        choice.message = Some(Message { role: "assistant", content, tool_calls, refusal: None });
        choice
    });
    Ok(body::json(&about("chat.completion").answer(choices.collect(), Some(count.usage()))))
}

/// Why an answer ended that may call tools.
fn end_of(reader: &Reader, reason: &'static str) -> &'static str {
    match reader.has_called() {
        true => "tool_calls",
        false => reason,
    }
}

/// The answer, piece by piece.
struct Stream {
    server: Arc<Server>,
    about: About,
    n: usize,
    tells: bool,
    include_usage: bool,
    count: Count,
    /// Of each text, if it may call tools.
    readers: Vec<Option<Reader>>,
}

impl Stream {
    fn piece(&self, choice: Choice, out: &mut Out) {
        out.data(&self.about.answer(vec![choice], None));
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

    /// What a piece of text says; `None` if nothing.
    fn said(&mut self, index: usize, text: String, is_last: bool) -> Option<Delta> {
        let said = match &mut self.readers[index] {
            None => Said { text, call: None },
            Some(reader) => reader.read(&text, is_last),
        };
        let content = Some(said.text).filter(|text| !text.is_empty());
        let tool_calls = said.call.map(|call| [call]);
        let is_any = content.is_some() || tool_calls.is_some();
        is_any.then_some(Delta { role: None, content, tool_calls })
    }
}

impl Render for Stream {
    fn begin(&mut self, out: &mut Out) {
        for index in 0..self.n {
            let content = self.readers[index].is_none().then(String::new);
            let delta = Delta { role: Some("assistant"), content, tool_calls: None };
            self.piece(Self::delta(index, delta), out);
        }
    }

    fn event(&mut self, index: usize, event: Event, out: &mut Out) {
        let receipt = self.count.see(index, &event);
        match event {
            Event::Begun { .. } => {}
            Event::Step { token, text, chance } => {
                let delta = self.said(index, text, false);
                if delta.is_none() && !self.tells {
                    return;
                }
                let delta = delta.unwrap_or_default();
                let logprob = self.tells.then(|| {
                    ChatLogprob::new(self.server.engine.tokenizer(), token, chance.as_ref())
                });
                let logprobs = logprob.map(|logprob| Logprobs { content: vec![logprob] });
                self.piece(Choice { logprobs, ..Self::delta(index, delta) }, out);
            }
            Event::End(Err(refusal)) => out.error(&refusal),
            Event::End(Ok(end)) => {
                if let Some(delta) = self.said(index, end.text, true) {
                    self.piece(Self::delta(index, delta), out);
                }
                let reason = finish_reason(end.reason);
                let reader = self.readers[index].as_ref();
                let finish_reason = Some(reader.map_or(reason, |reader| end_of(reader, reason)));
                let choice =
                    Choice { finish_reason, receipt, ..Self::delta(index, Delta::default()) };
                self.piece(choice, out);
            }
        }
    }

    fn end(&mut self, out: &mut Out) {
        if self.include_usage {
            out.data(&self.about.answer(Vec::<Choice>::new(), Some(self.count.usage())));
        }
        out.raw("[DONE]");
    }
}
