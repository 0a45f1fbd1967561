//! `cerebellum generate`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, Once, OnceLock};

use cerebellum::chat::{Chat, ChatOptions, Date, Role};
use cerebellum::constraint::{Form, Vocabulary};
use cerebellum::generate::{
    Constraint, GenerateOptions, Generation, Generator, Step, generate_text, generate_text_steps,
};
use cerebellum::kernels::Kernels;
use cerebellum::sampler::SamplerOptions;
use cerebellum::score::{log_probabilities_by, top_log_probabilities_by};
use cerebellum::text::EncodeOptions;
use cerebellum::{Model, Session, TokenizerBytes};
use cerebellum_tools::json;
use cerebellum_tools::receipt::{Asked, LogitsDigest, Receipt, model_digest};
use cerebellum_tools::threads;
use serde::Serialize;

use super::context::{Context, Failure, Outcome, create_output, print_text};
use super::generate_lines::Prompts;
use super::lines::{LinesArgs, read_list};
use super::prompt::{SPACE_AT_THE_END, after_space, ends_in_space, read_prompt};
use super::session::ModelArgs;
use super::table::bytes;
use super::values::{sampling, stop, whole};

pub type Tokenizer = cerebellum::text::Tokenizer<TokenizerBytes>;

/// Continue a text.
///
/// The prompt and the model's continuation go to standard output piece by piece, speeds and sizes to standard
/// error. The same seed gives the same text on every machine.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to continue; `-` reads it from standard input; without it a new text begins
    #[arg(short, long, default_value = "", value_name = "TEXT")]
    prompt: String,
    /// Continue each line of a file, or of standard input if FILE is `-`; several lines at the same time. The
    /// texts come in the order of the lines, each on one line
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["prompt", "top_logprobs"])]
    file: Option<PathBuf>,
    /// Each line is JSON: a string, or an object with the prompt in `text` and, if wanted, one of `choices`,
    /// `regex` and `json_schema`
    #[arg(long, requires = "file")]
    jsonl: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Make a token more or less probable: TOKEN is an id, or a text that is one token; BIAS, -1000 to 1000,
    /// is added to its logit. May be given several times. The model must have the token
    #[arg(long, value_name = "TOKEN:BIAS", allow_hyphen_values = true)]
    logit_bias: Vec<String>,
    /// End the text before this string; \n stands for a line break, \t for a tab and \\ for a backslash. May
    /// be given several times
    #[arg(long, value_name = "TEXT", value_parser = stop)]
    stop: Vec<String>,
    #[command(flatten)]
    form: FormArgs,
    /// Write a receipt: what was asked and said, and a digest of the logits. Whoever has the model can check it by
    /// `check`
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    receipt: Option<PathBuf>,
    /// With --json, list for each token the N most probable tokens at its position, with the logarithms of
    /// their probabilities before temperature, bias and penalty
    #[arg(long, value_name = "N", requires = "json", value_parser = clap::value_parser!(u16).range(1..=1000))]
    top_logprobs: Option<u16>,
    /// Take the prompt, or each line of the file, as a message to the model, put it into the model's own chat
    /// template, and end with its answer
    #[arg(long, conflicts_with = "parse_special")]
    chat: bool,
    #[command(flatten)]
    roles: RoleArgs,
    /// Do not repeat the prompt
    #[arg(long)]
    no_echo: bool,
    /// Turn special tokens that are written in the prompt, such as <|endoftext|>, into these tokens
    #[arg(long)]
    parse_special: bool,
    /// Continue after the end-of-text token and all other tokens that end an answer
    #[arg(long, visible_alias = "ignore-eos")]
    ignore_end_of_text: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum generate -m demo.cbl -p 'Once upon a time'
  cerebellum generate -m demo.cbl -p 'The king' -n 200 --temperature 0.8 --top-p 0.9 --seed 7
  echo 'English: I am here.' | cerebellum generate -m demo.cbl -p - --stop English: --json
  cerebellum generate -m demo.cbl -p 'Is the sky blue? Answer:' --choices yes,no
  cerebellum generate -m 1.3b.cbl -p 'A person as JSON:' --json-schema person.json -n 200
  cerebellum generate -m smollm2.cbl --chat -p 'What is the capital of France?'
  cerebellum generate -m demo.cbl --file prompts.txt -n 40 --json";

/// What a chat template is given besides the messages.
#[derive(Debug, clap::Args)]
pub struct RoleArgs {
    /// The system message, which says how to answer
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The date that the template may write, as 2025-01-31 [default: today, in UTC]
    #[arg(long, value_name = "DATE", value_parser = date)]
    date: Option<Date>,
    /// Ask a model that can think before it answers to do so, or not to, if its template knows that
    #[arg(long, value_name = "BOOL")]
    thinking: Option<bool>,
}

fn date(text: &str) -> Result<Date, String> {
    Date::parse(text).ok_or_else(|| "this is not a day from 1970 on in the form 2025-01-31".into())
}

impl RoleArgs {
    /// A conversation with the model, system message included.
    pub fn chat(&self, model: &Model, tokenizer: &Arc<Tokenizer>) -> Result<Chat, Failure> {
        let options = ChatOptions { date: self.date, thinking: self.thinking };
        let mut chat = Chat::with_tokenizer(model, Arc::clone(tokenizer), options)?;
        if let Some(system) = &self.system {
            chat.push(Role::System, system)?;
        }
        Ok(chat)
    }

    /// Whether any of them is given.
    pub fn are_given(&self) -> bool {
        self.system.is_some() || self.date.is_some() || self.thinking.is_some()
    }
}

/// How tokens are chosen, and how many.
#[derive(Debug, clap::Args)]
pub struct SamplingArgs {
    /// The most tokens to generate
    #[arg(short = 'n', long, default_value_t = 128, value_name = "N", value_parser = whole(0..=usize::MAX))]
    pub max_tokens: usize,
    /// Temperature, 0 to 100; 0 always takes the most probable token
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = sampling::<f32>("temperature"))]
    temperature: f32,
    /// Choose only among the K most probable tokens; 0: among all
    #[arg(long, default_value_t = 0, value_name = "K", value_parser = sampling::<usize>("top-k"))]
    top_k: usize,
    /// Choose only among the most probable tokens that together reach this probability, above 0 to 1
    #[arg(long, default_value_t = 1.0, value_name = "P", value_parser = sampling::<f32>("top-p"))]
    top_p: f32,
    /// Choose only among tokens with at least this fraction, 0 to 1, of the largest probability
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = sampling::<f32>("min-p"))]
    min_p: f32,
    /// Make recent tokens less probable if R is above 1; 0.01 to 100
    #[arg(long, default_value_t = 1.0, value_name = "R", value_parser = sampling::<f32>("repetition-penalty"))]
    repetition_penalty: f32,
    /// How many of the last tokens, the prompt's included, are recent; 0: all
    #[arg(long, default_value_t = SamplerOptions::default().repetition_window, value_name = "N", value_parser = sampling::<usize>("repetition-window"))]
    repetition_window: usize,
    /// Seed of the random choices
    #[arg(long, default_value_t = 0, value_name = "S", value_parser = sampling::<u64>("seed"))]
    seed: u64,
}

/// What the text must be like.
#[derive(Debug, clap::Args)]
#[group(multiple = false, conflicts_with = "stop")]
pub struct FormArgs {
    /// The text must be one of these choices, separated by commas or on the lines of a file; a space may
    /// precede it
    #[arg(long, value_name = "LIST|FILE")]
    choices: Option<String>,
    /// The whole text must match this regular expression; ^ and $ are not necessary
    #[arg(long, value_name = "REGEX")]
    regex: Option<String>,
    /// The text must be JSON that is valid by this JSON schema; a space may precede it
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
}

impl FormArgs {
    /// The form; of a text that goes on from another, a space may precede it.
    pub fn form(&self, goes_on: bool) -> Result<Option<Form>, Failure> {
        let after_space = |form| if goes_on { after_space(form) } else { form };
        if let Some(choices) = &self.choices {
            let choices = Form::Choices(read_list(choices, "choices")?);
            choices.check()?;
            return Ok(Some(after_space(choices)));
        }
        if let Some(regex) = &self.regex {
            let regex = Form::Regex(regex.clone());
            regex.check()?;
            return Ok(Some(regex));
        }
        let Some(path) = &self.json_schema else { return Ok(None) };
        let name = path.display();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|e| {
            let is_schema = path.to_string_lossy().trim_start().starts_with('{');
            let advice = if is_schema { "; give a file that holds it" } else { "" };
            format!("cannot read the JSON schema {name}: {e}{advice}")
        })?;
        let schema = json::parse(text.as_bytes());
        let schema = schema.map_err(|e| {
            format!("the JSON schema {name} is not valid JSON: {e}; correct the file")
        })?;
        let schema = Form::JsonSchema(schema);
        schema.check().map_err(|e| format!("{name}: {e}"))?;
        Ok(Some(after_space(schema)))
    }
}

impl SamplingArgs {
    /// The sampler's options; those that it does not have are the defaults.
    pub fn sampler(&self) -> SamplerOptions {
        SamplerOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            repetition_window: self.repetition_window,
            seed: self.seed,
            ..SamplerOptions::default()
        }
    }
}

impl Args {
    fn options(
        &self,
        tokenizer: &Tokenizer,
        vocab_size: usize,
    ) -> Result<GenerateOptions, Failure> {
        let mut sampler = self.sampling.sampler();
        for bias in &self.logit_bias {
            sampler.logit_bias.push(read_bias(bias, tokenizer)?);
        }
        sampler.check_for(vocab_size)?;
        Ok(GenerateOptions {
            max_tokens: self.sampling.max_tokens,
            sampler,
            stop: self.stop.clone(),
            ignore_end_of_text: self.ignore_end_of_text,
        })
    }
}

/// The JSON object.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    text: &'a str,
    prompt_tokens: usize,
    tokens: usize,
    stop_reason: &'static str,
    prompt_tokens_per_second: f64,
    decode_tokens_per_second: f64,
    isa: &'static str,
    threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_log_probabilities: Option<&'a [TokenReport]>,
}

/// A token of the text, and what else might have stood in its place.
#[derive(Serialize)]
struct TokenReport {
    #[serde(flatten)]
    token: Probable,
    top: Vec<Probable>,
}

/// A token and the natural logarithm of its probability.
#[derive(Serialize)]
struct Probable {
    id: u32,
    /// As the token's bytes may be no whole characters, the replacement character may be in it.
    text: String,
    /// None where the form left no choice.
    log_probability: Option<f64>,
}

impl Probable {
    fn new(id: u32, log_probability: Option<f64>, tokenizer: &Tokenizer) -> Self {
        let bytes = tokenizer.table().token_bytes(id).unwrap_or_default();
        Self { id, text: String::from_utf8_lossy(bytes).into_owned(), log_probability }
    }
}

/// The report of a step, with the `count` most probable tokens.
fn report_token(
    step: &Step,
    count: usize,
    (tokenizer, kernels): (&Tokenizer, &Kernels),
) -> TokenReport {
    let of = |logits| log_probabilities_by(kernels, logits, &[step.token])[0];
    let top = |logits| top_log_probabilities_by(kernels, logits, count);
    let top = step.logits.map_or(Vec::new(), top);
    TokenReport {
        token: Probable::new(step.token, step.logits.map(of), tokenizer),
        top: top.into_iter().map(|(id, p)| Probable::new(id, Some(p), tokenizer)).collect(),
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = args.model.open()?;
    let mut options = args.model.options(context)?;
    let tokenizer = Arc::new(model.tokenizer()?);
    let generate = args.options(&tokenizer, model.config().vocab_size)?;
    let encode = EncodeOptions { parse_special: args.parse_special, ..Default::default() };
    if !args.chat && args.roles.are_given() {
        return Err("--system, --date and --thinking need --chat; add it, or leave them out".into());
    }
    if let Some(file) = &args.file {
        let chat = match args.chat {
            true => Some(Mutex::new(args.roles.chat(&model, &tokenizer)?)),
            false => None,
        };
        let prompts = Prompts {
            model: &model,
            tokenizer: &tokenizer,
            options: generate,
            encode,
            form: args.form.form(!args.chat)?,
            echo: !args.no_echo && !args.chat && !context.json,
            chat,
            vocabulary: OnceLock::new(),
            told_of_space: Once::new(),
            context,
        };
        return prompts.run(&LinesArgs::of(file, args.jsonl), &options);
    }
    let form = args.form.form(!args.chat)?;
    let mut constraint = match &form {
        None => None,
        Some(form) => Some(Vocabulary::new(&model, Arc::clone(&tokenizer))?.constrain(form)?),
    };
    let file = args.model.file();
    let mut recorder = match &args.receipt {
        None => None,
        Some(path) => {
            let output = create_output(path, false, &[file.to_owned()])?;
            Some((output, Vec::new(), LogitsDigest::default()))
        }
    };
    for warning in constraint.iter_mut().flat_map(|constraint| constraint.warnings()) {
        context.warn(warning);
    }
    let prompt = read_prompt(&args.prompt, context)?;
    if !args.chat && ends_in_space(&prompt, args.form.regex.is_some()) {
        context.warn(format_args!("the prompt {SPACE_AT_THE_END}"));
    }
    let mut session = threads::with_fewer(&mut options, |options| model.session(options))?;
    let tokens = match args.chat {
        true => {
            let mut chat = args.roles.chat(&model, &tokenizer)?;
            chat.push(Role::User, &prompt)?;
            chat.fit(session.context(), generate.max_tokens, &[])?.tokens
        }
        false => session.encode(&tokenizer, &prompt, encode)?,
    };
    // What cannot be continued is not repeated either.
    Generator::new(&mut session, &tokens, &generate, None)?;
    let mut stream = Stream { text: String::new(), to_stdout: !context.json, failure: None };
    let mut steps = Vec::new();
    let kernels = Kernels::new(session.isa()).unwrap_or_else(Kernels::best);
    if !args.no_echo && !args.chat {
        stream.echo(&prompt)?;
    }
    let constraint = constraint.as_mut().map(|constraint| constraint as &mut dyn Constraint);
    let table = tokenizer.table();
    let generation =
        generate_text_steps(&mut session, table, &tokens, &generate, constraint, |text, step| {
            if let (Some(count), Some(step)) = (args.top_logprobs, step) {
                steps.push(report_token(&step, count.into(), (&tokenizer, kernels)));
            }
            if let (Some((_, said, digest)), Some(step)) = (&mut recorder, step) {
                said.push(step.token);
                step.logits.iter().for_each(|logits| digest.push(logits));
            }
            stream.push(text)
        })?;
    stream.end()?;
    if let Some((mut output, said, digest)) = recorder {
        let model_digest = model_digest(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let asked = Asked {
            model: &model_digest,
            kv: options.kv,
            prompt: &tokens,
            options: &generate,
            form: form.as_ref(),
        };
        let receipt = Receipt::new(&asked, said, generation.stop_reason, digest.finish());
        let text = serde_json::to_string_pretty(&receipt)? + "\n";
        let written = output.file().write_all(text.as_bytes());
        written.map_err(|error| output.error("write", error))?;
        output.commit()?;
    }
    if context.json {
        let mut report = report(&stream.text, &generation, &session, options.threads);
        report.token_log_probabilities = args.top_logprobs.map(|_| &steps[..]);
        context.print("", &report)?;
    }
    let plan = model.plan(&options)?;
    context.note(format_args!(
        "{}\n{} model file, {} private memory ({} of it cache)",
        speeds(&generation, &session, options.threads),
        bytes(plan.weights_bytes as u64),
        bytes(plan.total_private_bytes as u64),
        bytes(plan.kv_bytes as u64),
    ));
    Ok(ExitCode::SUCCESS)
}

fn report<'a>(
    text: &'a str,
    generation: &Generation,
    session: &Session,
    threads: usize,
) -> Report<'a> {
    Report {
        ok: true,
        text,
        prompt_tokens: generation.prompt_tokens,
        tokens: generation.tokens,
        stop_reason: generation.stop_reason.name(),
        prompt_tokens_per_second: generation.prompt_tokens_per_second(),
        decode_tokens_per_second: generation.decode_tokens_per_second(),
        isa: session.isa().name(),
        threads,
        token_log_probabilities: None,
    }
}

/// One line of speeds.
pub fn speeds(generation: &Generation, session: &Session, threads: usize) -> String {
    format!(
        "prompt {} tokens, {:.1}/s; text {} tokens, {:.1}/s; ended by {}; {}, {threads} threads",
        generation.prompt_tokens,
        generation.prompt_tokens_per_second(),
        generation.tokens,
        generation.decode_tokens_per_second(),
        generation.stop_reason.name(),
        session.isa(),
    )
}

/// What is added to the logit of which token.
fn read_bias(argument: &str, tokenizer: &Tokenizer) -> Result<(u32, f32), Failure> {
    let fail = |detail: &str| format!("--logit-bias {argument:?}: {detail}");
    let parts = argument
        .rsplit_once(':')
        .ok_or_else(|| fail("it has no colon; write a token, a colon and a number"))?;
    let bias = parts.1.parse().map_err(|_| {
        fail("what is behind the last colon is not a number; write one, such as -5")
    })?;
    if let Ok(id) = parts.0.parse() {
        return Ok((id, bias));
    }
    match tokenizer.encode(parts.0, EncodeOptions::PARSE_SPECIAL)?[..] {
        [id] => Ok((id, bias)),
        ref ids => {
            Err(fail(&format!("the text is not one token, but the tokens {ids:?}; give an id"))
                .into())
        }
    }
}

/// Passes text on as it is made.
pub struct Stream {
    /// All of it.
    pub text: String,
    /// Whether standard output gets it.
    pub to_stdout: bool,
    /// Why standard output no longer gets it.
    pub failure: Option<io::Error>,
}

impl Stream {
    /// Writes text that the model did not make.
    pub fn echo(&self, text: &str) -> io::Result<()> {
        if self.to_stdout { print_text(text) } else { Ok(()) }
    }

    /// Takes a piece of the model's.
    pub fn push(&mut self, text: &str) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.text.push_str(text);
        match self.echo(text) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                self.failure = Some(e);
                ControlFlow::Break(())
            }
        }
    }

    /// Generates, then ends the line.
    pub fn run(
        &mut self,
        session: &mut Session,
        tokenizer: &Tokenizer,
        prompt: &[u32],
        options: &GenerateOptions,
    ) -> Result<Generation, Failure> {
        let table = tokenizer.table();
        let generation = generate_text(session, table, prompt, options, |text| self.push(text))?;
        self.end()?;
        Ok(generation)
    }

    /// Ends the line.
    pub fn end(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure.into());
        }
        Ok(self.echo("\n")?)
    }
}
