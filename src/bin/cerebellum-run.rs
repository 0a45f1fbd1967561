//! The device binary: continues a prompt from a model file, and nothing else.

use std::fmt::Display;
use std::io::Write;
use std::ops::{ControlFlow, RangeInclusive};
use std::process::ExitCode;
use std::time::Instant;

use cerebellum::generate::{GenerateOptions, Generation, generate_text};
use cerebellum::kernels::Isa;
use cerebellum::sampler::SamplerOptions;
use cerebellum::text::TokenTable;
use cerebellum::threads::{MAX_WORKERS, TeamError};
use cerebellum::{Access, Error, KvType, Model, Session, SessionOptions, number, terminal};

const HELP: &str = "\
Continues a prompt from a quantized model file.

usage: cerebellum-run FILE [PROMPT] [options]

  -n, --max-tokens N     tokens to generate (128)
  -t, --threads N        threads, 1 to 64 (all processors, at most 8)
      --context N        positions of the cache (the model's)
      --kv f16|int8      type of the cache (f16)
      --temperature T    0 takes the most probable token, up to 100 (0)
      --top-k K          keep the K most probable tokens (0: all)
      --top-p P          keep the most probable tokens up to this share (1: all)
      --seed S           the same seed gives the same text everywhere (0)
      --tokens 1,2,3     token ids instead of PROMPT
      --ids              write token ids instead of text, one per line
      --read             read the file into memory instead of mapping it
  -h, --help             this text
  -V, --version          version and instruction sets

CEREBELLUM_ISA forces an instruction set. The text goes to standard output, figures go to standard
error. Exit codes: 0 done, 1 failed, 2 usage.
";

type Failure = Box<dyn std::error::Error>;

/// The command line, parsed.
struct Arguments {
    file: String,
    prompt: Option<String>,
    tokens: Option<Vec<u32>>,
    ids: bool,
    access: Access,
    session: SessionOptions,
    generate: GenerateOptions,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("cerebellum-run: {message}; see cerebellum-run --help");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the text has closed the pipe: not our failure.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            // Of names from the file, too, which must not give orders to a terminal.
            eprintln!("cerebellum-run: {}", terminal::text(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// `None` if the question was answered already (help, version).
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut session = SessionOptions { threads: cores.min(8), ..Default::default() };
    let mut generate = GenerateOptions { sampler: SamplerOptions::default(), ..Default::default() };
    let (mut positional, mut tokens) = (Vec::new(), None);
    let (mut ids, mut access) = (false, Access::Map);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "-h" | "--help" => {
                print!("{HELP}");
                return Ok(None);
            }
            "-V" | "--version" => {
                print_version();
                return Ok(None);
            }
            "-n" | "--max-tokens" => {
                generate.max_tokens = whole(&word, &value()?, 0..=usize::MAX)?;
            }
            "-t" | "--threads" => session.threads = whole(&word, &value()?, 1..=MAX_WORKERS)?,
            "--context" => session.context = Some(whole(&word, &value()?, 1..=usize::MAX)?),
            "--kv" => session.kv = kv_type(&value()?)?,
            "--temperature" | "--top-k" | "--top-p" | "--seed" => {
                let set = generate.sampler.set(&word[2..], &value()?);
                set.map_err(|error| usage(&word, &error))?;
            }
            "--tokens" => {
                let ids = value()?;
                let ids = ids.split(',').map(|id| whole(&word, id.trim(), 0..=u32::MAX));
                tokens = Some(ids.collect::<Result<_, _>>()?);
            }
            "--ids" => ids = true,
            "--read" => access = Access::Read,
            _ if word.starts_with('-') && word.len() > 1 => {
                return Err(format!("unknown option {word}"));
            }
            _ => positional.push(word),
        }
    }
    let mut positional = positional.into_iter();
    let file = positional.next().ok_or("no model file given")?;
    let prompt = positional.next();
    if let Some(surplus) = positional.next() {
        return Err(format!("unexpected {surplus:?} (quote a prompt of several words)"));
    }
    if prompt.is_some() && tokens.is_some() {
        return Err("give PROMPT or --tokens, not both".to_owned());
    }
    Ok(Some(Arguments { file, prompt, tokens, ids, access, session, generate }))
}

fn whole<T>(option: &str, word: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    number::whole("", word, range).map_err(|error| usage(option, &error))
}

/// What an option's value is not, as the command line names the option.
fn usage(option: &str, error: &Error) -> String {
    match error {
        Error::Option { detail, .. } => format!("{option}: {detail}"),
        error => format!("{option}: {error}"),
    }
}

fn kv_type(word: &str) -> Result<KvType, String> {
    let kinds = [KvType::F16, KvType::Int8];
    let kind = kinds.into_iter().find(|kind| kind.name() == word);
    kind.ok_or_else(|| format!("--kv: {word:?} is not f16 or int8"))
}

fn print_version() {
    let isas: Vec<_> = Isa::available().map(Isa::name).collect();
    println!("cerebellum-run {} ({})", env!("CARGO_PKG_VERSION"), isas.join(", "));
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let start = Instant::now();
    let model = Model::open(&arguments.file, arguments.access)?;
    let opened = start.elapsed();
    let mut options = arguments.session.clone();
    options.isa = cerebellum::isa_from_environment()?;
    let mut session = loop {
        match model.session(&options) {
            // The first `index` threads are to be had.
            Err(Error::Threads(TeamError::Spawn { index, source })) if index < options.threads => {
                eprintln!("cerebellum-run: only {index} threads are to be had: {source}");
                options.threads = index;
            }
            session => break session?,
        }
    };
    let tokenizer =
        if arguments.prompt.is_some() || !arguments.ids { Some(model.tokenizer()?) } else { None };
    let prompt = match (&arguments.tokens, &arguments.prompt) {
        (Some(tokens), _) => tokens.clone(),
        #[cfg(feature = "text")]
        (None, Some(text)) => {
            let tokenizer = tokenizer.as_ref().expect("opened for the prompt");
            session.encode(tokenizer, text, Default::default())?
        }
        #[cfg(not(feature = "text"))]
        (None, Some(_)) => {
            return Err("built without the feature `text`: give --tokens instead of a text".into());
        }
        (None, None) => Vec::new(),
    };
    let generation = match &tokenizer {
        Some(tokenizer) if !arguments.ids => {
            write_text(&mut session, tokenizer.table(), &prompt, arguments)?
        }
        _ => write_ids(&mut session, &prompt, arguments)?,
    };
    report(&session, &options, &generation, opened);
    Ok(())
}

/// Streams text to standard output.
fn write_text<B: AsRef<[u8]>>(
    session: &mut Session,
    table: &TokenTable<B>,
    prompt: &[u32],
    arguments: &Arguments,
) -> Result<Generation, Failure> {
    let mut out = std::io::stdout().lock();
    let mut failure = None;
    let mut write = |text: &str| match terminal::write(&mut out, text).and_then(|()| out.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    };
    if let Some(prompt) = &arguments.prompt {
        let _ = write(prompt);
    }
    let generation = generate_text(session, table, prompt, &arguments.generate, &mut write)?;
    let _ = write("\n");
    failure.map_or(Ok(generation), |error| Err(error.into()))
}

/// Streams token ids to standard output, one per line.
fn write_ids(
    session: &mut Session,
    prompt: &[u32],
    arguments: &Arguments,
) -> Result<Generation, Failure> {
    use cerebellum::generate::{StopReason, generate_tokens};
    let mut out = std::io::stdout().lock();
    let mut failure = None;
    let generation =
        generate_tokens(session, prompt, &arguments.generate, |token| {
            match writeln!(out, "{token}").and_then(|()| out.flush()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(StopReason::Cancelled)
                }
            }
        })?;
    failure.map_or(Ok(generation), |error| Err(error.into()))
}

fn report(
    session: &Session,
    options: &SessionOptions,
    generation: &Generation,
    opened: std::time::Duration,
) {
    let mebibytes = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    if let Ok(plan) = session.model().plan(options) {
        eprintln!(
            "opened in {:.1} ms; {:.1} MiB model file, {:.1} MiB private memory ({:.1} cache)",
            opened.as_secs_f64() * 1e3,
            mebibytes(plan.weights_bytes),
            mebibytes(plan.total_private_bytes),
            mebibytes(plan.kv_bytes),
        );
    }
    eprintln!(
        "prompt {} tokens, {:.1}/s; text {} tokens, {:.1}/s; {}; {}, {} threads",
        generation.prompt_tokens,
        generation.prompt_tokens_per_second(),
        generation.tokens,
        generation.decode_tokens_per_second(),
        generation.stop_reason.name(),
        session.isa(),
        options.threads,
    );
}
