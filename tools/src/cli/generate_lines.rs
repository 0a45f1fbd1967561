//! `cerebellum generate --file`: a prompt on each line, many of them continued at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use cerebellum::batch::{Client, Job, Next, Request, serve};
use cerebellum::chat::{Chat, Role};
use cerebellum::constraint::{Form, Vocabulary};
use cerebellum::generate::{Constraint, GenerateOptions, Generation, Step, StopReason, TextStream};
use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum::{Model, SessionOptions, TokenizerBytes};
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::lines::{Line, Lines, LinesArgs};
use super::prompt::{SPACE_AT_THE_END, after_space, ends_in_space};

/// How prompts on lines are continued.
pub struct Prompts<'a> {
    /// The model, with its tokenizer.
    pub model: &'a Model,
    pub tokenizer: &'a Arc<Tokenizer<TokenizerBytes>>,
    pub options: GenerateOptions,
    pub encode: EncodeOptions,
    /// What the texts must be like whose lines do not say so themselves.
    pub form: Option<Form>,
    /// The conversation that each line is a message of, if they are messages.
    pub chat: Option<Mutex<Chat>>,
    /// Whether a prompt comes before its text, where output is text.
    pub echo: bool,
    /// Made when it is first needed.
    pub vocabulary: OnceLock<Result<Vocabulary, String>>,
    /// Whether the user knows of prompts that end in a space.
    pub told_of_space: Once,
    pub context: &'a Context,
}

/// The JSON object of a line.
#[derive(Serialize)]
pub struct Report {
    ok: bool,
    text: String,
    prompt_tokens: usize,
    tokens: usize,
    stop_reason: &'static str,
    milliseconds: f64,
}

impl Prompts<'_> {
    /// Continues every line.
    pub fn run(&self, lines: &LinesArgs, session: &SessionOptions) -> Outcome {
        lines.answer_in_batches(self.context, (self.model, session), |batch, lines| {
            let (prompts, context) = (self, batch.context());
            let mut worker = Worker { prompts, context, lines, begun: 0, texts: BTreeMap::new() };
            Ok(serve(batch, &mut worker)?)
        })
    }

    /// The job of a line, for a sequence of `context` positions.
    fn job(&self, number: usize, line: &Line, context: usize) -> Result<Job<'static>, Failure> {
        let form = form_of(line, self.chat.is_none())?;
        let form = form.as_ref().or(self.form.as_ref());
        if self.chat.is_none() && ends_in_space(&line.text, matches!(form, Some(Form::Regex(_)))) {
            self.told_of_space.call_once(|| {
                let warning = format_args!("the prompt on line {number} {SPACE_AT_THE_END}");
                self.context.warn(warning);
            });
        }
        let constraint = match form {
            None => None,
            Some(form) => {
                let constraint: Box<dyn Constraint> = Box::new(self.vocabulary()?.constrain(form)?);
                Some(constraint)
            }
        };
        let prompt = match &self.chat {
            Some(chat) => {
                let mut chat = chat.lock().unwrap_or_else(PoisonError::into_inner);
                chat.push(Role::User, &line.text)?;
                let prompt = chat.fit(context, self.options.max_tokens, &[]);
                chat.pop();
                prompt?.tokens
            }
            None => {
                let encode = self.encode.at_the_beginning();
                self.tokenizer.encode_within(&line.text, encode, context)?
            }
        };
        let request = Cow::Owned(Request { prompt, options: self.options.clone() });
        Ok(Job { request, constraint })
    }

    fn vocabulary(&self) -> Result<&Vocabulary, Failure> {
        let make = || Vocabulary::new(self.model, Arc::clone(self.tokenizer));
        let made = self.vocabulary.get_or_init(|| make().map_err(|error| error.to_string()));
        made.as_ref().map_err(|error| error.clone().into())
    }
}

/// What a line's own fields say of the form of its text, which goes on from the line or not.
fn form_of(line: &Line, goes_on: bool) -> Result<Option<Form>, Failure> {
    let after_space = |form| if goes_on { after_space(form) } else { form };
    let mut forms = Vec::new();
    if let Some(choices) = line.fields.get("choices") {
        let choices = serde_json::from_str(choices.get()).ok();
        let choices = choices.filter(|choices: &Vec<String>| !choices.is_empty());
        let choices = choices
            .ok_or("`choices` is not a list of strings; write one, such as [\"yes\", \"no\"]")?;
        forms.push(after_space(Form::Choices(choices)));
    }
    if let Some(regex) = line.fields.get("regex") {
        let regex = serde_json::from_str(regex.get());
        forms.push(Form::Regex(regex.map_err(
            |_| "`regex` is not a string; write the expression between quotation marks",
        )?));
    }
    if let Some(schema) = line.fields.get("json_schema").filter(|schema| schema.get() != "null") {
        let schema = serde_json::from_str(schema.get());
        let schema =
            schema.map_err(|e| format!("`json_schema` is not a JSON schema: {e}; correct it"))?;
        forms.push(after_space(Form::JsonSchema(schema)));
    }
    match forms.len() {
        0 | 1 => Ok(forms.pop()),
        _ => {
            Err("the line has more than one of `choices`, `regex` and `json_schema`; keep one"
                .into())
        }
    }
}

/// A thread's batch takes prompts from here.
struct Worker<'a, 'l> {
    prompts: &'a Prompts<'a>,
    /// Positions of a sequence.
    context: usize,
    lines: &'a Lines<'l, Report>,
    /// How many prompts were begun: the number of the next job.
    begun: usize,
    /// Texts on their way, by job.
    texts: BTreeMap<usize, Text<'a>>,
}

struct Text<'a> {
    line: usize,
    /// The prompt, if it is repeated, and what was made of it.
    text: String,
    stream: Option<TextStream<'a, TokenizerBytes>>,
}

impl<'a> Client<'a> for Worker<'a, '_> {
    fn next(&mut self, may_wait: bool) -> Next<Job<'a>> {
        loop {
            let (line, job) = match self.lines.next(may_wait) {
                Next::Later => return Next::Later,
                Next::End => return Next::End,
                Next::Job((number, line)) => {
                    let job = line.and_then(|line| {
                        Ok((self.prompts.job(number, &line, self.context)?, line.text))
                    });
                    (number, job)
                }
            };
            match job {
                Ok((job, prompt)) => {
                    let text = if self.prompts.echo { prompt } else { String::new() };
                    self.texts.insert(self.begun, Text { line, text, stream: None });
                    self.begun += 1;
                    return Next::Job(job);
                }
                Err(failure) => {
                    if self.lines.tell(line, Err(failure)).is_break() {
                        return Next::End;
                    }
                }
            }
        }
    }

    fn begin(&mut self, job: usize, options: &GenerateOptions) -> cerebellum::Result<()> {
        let stream = TextStream::new(self.prompts.tokenizer.table(), &options.stop)?;
        self.texts.get_mut(&job).expect("the prompt was begun").stream = Some(stream);
        Ok(())
    }

    fn step(&mut self, job: usize, step: Step) -> ControlFlow<StopReason> {
        let Text { text, stream, .. } = self.texts.get_mut(&job).expect("the prompt was begun");
        let stream = stream.as_mut().expect("the batch has taken it up");
        stream.push(step.token, &mut |piece: &str| {
            text.push_str(piece);
            ControlFlow::Continue(())
        })
    }

    fn end(&mut self, job: usize, outcome: cerebellum::Result<Generation>) {
        let Text { line, mut text, stream } =
            self.texts.remove(&job).expect("the prompt was begun");
        let answer = outcome.map(|generation| {
            if let Some(mut stream) = stream {
                stream.finish(generation.stop_reason, &mut |piece: &str| {
                    text.push_str(piece);
                    ControlFlow::Continue(())
                });
            }
            // A result of one line for each line.
            (text.replace(['\n', '\r'], " "), report(text, &generation))
        });
        // If nobody wants answers, there is no next line either.
        let _ = self.lines.tell(line, answer.map_err(Failure::from));
    }
}

fn report(text: String, generation: &Generation) -> Report {
    let time = generation.prompt_time + generation.decode_time;
    Report {
        ok: true,
        text,
        prompt_tokens: generation.prompt_tokens,
        tokens: generation.tokens,
        stop_reason: generation.stop_reason.name(),
        milliseconds: time.as_secs_f64() * 1e3,
    }
}
