//! Making the texts of a request: the orders, and their answers gathered.

use std::sync::Arc;
use std::time::Instant;

use cerebellum::KvType;
use cerebellum::batch::Request;
use cerebellum::constraint::Form;
use cerebellum::generate::{GenerateOptions, StopReason};

use super::Server;
use crate::receipt::{Asked, Receipt};
use crate::serve::engine::{Chance, End, Event, EventReceiver, Order, Recipient, gone};
use crate::serve::refusal::Refusal;
use crate::serve::wire::answer::{PromptDetails, Usage};

/// Texts to be made.
pub struct Texts {
    /// Prompts.
    pub prompts: Vec<Vec<u32>>,
    /// Texts of each.
    pub n: usize,
    /// How.
    pub options: GenerateOptions,
    /// What they must be like.
    pub form: Option<Form>,
    /// Whether to tell how probable tokens were, and how many others.
    pub top: Option<usize>,
    /// Whether each comes with a receipt.
    pub receipt: bool,
}

/// A text.
#[derive(Debug, Default)]
pub struct Made {
    /// The text.
    pub text: String,
    /// Its tokens, with how probable they were if that was asked for.
    pub tokens: Vec<(u32, Option<Chance>)>,
    /// Why it ended, once it has.
    pub reason: Option<StopReason>,
    /// Its receipt, if that was asked for.
    pub receipt: Option<Receipt>,
}

impl Texts {
    /// Puts them in the queue. Text `i` of prompt `p` has the number `p * n + i`, and the options' seed plus `i`.
    /// Takes some time if there is a form.
    ///
    /// # Errors
    /// If there is no place for them; if the form is not supported.
    pub fn order(self, server: &Arc<Server>) -> Result<(EventReceiver, Count), Refusal> {
        let mut count = Count::new(&self.prompts, self.n);
        if self.receipt {
            count.receipts = Some(Receipts {
                model: server.digest()?.to_owned(),
                kv: server.engine.kv(),
                prompts: self.prompts.clone(),
                options: self.options.clone(),
                form: self.form.clone(),
                outputs: vec![Vec::new(); self.prompts.len() * self.n],
            });
        }
        let (sender, receiver) = server.engine.channel();
        let deadline = Instant::now() + server.options.deadline;
        let mut orders = Vec::new();
        for (p, prompt) in self.prompts.into_iter().enumerate() {
            let mut of_prompt = Vec::new();
            for i in 0..self.n {
                let mut options = self.options.clone();
                options.sampler.seed = options.sampler.seed.wrapping_add(i as u64);
                options.sampler.check_for(server.engine.model().config().vocab_size)?;
                let to = Recipient { index: p * self.n + i, sender: sender.clone() };
                let mut order =
                    Order::new(Request { prompt: prompt.clone(), options }, to, deadline);
                let constraint = self.form.as_ref().map(|form| server.engine.constrain(form));
                order.constraint = constraint.transpose()?;
                order.top = self.top;
                order.digests = self.receipt;
                of_prompt.push(order);
            }
            // They find the prompt evaluated.
            let followers = of_prompt.split_off(1);
            let mut first = of_prompt.pop().expect("at least one text of a prompt");
            first.followers = followers;
            orders.push(first);
        }
        server.engine.order(orders)?;
        Ok((receiver, count))
    }
}

/// What receipts of a request's texts are made of.
struct Receipts {
    model: String,
    kv: KvType,
    prompts: Vec<Vec<u32>>,
    options: GenerateOptions,
    form: Option<Form>,
    /// The tokens of each text so far.
    outputs: Vec<Vec<u32>>,
}

impl Receipts {
    fn of(&mut self, index: usize, n: usize, end: &End) -> Option<Receipt> {
        let mut options = self.options.clone();
        options.sampler.seed = options.sampler.seed.wrapping_add((index % n) as u64);
        let asked = Asked {
            model: &self.model,
            kv: self.kv,
            prompt: &self.prompts[index / n],
            options: &options,
            form: self.form.as_ref(),
        };
        let output = std::mem::take(&mut self.outputs[index]);
        Some(Receipt::new(&asked, output, end.reason, end.logits.clone()?))
    }
}

/// Counts the tokens of a request, and makes its receipts.
pub struct Count {
    usage: Usage,
    /// Texts of each prompt.
    n: usize,
    receipts: Option<Receipts>,
}

impl Count {
    /// Of `n` texts of each of these prompts.
    fn new(prompts: &[Vec<u32>], n: usize) -> Self {
        // The model begins a text without a prompt at a token of its own.
        let prompt_tokens = prompts.iter().map(|prompt| prompt.len().max(1)).sum();
        Self { usage: Usage { prompt_tokens, ..Usage::default() }, n, receipts: None }
    }

    /// Takes an event of a text. With the last one comes the text's receipt, if that was asked for.
    pub fn see(&mut self, index: usize, event: &Event) -> Option<Receipt> {
        let details: &mut PromptDetails = &mut self.usage.prompt_tokens_details;
        match event {
            // A prompt counts once, and the first of its texts evaluates it.
            Event::Begun { cached_tokens } if index.is_multiple_of(self.n) => {
                details.cached_tokens += cached_tokens;
            }
            Event::Step { token, .. } => {
                if let Some(receipts) = &mut self.receipts {
                    receipts.outputs[index].push(*token);
                }
            }
            Event::End(Ok(end)) => {
                self.usage.completion_tokens += end.tokens;
                return self.receipts.as_mut()?.of(index, self.n, end);
            }
            _ => {}
        }
        None
    }

    /// How many there were.
    pub fn usage(&self) -> Usage {
        let Usage { prompt_tokens, completion_tokens, .. } = self.usage;
        Usage { total_tokens: prompt_tokens + completion_tokens, ..self.usage }
    }
}

/// Waits for `texts` texts.
///
/// # Errors
/// The first text's that fails, so that the others are given up.
pub async fn gather(
    mut events: EventReceiver,
    texts: usize,
    count: &mut Count,
) -> Result<Vec<Made>, Refusal> {
    let mut made: Vec<Made> = Vec::new();
    made.resize_with(texts, Made::default);
    let mut rest = texts;
    while rest > 0 {
        let Some((index, event)) = events.recv().await else { return Err(gone()) };
        let receipt = count.see(index, &event);
        let of = &mut made[index];
        match event {
            Event::Begun { .. } => {}
            Event::Step { token, text, chance } => {
                of.text.push_str(&text);
                of.tokens.push((token, chance));
            }
            Event::End(end) => {
                let end = end?;
                of.text.push_str(&end.text);
                of.reason = Some(end.reason);
                of.receipt = receipt;
                rest -= 1;
            }
        }
    }
    Ok(made)
}
