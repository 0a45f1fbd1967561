//! `/v1/responses`: answers in OpenAI's newer form. Nothing is kept of them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use cerebellum::chat::{ChatOptions, Message, Role};
use cerebellum::generate::StopReason;
use serde::Deserialize;
use serde_json::{Value, json};

use super::stream::{Out, Render, stream};
use super::texts::{Count, Texts, gather};
use super::{Server, body, on_a_thread};
use crate::serve::engine::Event;
use crate::serve::refusal::Refusal;
use crate::serve::wire::answer::{Usage, finish_reason, now};
use crate::serve::wire::messages::{Spoken, WireMessage};
use crate::serve::wire::sampling::{Format, Making};

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Messages(Vec<WireMessage>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextOptions {
    #[serde(default)]
    format: Option<Value>,
}

/// The route.
pub async fn responses(
    State(server): State<Arc<Server>>,
    request: Body,
) -> Result<Response, Refusal> {
    let mut fields = body::fields(request, server.options.max_body).await?;
    server.check_model(&mut fields)?;
    let input: Input = fields.need("input")?;
    let instructions: Option<String> = fields.take("instructions")?;
    let text: Option<TextOptions> = fields.take("text")?;
    let max_tokens: Option<usize> = fields.take("max_output_tokens")?;
    let keeps = "this server keeps nothing; send store: false, or leave it out, and send what was said before";
    fields.refuse("store", &["false"], keeps)?;
    fields.refuse("previous_response_id", &[], keeps)?;
    let tools = "tools are for /v1/chat/completions";
    fields.refuse("tools", &["[]"], tools)?;
    fields.refuse("tool_choice", &["\"none\"", "\"auto\""], tools)?;
    let elsewhere = "in this form of the interface there is no such parameter";
    for name in
        ["n", "max_tokens", "max_completion_tokens", "response_format", "stream_options", "receipt"]
    {
        fields.refuse(name, &[], elsewhere)?;
    }
    let making = Making::take(&mut fields, max_tokens.unwrap_or(server.engine.context()))?;
    fields.finish()?;
    let Making { options, form, stream: is_stream, .. } = making;
    let wrong = |error| Refusal::param("text", format!("text.format: {error}"));
    let format = text.and_then(|text| text.format).map(Format::flat);
    let format = format.transpose().map_err(wrong)?.and_then(Format::form);
    if let Some(format) = &format {
        format.check().map_err(|error| Refusal::from(error).about("text"))?;
    }
    let about = Answer {
        id: server.id("resp"),
        message: server.id("msg"),
        created: now(),
        model: server.options.name.clone(),
        instructions: instructions.clone(),
        max_tokens,
        temperature: options.sampler.temperature,
        top_p: options.sampler.top_p,
    };
    let (events, mut count) = {
        let server = Arc::clone(&server);
        on_a_thread(move || {
            let about = |refusal: Refusal| refusal.about("input");
            let mut said = match input {
                Input::Text(text) => Spoken::Plain(vec![Message::new(Role::User, text)]),
                Input::Messages(wire) => Spoken::new(wire, Vec::new()).map_err(about)?,
            };
            let Spoken::Plain(messages) = &mut said else {
                return Err(about(Refusal::bad(tools)));
            };
            if let Some(instructions) = instructions {
                messages.insert(0, Message::new(Role::System, instructions));
            }
            let (tokenizer, context) = (server.engine.tokenizer(), server.engine.context());
            let options_of_chat = ChatOptions::default();
            let tokens = said.prompt(server.template()?, tokenizer, options_of_chat, context);
            let prompts = vec![tokens.map_err(about)?];
            let form = form.or(format);
            Texts { prompts, n: 1, options, form, top: None, receipt: false }.order(&server)
        })
        .await?
    };
    if is_stream {
        let render = Stream { about, count, text: String::new(), number: 0, reason: None };
        return Ok(stream(events, 1, render));
    }
    let made = gather(events, 1, &mut count).await?.remove(0);
    Ok(body::json(&about.done(&made.text, made.reason, count.usage())))
}

/// What an answer repeats of its request.
struct Answer {
    id: String,
    message: String,
    created: u64,
    model: String,
    instructions: Option<String>,
    max_tokens: Option<usize>,
    temperature: f32,
    top_p: f32,
}

impl Answer {
    fn json(&self, status: &str, output: &[Value], usage: Option<Usage>) -> Value {
        let usage = usage.map(|usage| {
            json!({
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.prompt_tokens_details.cached_tokens},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.total_tokens,
            })
        });
        let details = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        json!({
            "id": self.id, "object": "response", "created_at": self.created, "status": status,
            "model": self.model, "output": output, "error": null, "incomplete_details": details,
            "instructions": self.instructions, "max_output_tokens": self.max_tokens,
            "temperature": self.temperature, "top_p": self.top_p, "usage": usage, "store": false,
            "parallel_tool_calls": false, "tool_choice": "none", "tools": [], "metadata": {},
        })
    }

    /// The message in which the text is.
    fn item(&self, status: &str, content: &[Value]) -> Value {
        json!({
            "type": "message", "id": self.message, "status": status, "role": "assistant", "content": content,
        })
    }

    fn done(&self, text: &str, reason: Option<StopReason>, usage: Usage) -> Value {
        let status = status(reason);
        self.json(status, &[self.item(status, &[part(text)])], Some(usage))
    }
}

fn status(reason: Option<StopReason>) -> &'static str {
    match reason.map(finish_reason) {
        Some("length") => "incomplete",
        _ => "completed",
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// The answer, piece by piece.
struct Stream {
    about: Answer,
    count: Count,
    text: String,
    /// How many events there were.
    number: usize,
    /// Why the text ended, unless it failed.
    reason: Option<StopReason>,
}

impl Stream {
    fn tell(&mut self, kind: &str, more: Value, out: &mut Out) {
        let mut event = json!({"type": kind, "sequence_number": self.number});
        self.number += 1;
        if let (Value::Object(event), Value::Object(more)) = (&mut event, more) {
            event.extend(more);
        }
        out.named(kind, &event);
    }

    /// What concerns the text.
    fn tell_of_text(&mut self, kind: &str, name: &str, value: Value, out: &mut Out) {
        let mut more =
            json!({"item_id": self.about.message, "output_index": 0, "content_index": 0});
        more[name] = value;
        self.tell(kind, more, out);
    }

    fn add(&mut self, text: &str, out: &mut Out) {
        if !text.is_empty() {
            self.text.push_str(text);
            let mut more =
                json!({"item_id": self.about.message, "output_index": 0, "content_index": 0});
            more["delta"] = text.into();
            more["logprobs"] = json!([]);
            self.tell("response.output_text.delta", more, out);
        }
    }
}

impl Render for Stream {
    fn begin(&mut self, out: &mut Out) {
        let response = self.about.json("in_progress", &[], None);
        self.tell("response.created", json!({"response": response}), out);
        self.tell("response.in_progress", json!({"response": response}), out);
        let item = self.about.item("in_progress", &[]);
        self.tell("response.output_item.added", json!({"output_index": 0, "item": item}), out);
        self.tell_of_text("response.content_part.added", "part", part(""), out);
    }

    fn event(&mut self, index: usize, event: Event, out: &mut Out) {
        self.count.see(index, &event);
        match event {
            Event::Begun { .. } => {}
            Event::Step { text, .. } => self.add(&text, out),
            Event::End(Err(refusal)) => {
                let more = json!({"code": refusal.code, "message": refusal.message, "param": refusal.param});
                self.tell("error", more, out);
            }
            Event::End(Ok(end)) => {
                self.add(&end.text, out);
                self.reason = Some(end.reason);
            }
        }
    }

    fn end(&mut self, out: &mut Out) {
        if self.reason.is_none() {
            return;
        }
        let status = status(self.reason);
        let text = std::mem::take(&mut self.text);
        let mut more =
            json!({"item_id": self.about.message, "output_index": 0, "content_index": 0});
        more["text"] = text.as_str().into();
        more["logprobs"] = json!([]);
        self.tell("response.output_text.done", more, out);
        self.tell_of_text("response.content_part.done", "part", part(&text), out);
        let item = self.about.item(status, &[part(&text)]);
        self.tell("response.output_item.done", json!({"output_index": 0, "item": item}), out);
        let response = self.about.done(&text, self.reason, self.count.usage());
        self.tell(&format!("response.{status}"), json!({"response": response}), out);
    }
}
