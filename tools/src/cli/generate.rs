//! `cerebellum generate`.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use cerebellum::generate::{GenerateOptions, Generation, generate_text};
use cerebellum::sampler::SamplerOptions;
use cerebellum::text::EncodeOptions;
use cerebellum::{Session, TokenizerBytes};
use serde::Serialize;

use super::session::ModelArgs;
use super::table::bytes;
use super::{Context, Failure, Outcome};

type Tokenizer = cerebellum::text::Tokenizer<TokenizerBytes>;

/// Continue a text.
///
/// The prompt and what the model makes of it go to standard output as they are made, figures to
/// standard error. The same seed gives the same text on every machine.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue; `-` reads standard input; empty begins a new text
    #[arg(short, long, default_value = "", value_name = "TEXT")]
    prompt: String,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// End the text before this string; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Do not repeat the prompt
    #[arg(long)]
    no_echo: bool,
    /// Read special tokens in the prompt, such as <|endoftext|>, as such
    #[arg(long)]
    parse_special: bool,
    /// Go on past the end-of-text token
    #[arg(long)]
    ignore_end_of_text: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum generate -m demo.cbl -p 'Once upon a time'
  cerebellum generate -m demo.cbl -p 'The king' -n 200 --temperature 0.8 --top-p 0.9 --seed 7
  echo 'English: I am here.' | cerebellum generate -m demo.cbl -p - --stop English: --json";

/// How tokens are chosen, and how many.
#[derive(Debug, clap::Args)]
pub struct SamplingArgs {
    /// The most tokens to generate
    #[arg(short = 'n', long, default_value_t = 128, value_name = "N")]
    pub max_tokens: usize,
    /// 0 always takes the most probable token
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    temperature: f32,
    /// Keep the K most probable tokens; 0 keeps all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Keep the most probable tokens that together reach this share
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f32,
    /// Keep tokens at least this fraction as probable as the first
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    min_p: f32,
    /// Make recent tokens less probable, if over 1
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    repetition_penalty: f32,
    /// Seed of the random choices
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
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
            seed: self.seed,
            ..SamplerOptions::default()
        }
    }
}

impl Args {
    fn options(&self) -> GenerateOptions {
        GenerateOptions {
            max_tokens: self.sampling.max_tokens,
            sampler: self.sampling.sampler(),
            stop: self.stop.clone(),
            ignore_end_of_text: self.ignore_end_of_text,
        }
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
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = args.model.open()?;
    let options = args.model.options(context)?;
    let tokenizer = model.tokenizer()?;
    let prompt = read_prompt(&args.prompt)?;
    let encode = EncodeOptions { parse_special: args.parse_special };
    let tokens = tokenizer.encode(&prompt, encode)?;
    let mut session = model.session(&options)?;
    let mut stream = Stream { text: String::new(), to_stdout: !context.json, failure: None };
    if !args.no_echo {
        stream.echo(&prompt)?;
    }
    let generation = stream.run(&mut session, &tokenizer, &tokens, &args.options())?;
    if context.json {
        let report = report(&stream.text, &generation, &session, options.threads);
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

fn read_prompt(prompt: &str) -> Result<String, Failure> {
    if prompt != "-" {
        return Ok(prompt.to_owned());
    }
    let mut text = String::new();
    let read = io::stdin().lock().read_to_string(&mut text);
    read.map_err(|e| format!("cannot read the prompt from standard input: {e}"))?;
    // The newline that ends the last line is the shell's, not the writer's.
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
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
        if !self.to_stdout {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn push(&mut self, text: &str) -> ControlFlow<()> {
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
        if let Some(failure) = self.failure.take() {
            return Err(failure.into());
        }
        self.echo("\n")?;
        Ok(generation)
    }
}
