//! `cerebellum plan`.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use cerebellum::format::{Config, opening_bytes};
use cerebellum::text::text_bytes;
use cerebellum::{Access, Model, SessionOptions};
use cerebellum_tools::bench::Reads;
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::session::{FileArgs, SessionArgs, open};
use super::table::{Table, bytes};
use super::values::whole;

/// Show how much memory a model file will need to run.
///
/// The numbers are exact. A session allocates the private part when it is made, and nothing later.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Plan for a batch of N sequences that are evaluated together, 1 to 1024
    #[arg(long, value_name = "N", value_parser = whole(1..=cerebellum::batch::MAX_SEQUENCES))]
    batch: Option<usize>,
    /// Megabytes (1 000 000 bytes) that a flash memory gives in a second: shows what a token reads of the file,
    /// and how many tokens a second the flash allows at most
    #[arg(long, value_name = "N", value_parser = rate)]
    flash_mb_s: Option<f64>,
    /// Bytes of RAM of a microcontroller, beside its stack and variables: shows whether a session fits, beside what
    /// opening the file takes, and what a copy of weights in the rest saves
    #[arg(long, value_name = "BYTES", value_parser = whole(1..=usize::MAX))]
    ram: Option<usize>,
}

/// A positive number.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("not a number above 0".to_owned()),
    }
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum plan 111m.cbl
  cerebellum plan 111m.cbl --context 512 --kv int8 --threads 1 --json
  cerebellum plan demo.cbl --context 64 --kv int8 --chunk 1 -t 1 --flash-mb-s 66 --ram 983040";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    #[serde(flatten)]
    memory: MemoryReport,
    /// What a token reads in a full context.
    reads: Reads,
    #[serde(skip_serializing_if = "Option::is_none")]
    flash_tokens_per_second: Option<f64>,
    /// What opening takes at most on a processor of 32 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    opening_bytes: Option<usize>,
    /// What a text that fills the context takes at most while a call reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    text_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fits_ram: Option<bool>,
    #[serde(flatten)]
    copy: Option<CopyReport>,
}

/// What a copy of weights in RAM that is left saves.
#[derive(Serialize)]
struct CopyReport {
    copy_bytes: usize,
    /// Bytes of the file that a token reads less.
    copy_saved_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy_flash_tokens_per_second: Option<f64>,
}

impl CopyReport {
    /// In so many bytes.
    fn new(model: &Model, room: usize, reads: &Reads, flash_mb_s: Option<f64>) -> Self {
        let copy = model.worth_copying(room);
        let read = reads.file_bytes() - copy.saved_bytes;
        Self {
            copy_bytes: copy.range.len(),
            copy_saved_bytes: copy.saved_bytes,
            // A file that is all in RAM is not read.
            copy_flash_tokens_per_second: flash_mb_s
                .filter(|_| read > 0)
                .map(|rate| tokens_per_second(rate, read)),
        }
    }
}

impl fmt::Display for CopyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { copy_bytes, copy_saved_bytes, copy_flash_tokens_per_second } = self;
        if *copy_bytes == 0 {
            return f.write_str("no part of the weights fits in there");
        }
        write!(
            f,
            "a copy of weights in there, {copy_bytes} bytes, saves a token {copy_saved_bytes} bytes of the file"
        )?;
        match copy_flash_tokens_per_second {
            Some(most) => write!(f, ": {most:.1} tokens/s at most"),
            None => Ok(()),
        }
    }
}

/// As many as a flash memory of that rate allows if each reads so many bytes.
fn tokens_per_second(flash_mb_s: f64, bytes: usize) -> f64 {
    flash_mb_s * 1e6 / bytes as f64
}

/// Bytes of an address on a microcontroller.
const ADDRESS_BYTES: usize = 4;

/// Bytes of a text that has as many tokens as a context, as texts mostly are.
const TEXT_BYTES_OF_POSITION: usize = 4;

/// Whether a session fits into so much RAM, beside what opening takes.
fn describe_ram(ram: usize, opening: usize, private: usize) -> String {
    let rest = match ram.checked_sub(opening.saturating_add(private)) {
        Some(left) => format!("that and the private memory leave {left} of {ram} bytes of RAM"),
        None => format!(
            "that and the private memory are {} bytes more than {ram}: a smaller --context or --chunk, or --kv int8, \
             needs less",
            opening.saturating_add(private) - ram
        ),
    };
    format!("\nopening takes at most {opening} bytes on a processor of 32 bits; {rest}")
}

/// What running a model takes.
#[derive(Serialize)]
pub struct MemoryReport {
    context: usize,
    /// Layers whose cache is a window, by its positions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    windowed_layers: BTreeMap<usize, usize>,
    #[serde(skip)]
    threads: usize,
    weights_bytes: usize,
    kv_bytes: usize,
    scratch_bytes: usize,
    total_private_bytes: usize,
}

impl MemoryReport {
    /// Plans a session of the model, or a batch of `batch` sequences.
    pub fn new(
        model: &Model,
        options: &SessionOptions,
        batch: Option<usize>,
    ) -> Result<Self, Failure> {
        let plan = match batch {
            Some(sequences) => model.plan_batch(options, sequences)?,
            None => model.plan(options)?,
        };
        Ok(Self {
            context: plan.context,
            windowed_layers: windowed_layers(model.config(), plan.context),
            threads: options.threads,
            weights_bytes: plan.weights_bytes,
            kv_bytes: plan.kv_bytes,
            scratch_bytes: plan.scratch_bytes,
            total_private_bytes: plan.total_private_bytes,
        })
    }
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut table = Table::new(&["what", "bytes", ""]);
        for (name, size) in [
            ("weights (mapped, shared, evictable)", self.weights_bytes),
            ("key-value cache", self.kv_bytes),
            ("scratch", self.scratch_bytes),
            ("private memory", self.total_private_bytes),
        ] {
            table.push([name.to_owned(), size.to_string(), bytes(size as u64)]);
        }
        write!(f, "{table}\nfor {} positions and {} threads", self.context, self.threads)?;
        for (window, layers) in &self.windowed_layers {
            write!(f, "; in {layers} layers the cache has a window of {window} positions")?;
        }
        Ok(())
    }
}

/// How many layers see a window that is smaller than the context, by the window's positions.
fn windowed_layers(config: &Config, context: usize) -> BTreeMap<usize, usize> {
    let mut layers = BTreeMap::new();
    let windows = (0..config.n_layer).filter_map(|n| config.layer_kind(n).window);
    windows
        .filter(|window| *window < context)
        .for_each(|window| *layers.entry(window).or_default() += 1);
    layers
}

/// What a token reads, and what that means for a flash memory.
fn describe(reads: &Reads, flash_mb_s: f64, tokens_per_second: f64) -> String {
    let mut table = Table::new(&["a token reads", "bytes", ""]);
    for (name, size) in [
        ("embedding", reads.embedding_bytes),
        ("attention", reads.attention_bytes),
        ("MLP", reads.mlp_bytes),
        ("norms and biases", reads.vectors_bytes),
        ("head", reads.head_bytes),
        ("of the file", reads.file_bytes()),
        ("of the cache when it is full, in RAM", reads.cache_bytes),
    ] {
        table.push([name.to_owned(), size.to_string(), bytes(size as u64)]);
    }
    format!("{table}\n{flash_mb_s} MB/s of flash allow {tokens_per_second:.1} tokens/s at most")
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = open(args.file.path(), Access::Map)?;
    let options = args.session.options(context)?;
    let memory = MemoryReport::new(&model, &options, args.batch)?;
    let reads = Reads::of(&model, options.kv, memory.context);
    let flash_tokens_per_second =
        args.flash_mb_s.map(|rate| tokens_per_second(rate, reads.file_bytes()));
    let header = model.layout().tensors().first().map_or(0, |first| first.range.start);
    let opening = opening_bytes(header, ADDRESS_BYTES);
    let private = memory.total_private_bytes;
    let left = args.ram.map(|ram| ram.checked_sub(opening.saturating_add(private)));
    let fits_ram = left.map(|left| left.is_some());
    let copy = left.flatten().map(|left| CopyReport::new(&model, left, &reads, args.flash_mb_s));
    let mut text = memory.to_string();
    if let Some((rate, most)) = args.flash_mb_s.zip(flash_tokens_per_second) {
        text += &format!("\n\n{}", describe(&reads, rate, most));
    }
    if let Some(ram) = args.ram {
        text += &describe_ram(ram, opening, private);
    }
    if let Some(copy) = &copy {
        text += &format!("\n{copy}");
    }
    let opening_bytes = args.ram.map(|_| opening);
    let text_of_context = TEXT_BYTES_OF_POSITION.saturating_mul(memory.context);
    let text_bytes = args.ram.map(|_| text_bytes(text_of_context));
    if let Some(most) = text_bytes {
        text += &format!(
            "\nwhile a call reads a text of {text_of_context} bytes, that takes at most {most} bytes, where opening had its"
        );
    }
    let report = Report {
        ok: true,
        memory,
        reads,
        flash_tokens_per_second,
        opening_bytes,
        text_bytes,
        fits_ram,
        copy,
    };
    context.print(text, &report)?;
    Ok(ExitCode::SUCCESS)
}
