//! `/v1/completions`: texts that go on from prompts.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use cerebellum::constraint::Form;
use cerebellum::score::{log_probabilities_of, top_log_probabilities};
use serde::Serialize;

use super::stream::{Out, Render, stream};
use super::texts::{Count, Made, Texts, gather};
use super::{Server, body, on_a_thread};
use crate::receipt::Receipt;
use crate::serve::engine::{Chance, Event};
use crate::serve::refusal::Refusal;
use crate::serve::wire::answer::{About, CompletionLogprobs, finish_reason};
use crate::serve::wire::prompt::{Prompt, Prompts};
use crate::serve::wire::sampling::{MAX_TOP, Making};

/// Tokens of a text whose request does not say how many.
const MAX_TOKENS: usize = 16;

#[derive(Serialize)]
struct Choice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
}

/// The route.
pub async fn completions(
    State(server): State<Arc<Server>>,
    request: Body,
) -> Result<Response, Refusal> {
    let mut fields = body::fields(request, server.options.max_body).await?;
    server.check_model(&mut fields)?;
    let prompts = fields.take("prompt")?.unwrap_or(Prompts::Text(String::new()));
    let echo = fields.take("echo")?.unwrap_or(false);
    let top: Option<usize> = fields.take("logprobs")?;
    if let Some(top) = top.filter(|&top| top > MAX_TOP) {
        let message = format!("logprobs: {top} is not in 0..={MAX_TOP}");
        return Err(Refusal::param("logprobs", message));
    }
    let best = "this server makes the texts that are asked for, by n";
    fields.refuse("best_of", &["1"], best)?;
    let behind =
        "this model goes on from what comes before, and knows nothing of what comes behind";
    fields.refuse("suffix", &["\"\""], behind)?;
    let making = Making::take(&mut fields, MAX_TOKENS)?;
    fields.finish()?;
    let (prompts, making) = {
        let server = Arc::clone(&server);
        on_a_thread(move || {
            let prompts = prompts.prompts(server.engine.tokenizer(), server.engine.context());
            Ok((prompts.map_err(|refusal| refusal.about("prompt"))?, making))
        })
        .await?
    };
    let Making { options, form, n, stream: is_stream, include_usage, receipt } = making;
    let echoed = match echo {
        false => Vec::new(),
        true => echo_all(&server, &prompts, top).await?,
    };
    let tokens: Vec<_> = prompts.into_iter().map(|prompt| prompt.tokens).collect();
    let texts = tokens.len() * n;
    // A text that goes on from another may begin with a space.
    let form = form.map(|form| match form {
        Form::Regex(_) => form,
        form => Form::AfterSpace(Box::new(form)),
    });
    let texts_to_make = Texts { prompts: tokens, n, options, form, top, receipt };
    let (events, mut count) = {
        let server = Arc::clone(&server);
        on_a_thread(move || texts_to_make.order(&server)).await?
    };
    let about = About::new(server.id("cmpl"), "text_completion", &server.options.name);
    if is_stream {
        let at = Vec::new();
        let render = Stream { server, about, echoed, n, top, include_usage, count, at };
        return Ok(stream(events, texts, render));
    }
    let made = gather(events, texts, &mut count).await?;
    let choices = made.into_iter().enumerate();
    let choices =
        choices.map(|(index, made)| choice(&server, index, made, echoed.get(index / n), top));
    Ok(body::json(&about.answer(choices.collect(), Some(count.usage()))))
}

/// A prompt that comes before its texts.
#[derive(Clone)]
struct Echo {
    text: String,
    /// With how probable each token was, if that is asked for.
    tokens: Vec<(u32, Option<Chance>)>,
}

impl Echo {
    fn logprobs(&self, server: &Server) -> CompletionLogprobs {
        let mut logprobs = CompletionLogprobs::default();
        for (token, chance) in &self.tokens {
            logprobs.push(server.engine.tokenizer(), *token, chance.as_ref());
        }
        logprobs
    }
}

async fn echo_all(
    server: &Arc<Server>,
    prompts: &[Prompt],
    top: Option<usize>,
) -> Result<Vec<Echo>, Refusal> {
    let mut echoed = Vec::new();
    for Prompt { text, tokens } in prompts {
        let tokens = match top.filter(|_| !tokens.is_empty()) {
            None => tokens.iter().map(|&token| (token, None)).collect(),
            Some(top) => {
                let (tokens, server) = (tokens.clone(), Arc::clone(server));
                server.clone().engine.look(move |session| chances(session, tokens, top)).await?
            }
        };
        echoed.push(Echo { text: text.clone(), tokens });
    }
    Ok(echoed)
}

/// How probable each token of a text was after those before it.
fn chances(
    session: &mut cerebellum::Session,
    tokens: Vec<u32>,
    top: usize,
) -> Result<Vec<(u32, Option<Chance>)>, Refusal> {
    session.reset();
    let mut chances = vec![None; tokens.len()];
    session.evaluate_each(&tokens, |position, logits| {
        if let Some(&next) = tokens.get(position + 1) {
            let log_probability = log_probabilities_of(logits, &[next])[0];
            let top = top_log_probabilities(logits, top);
            chances[position + 1] = Some(Chance { log_probability, top });
        }
    })?;
    Ok(tokens.into_iter().zip(chances).collect())
}

fn choice(
    server: &Server,
    index: usize,
    made: Made,
    echo: Option<&Echo>,
    top: Option<usize>,
) -> Choice {
    let mut logprobs = echo.map_or_else(CompletionLogprobs::default, |echo| echo.logprobs(server));
    for (token, chance) in &made.tokens {
        logprobs.push(server.engine.tokenizer(), *token, chance.as_ref());
    }
    Choice {
        index,
        text: echo.map_or(String::new(), |echo| echo.text.clone()) + &made.text,
        logprobs: top.map(|_| logprobs),
        finish_reason: made.reason.map(finish_reason),
        receipt: made.receipt,
    }
}

/// The answer, piece by piece.
struct Stream {
    server: Arc<Server>,
    about: About,
    echoed: Vec<Echo>,
    n: usize,
    top: Option<usize>,
    include_usage: bool,
    count: Count,
    /// How many characters each text has so far, where log-probabilities are told.
    at: Vec<usize>,
}

impl Stream {
    fn logprobs(
        &mut self,
        index: usize,
        token: u32,
        chance: Option<&Chance>,
    ) -> Option<CompletionLogprobs> {
        self.top?;
        if self.at.len() <= index {
            self.at.resize(index + 1, 0);
        }
        let mut logprobs = CompletionLogprobs::from(self.at[index]);
        logprobs.push(self.server.engine.tokenizer(), token, chance);
        self.at[index] = logprobs.characters();
        Some(logprobs)
    }
}

impl Render for Stream {
    fn begin(&mut self, out: &mut Out) {
        for index in 0..self.echoed.len() * self.n {
            let echo = &self.echoed[index / self.n];
            let logprobs = self.top.map(|_| echo.logprobs(&self.server));
            if let Some(logprobs) = &logprobs {
                self.at.push(logprobs.characters());
            }
            let choice = Choice {
                index,
                text: echo.text.clone(),
                logprobs,
                finish_reason: None,
                receipt: None,
            };
            out.data(&self.about.answer(vec![choice], None));
        }
    }

    fn event(&mut self, index: usize, event: Event, out: &mut Out) {
        let receipt = self.count.see(index, &event);
        let choice = match event {
            Event::Begun { .. } => return,
            Event::Step { token, text, chance } => {
                let logprobs = self.logprobs(index, token, chance.as_ref());
                if text.is_empty() && logprobs.is_none() {
                    return;
                }
                Choice { index, text, logprobs, finish_reason: None, receipt }
            }
            Event::End(Err(refusal)) => return out.error(&refusal),
            Event::End(Ok(end)) => {
                let finish_reason = Some(finish_reason(end.reason));
                Choice { index, text: end.text, logprobs: None, finish_reason, receipt }
            }
        };
        out.data(&self.about.answer(vec![choice], None));
    }

    fn end(&mut self, out: &mut Out) {
        if self.include_usage {
            out.data(&self.about.answer(Vec::<Choice>::new(), Some(self.count.usage())));
        }
        out.raw("[DONE]");
    }
}
