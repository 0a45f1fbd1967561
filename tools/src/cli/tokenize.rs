//! `cerebellum tokenize`.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use cerebellum::Access;
use cerebellum::chat::Role;
use cerebellum::text::EncodeOptions;
use serde::{Serialize, Serializer};

use super::context::{Context, Failure, Outcome, print_text};
use super::generate::{RoleArgs, Tokenizer};
use super::lines::LinesArgs;
use super::prompt::read_prompt;
use super::session::open;
use super::text_file;

/// Show the tokens of a text, or the text of tokens.
///
/// The tokens are those that the model reads if the text begins an empty session: the token that the model wants
/// before every text is there. A table shows them one by one; of texts on lines, each line of output has the ids
/// of one, in a form that --ids takes.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The model file
    #[arg(short, long, value_name = "FILE", env = "CEREBELLUM_MODEL")]
    model: PathBuf,
    /// The text, as it is; `-` is all of standard input as one text
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["text", "file", "jsonl", "ids"])]
    prompt: Option<String>,
    #[command(flatten)]
    lines: LinesArgs,
    /// Turn special tokens that are written in the text, such as <|endoftext|>, into these tokens
    #[arg(long, conflicts_with_all = ["ids", "chat"])]
    parse_special: bool,
    /// Leave out the token that the model wants before every text, as in the middle of a text
    #[arg(long, visible_alias = "no-bos", conflicts_with_all = ["ids", "chat"])]
    no_begin_of_text: bool,
    /// Show the text of these tokens: ids as 1,2,3, or a file with such ids on each line; `-` is standard input.
    /// Spaces and brackets between them are ignored
    #[arg(long, value_name = "IDS|FILE", conflicts_with_all = ["text", "file", "jsonl", "chat"])]
    ids: Option<String>,
    /// Take the text as a message to the model, and show all tokens of its chat template
    #[arg(long, conflicts_with_all = ["file", "jsonl"])]
    chat: bool,
    #[command(flatten)]
    roles: RoleArgs,
    /// The text; `-` is all of standard input as one text. Without it, each line of standard input is a text
    text: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum tokenize -m smollm2.cbl 'Once upon a time'
  cerebellum tokenize -m smollm2.cbl 'Once upon a time' --json | jq -c .ids
  cerebellum tokenize -m smollm2.cbl --parse-special '<|im_start|>user'
  cerebellum tokenize -m smollm2.cbl --chat 'What is the capital of France?'
  cerebellum tokenize -m smollm2.cbl --file texts.txt > ids.txt
  cerebellum tokenize -m smollm2.cbl --ids ids.txt
  cerebellum tokenize -m smollm2.cbl --ids 6403,2076,253,655";

/// The JSON object of a text, or of ids.
#[derive(Serialize)]
struct Report {
    ok: bool,
    /// Number of tokens.
    count: usize,
    ids: Vec<u32>,
    /// What each token stands for.
    pieces: Vec<Piece>,
    /// Positions of the control tokens, from 0.
    special: Vec<usize>,
    /// Of ids: their text. The replacement character stands for bytes that are no whole character.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// The bytes of a token, often part of a character.
struct Piece(Vec<u8>);

/// As llama.cpp's server has it: a string, or a list of bytes that are no whole characters.
impl Serialize for Piece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

/// In quotation marks, so that spaces are seen; bytes that are no whole character as `\xf0`.
impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\'' => f.write_char(c)?,
                    // The mark is seen in its own place, not on the quotation mark before it.
                    c => write!(f, "{}", c.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_char('"')
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = open(&args.model, Access::Map)?;
    let tokenizer = Arc::new(model.tokenizer()?);
    if !args.chat && args.roles.are_given() {
        return Err("--system, --date and --thinking need --chat; add it, or leave them out".into());
    }
    if let Some(ids) = &args.ids {
        return detokenize(ids, &tokenizer, model.config().vocab_size, context);
    }
    let options =
        EncodeOptions { parse_special: args.parse_special, begin_of_text: !args.no_begin_of_text };
    let text = match (&args.prompt, &args.text) {
        (Some(prompt), _) => Some(read_prompt(prompt, context)?),
        (None, Some(text)) => Some(read_prompt(text, context)?),
        (None, None) if args.chat => Some(text_file::exact_prompt(context)?),
        (None, None) => None,
    };
    let Some(text) = text else { return lines(args, &tokenizer, options, context) };
    let tokens = match args.chat {
        true => {
            let mut chat = args.roles.chat(&model, &tokenizer)?;
            chat.push(Role::User, &text)?;
            chat.tokens()?
        }
        false => tokenizer.encode(&text, options)?,
    };
    let report = report(tokens, &tokenizer);
    let mut table = table(&report, &tokenizer);
    let special = match args.chat || args.parse_special {
        true => "",
        false => written_special(&text, &tokenizer, options)?,
    };
    let bytes = report.pieces.iter().map(|piece| piece.0.len()).sum();
    write!(table, "{}, {}{special}", counted(report.count, "token"), counted(bytes, "byte"))?;
    context.print(table, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Each line of a file: its ids.
fn lines(args: &Args, tokenizer: &Tokenizer, options: EncodeOptions, context: &Context) -> Outcome {
    let (texts, tokens) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let workers = vec![(); context.session_threads()];
    let outcome = args.lines.answer(context, workers, |(), text| {
        let ids = tokenizer.encode(text, options)?;
        texts.fetch_add(1, Relaxed);
        tokens.fetch_add(ids.len(), Relaxed);
        Ok((listed(&ids), report(ids, tokenizer)))
    })?;
    let (texts, tokens) = (texts.into_inner(), tokens.into_inner());
    context.note(format_args!("{}, {}", counted(texts, "text"), counted(tokens, "token")));
    Ok(outcome)
}

/// Lists of ids: the text of each.
fn detokenize(
    argument: &str,
    tokenizer: &Tokenizer,
    vocab_size: usize,
    context: &Context,
) -> Outcome {
    for (place, ids) in read_ids(argument)? {
        let unknown = |&(_, &id): &(usize, &u32)| id as usize >= vocab_size;
        if let Some((at, id)) = (1..).zip(&ids).find(unknown) {
            return Err(format!(
                "{place}id number {at}, {id}, is no token: the model has {vocab_size}, from 0 on"
            )
            .into());
        }
        let bytes = text_of(&ids, tokenizer);
        let report = Report {
            text: Some(String::from_utf8_lossy(&bytes).into_owned()),
            ..report(ids, tokenizer)
        };
        let unknown = report.pieces.iter().filter(|piece| piece.0.is_empty()).count();
        if unknown > 0 {
            let tokens = counted(unknown, "token");
            context.warn(format_args!("{place}{tokens} of these the tokenizer does not have"));
        }
        if context.json || io::stdout().is_terminal() {
            let text = report.text.as_deref().unwrap_or_default();
            context.print(text, &report)?;
        } else {
            // The bytes themselves, whether they are whole characters or not.
            let mut out = io::stdout().lock();
            out.write_all(&bytes)?;
            drop(out);
            print_text("\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The bytes of tokens, control tokens included, without the space that encoding put before a text.
fn text_of(ids: &[u32], tokenizer: &Tokenizer) -> Vec<u8> {
    let table = tokenizer.table();
    let begin = ids.split_first().filter(|(first, _)| table.begin_of_text() == Some(**first));
    let (begin, rest) = begin.map_or((&[][..], ids), |(_, rest)| (&ids[..1], rest));
    let (mut bytes, mut behind) = (Vec::new(), Vec::new());
    table.decode_into(begin, &mut bytes);
    table.decode_into(rest, &mut behind);
    bytes.extend_from_slice(table.without_prefix_space(&behind));
    bytes
}

/// Lists of ids that an argument is or names, and how to begin a message about each.
fn read_ids(argument: &str) -> Result<Vec<(String, Vec<u32>)>, Failure> {
    let has_ids = |text: &str| text.bytes().all(|byte| b"0123456789,[] ".contains(&byte));
    if has_ids(argument) && !argument.trim().is_empty() {
        return Ok(vec![("--ids: ".to_owned(), parse_ids(argument, "--ids: ")?)]);
    }
    let path = Path::new(argument);
    if argument != "-" && !path.exists() {
        return Err(
            format!("--ids {argument:?} is neither a list of ids, as 1,2,3, nor a file").into()
        );
    }
    let source = text_file::Source::of(path);
    let (name, text) = (source.name(), text_file::plain(source)?);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(i, line): (usize, &str)| {
        let place = format!("{name}, line {}: ", i + 1);
        let ids = parse_ids(line, &place)?;
        Ok((place, ids))
    };
    let lists: Vec<_> = lines.map(read).collect::<Result<_, Failure>>()?;
    match lists.is_empty() {
        true => Err(format!("there are no ids in {name}").into()),
        false => Ok(lists),
    }
}

fn parse_ids(list: &str, place: &str) -> Result<Vec<u32>, Failure> {
    let words = list.split([',', ' ', '\t', '[', ']']).filter(|word| !word.is_empty());
    let parse = |(at, word): (usize, &str)| {
        let fail = |_| format!("{place}id number {at}, {word:?}, is no whole number below 2^32");
        Ok(word.parse().map_err(fail)?)
    };
    (1..).zip(words).map(parse).collect()
}

fn report(ids: Vec<u32>, tokenizer: &Tokenizer) -> Report {
    let table = tokenizer.table();
    let piece = |&id: &u32| Piece(table.token_bytes(id).unwrap_or_default().to_vec());
    let special = (0..).zip(&ids).filter(|(_, id)| table.is_special(**id)).map(|(at, _)| at);
    Report {
        ok: true,
        count: ids.len(),
        pieces: ids.iter().map(piece).collect(),
        special: special.collect(),
        ids,
        text: None,
    }
}

/// A line for each token: its position, its id, its piece and what else is to say of it.
fn table(report: &Report, tokenizer: &Tokenizer) -> String {
    let last = report.ids.iter().max().map_or(0, |id| id.to_string().len()).max(2);
    let first = report.count.saturating_sub(1).to_string().len().max(2);
    let pieces: Vec<String> = report.pieces.iter().map(Piece::to_string).collect();
    let mut text = format!("{:>first$}  {:>last$}  piece\n", "at", "id");
    for ((at, id), piece) in report.ids.iter().enumerate().zip(pieces) {
        let remark = match tokenizer.table().added_token(*id) {
            _ if at == 0 && tokenizer.table().begin_of_text() == Some(*id) => "  begins a text",
            Some(_) if tokenizer.table().is_special(*id) => "  special",
            Some(_) => "  added",
            None => "",
        };
        let _ = writeln!(text, "{at:>first$}  {id:>last$}  {piece}{remark}");
    }
    text
}

/// What to tell who wrote a special token that was read as text.
fn written_special(
    text: &str,
    tokenizer: &Tokenizer,
    options: EncodeOptions,
) -> Result<&'static str, Failure> {
    let parsed = tokenizer.encode(text, EncodeOptions { parse_special: true, ..options })?;
    let special = |ids: &[u32]| ids.iter().filter(|id| tokenizer.table().is_special(**id)).count();
    let plain = tokenizer.encode(text, options)?;
    Ok(match special(&parsed) > special(&plain) {
        true => "; special tokens written in the text were read as text (--parse-special)",
        false => "",
    })
}

fn listed(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
