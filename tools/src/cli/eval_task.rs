//! `cerebellum eval-task`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use cerebellum::classify::{self, Classifier, ClassifierOptions};
use cerebellum::task;
use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum::{LogitsFor, Model, SessionOptions, TokenizerBytes};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::eval;
use cerebellum_tools::eval::tasks::{
    Chrf, Example, Percent, Template, accuracy, accuracy_difference, answer_by_model,
    answer_by_reference, choose_by_reference, exact,
};
use cerebellum_tools::quantize::Observer;
use cerebellum_tools::threads;
use clap::ValueEnum;
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::hub::HubArgs;
use super::kv::Kv;
use super::measure::{Subject, check_reference};
use super::progress::Progress;
use super::table::Table;
use super::text_file;

/// Measure how many answers of a model are right.
///
/// Each line of the examples has an input, a tab and the right answer; `translate` accepts several right
/// answers, with tabs between, the others only the first. Models answer greedily, up to the end of the line;
/// `classify` chooses the most probable of all answers in the table, as the command of that name does. A model that
/// knows conversations is asked in its chat form to classify and to translate.
/// Differences are to the float32 reference, or to the first file if there is no reference; their 95 %
/// confidence intervals are paired.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The task
    #[arg(value_enum)]
    task: Task,
    /// The examples, a UTF-8 file
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The model file to measure; give -m several times to compare files
    #[arg(short, long = "model", value_name = "FILE", required = true)]
    models: Vec<PathBuf>,
    /// The checkpoint from which the files were made (a directory, a GGUF file, or hf:ORG/NAME): also measure
    /// its answers, in float32
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Compare with the reference even if a file was made from other weights
    #[arg(long, requires = "reference")]
    any_weights: bool,
    /// The text that the model continues, with {text} for the input; \n stands for a line break
    #[arg(long, value_name = "TEXT", long_help = LONG_TEMPLATE)]
    template: Option<String>,
    /// The most tokens of an answer
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    max_tokens: u16,
    /// Use only the first N examples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Type of the cached keys and values
    #[arg(long, value_enum, default_value_t)]
    kv: Kv,
    #[command(flatten)]
    hub: HubArgs,
}

impl Args {
    /// What may be named on the hub.
    pub fn checkpoints(&mut self) -> (&HubArgs, Vec<&mut PathBuf>) {
        (&self.hub, self.reference.iter_mut().collect())
    }
}

const LONG_TEMPLATE: &str = "\
The text that the model continues, with {text} for the input; \\n stands for a line break
[default: `Utterance: {text}\\nIntent:` for intents, `English: {text}\\nFrench:` for translate; for classify, which
needs {text} and {label}, and for translate by models that know conversations the form of the command]";

const AFTER_HELP: &str = "\
Examples:
  cerebellum eval-task intents --data intents.tsv -m int4.cbl -m int8.cbl --reference demo
  cerebellum eval-task translate --data en_fr.tsv -m int4.cbl --reference demo --json";

#[derive(Clone, Copy, Debug, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Task {
    /// Name the intent of a command; an answer is right if it is exactly the expected one
    Intents,
    /// Choose the class of a text, among all that the examples have
    Classify,
    /// Translate a sentence; an answer is right if it is exactly one of the expected ones; chrF measures how
    /// similar they are
    Translate,
}

impl Task {
    fn template(self) -> &'static str {
        match self {
            Self::Intents | Self::Classify => "Utterance: {text}\\nIntent:",
            Self::Translate => "English: {text}\\nFrench:",
        }
    }

    /// Columns with right answers.
    fn columns(self) -> usize {
        match self {
            Self::Intents | Self::Classify => 1,
            Self::Translate => usize::MAX,
        }
    }
}

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    task: Task,
    examples: usize,
    seconds: f64,
    /// The float reference first, if there is one.
    results: Vec<Score>,
}

/// A model's answers; all but `model` in percent.
#[derive(Serialize)]
struct Score {
    /// The file, or the reference's directory.
    model: String,
    bits_per_weight: Option<f64>,
    accuracy: f64,
    accuracy_interval: Option<[f64; 2]>,
    #[serde(flatten)]
    against: Option<Difference>,
    #[serde(flatten)]
    chrf: Option<ChrfScore>,
}

/// Against the reference, or the first file.
#[derive(Serialize)]
struct Difference {
    accuracy_difference: f64,
    accuracy_difference_interval: Option<[f64; 2]>,
    /// Answers that are the same, right or wrong.
    same_answers: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chrf_difference: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chrf_difference_interval: Option<[f64; 2]>,
}

#[derive(Serialize)]
struct ChrfScore {
    chrf: f64,
    chrf_interval: Option<[f64; 2]>,
}

/// One model's answers to all examples.
struct Answers {
    model: String,
    bits_per_weight: Option<f64>,
    texts: Vec<String>,
}

/// Runs the command. Everything that can be wrong is found before the long work.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let table = text_file::plain(text_file::Source::of(&args.data))?;
    let mut examples = Example::parse(&table, args.task.columns())?;
    examples.truncate(args.limit.map_or(usize::MAX, |limit| limit as usize));
    let examples = examples;
    let asked = Asked::new(args, &examples)?;
    let subjects = args.models.iter().map(|path| Subject::open(path));
    let subjects: Vec<Subject> = subjects.collect::<Result<_, _>>()?;
    let checkpoint = args.reference.as_deref().map(Checkpoint::open).transpose()?;
    for subject in &subjects {
        if let Some(checkpoint) = &checkpoint {
            check_reference(checkpoint, subject, args.any_weights, context)?;
        }
        if args.task != Task::Classify {
            asked.prompts(subject)?;
        }
    }

    let (progress, started) = (Progress::new(context), Instant::now());
    let rounds = subjects.len() + usize::from(checkpoint.is_some());
    progress.begin((rounds * examples.len()) as u64);
    let work = Work { args, context, asked: &asked, progress };
    let mut answers = Vec::new();
    if let Some(checkpoint) = &checkpoint {
        answers.push(work.of_reference(checkpoint, &subjects[0])?);
    }
    for subject in &subjects {
        answers.push(work.of_model(subject)?);
    }
    drop(work);
    let report = Report {
        ok: true,
        task: args.task,
        examples: examples.len(),
        seconds: started.elapsed().as_secs_f64(),
        results: scores(args.task, &examples, &answers),
    };
    context.print(describe(&report), &report)?;
    Ok(ExitCode::SUCCESS)
}

/// What the models are asked.
struct Asked<'a> {
    task: Task,
    examples: &'a [Example],
    /// What was given, or for models that only continue text.
    template: Template,
    is_given: bool,
    /// The classes, in the order of their names.
    labels: Vec<String>,
    /// For `classify`, if it was given.
    form: Option<classify::Template>,
}

impl<'a> Asked<'a> {
    fn new(args: &Args, examples: &'a [Example]) -> Result<Self, Failure> {
        let given = args.template.as_deref();
        let text = given.unwrap_or(args.task.template()).replace("\\n", "\n");
        let (form, text) = match (args.task, given) {
            (Task::Classify, Some(_)) => (Some(classify::Template::parse(&text)?), None),
            _ => (None, Some(text)),
        };
        let mut labels: Vec<String> = match args.task {
            Task::Classify => {
                examples.iter().map(|example| example.references[0].clone()).collect()
            }
            _ => Vec::new(),
        };
        labels.sort_unstable();
        labels.dedup();
        Ok(Self {
            task: args.task,
            examples,
            template: Template::new(text.as_deref().unwrap_or(Template::PLACE))?,
            is_given: given.is_some(),
            labels,
            form,
        })
    }

    /// The tokens of each example's prompt, with room for an answer.
    fn prompts(&self, subject: &Subject) -> Result<Vec<Vec<u32>>, Failure> {
        let (tokenizer, context) = (subject.tokenizer()?, subject.model.config().max_context());
        let knows_chat = subject.model.header().chat.is_some();
        let task = match self.task {
            Task::Translate if knows_chat && !self.is_given => {
                let template = subject.model.template("translate")?;
                Some(task::Task::for_model(&subject.model, &tokenizer, template)?)
            }
            _ => None,
        };
        let prompt = |(index, example): (usize, &Example)| {
            let tokens = match &task {
                Some(task) => task.prompt_tokens(&example.input, context)?,
                None => {
                    let options = EncodeOptions::default().at_the_beginning();
                    let prompt = self.template.prompt(&example.input);
                    tokenizer.encode_within(&prompt, options, context)?
                }
            };
            if tokens.len() >= context {
                let (example, tokens) = (index + 1, tokens.len());
                return Err(format!(
                    "the prompt of example {example} has {tokens} tokens, but the model has only \
                     {context} positions: shorten the example, or remove it"
                )
                .into());
            }
            Ok(tokens)
        };
        self.examples.iter().enumerate().map(prompt).collect()
    }

    fn classifier<'t>(
        &self,
        subject: &Subject,
        tokenizer: &'t Tokenizer<TokenizerBytes>,
    ) -> Result<Classifier<'t, TokenizerBytes>, Failure> {
        let template = match &self.form {
            Some(form) => form.clone(),
            None => classify::Template::for_model(&subject.model)?,
        };
        let options = ClassifierOptions { template, ..ClassifierOptions::default() };
        Ok(Classifier::for_model(&subject.model, tokenizer, &self.labels, &options)?)
    }
}

/// What answering takes.
struct Work<'a> {
    args: &'a Args,
    context: &'a Context,
    asked: &'a Asked<'a>,
    progress: Progress,
}

impl Work<'_> {
    fn of_model(&self, subject: &Subject) -> Result<Answers, Failure> {
        let tokenizer = subject.tokenizer()?;
        let name = subject.path.display().to_string();
        self.progress.turn_to(&name);
        let texts = if self.args.task == Task::Classify {
            self.classes(subject, &tokenizer)?
        } else {
            let prompts = self.asked.prompts(subject)?;
            let mut batch = self.batch(&subject.model, &prompts)?;
            let (table, most) = (tokenizer.table(), self.args.max_tokens.into());
            let advance = |done| self.progress.advance(done);
            answer_by_model(&mut batch, table, &prompts, most, &advance)?
        };
        let bits_per_weight = Some(subject.summary().bits_per_weight);
        Ok(Answers { model: name, bits_per_weight, texts })
    }

    /// The class of each example by a model file.
    fn classes(
        &self,
        subject: &Subject,
        tokenizer: &Tokenizer<TokenizerBytes>,
    ) -> Result<Vec<String>, Failure> {
        let classifier = self.asked.classifier(subject, tokenizer)?;
        let mut options = SessionOptions { logits: LogitsFor::All, ..self.options()? };
        let mut session =
            threads::with_fewer(&mut options, |options| subject.model.session(options))?;
        let class = |example: &Example| {
            let found = classifier.classify(&mut session, &example.input)?;
            self.progress.advance(1);
            Ok(self.asked.labels[found.label].clone())
        };
        self.asked.examples.iter().map(class).collect()
    }

    /// The reference has the tokenizer and the chat form of the file that was made from it.
    fn of_reference(&self, checkpoint: &Checkpoint, file: &Subject) -> Result<Answers, Failure> {
        let tokenizer = file.tokenizer()?;
        let reference = eval::load_reference(checkpoint)?;
        self.progress.turn_to("float32");
        let (threads, advance) = (self.context.thread_count(), |done| self.progress.advance(done));
        let texts = if self.args.task == Task::Classify {
            let classifier = self.asked.classifier(file, &tokenizer)?;
            let session = file.model.session(&self.options()?)?;
            let prompt = |example: &Example| classifier.prompt(&session, &example.input);
            let prompts: Vec<_> =
                self.asked.examples.iter().map(prompt).collect::<Result<_, _>>()?;
            let labels = 0..self.asked.labels.len();
            let labels: Vec<_> =
                labels.map(|label| classifier.continuations().sequence(label)).collect();
            let chosen = choose_by_reference(&reference, &prompts, &labels, threads, &advance)?;
            chosen.into_iter().map(|label| self.asked.labels[label].clone()).collect()
        } else {
            let prompts = self.asked.prompts(file)?;
            let ends = file.model.config().eos_token_id.into_iter();
            let ends = ends.chain(file.model.header().end_tokens.iter().copied());
            let (table, ends) = (tokenizer.table(), ends.collect::<Vec<_>>());
            let limits = (self.args.max_tokens.into(), &ends[..]);
            answer_by_reference(&reference, table, &prompts, limits, threads, &advance)?
        };
        let model = checkpoint.path().display().to_string();
        Ok(Answers { model, bits_per_weight: None, texts })
    }

    fn options(&self) -> Result<SessionOptions, Failure> {
        Ok(SessionOptions {
            kv: self.args.kv.into(),
            threads: self.context.session_threads(),
            isa: cerebellum::isa_from_environment()?,
            ..SessionOptions::default()
        })
    }

    /// As many sequences as share a pass well, with room for the longest prompt and its answer.
    fn batch(
        &self,
        model: &Model,
        prompts: &[Vec<u32>],
    ) -> Result<cerebellum::batch::Batch, Failure> {
        const SEQUENCES: usize = 32;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let context =
            (longest + usize::from(self.args.max_tokens)).min(model.config().max_context());
        let mut options = SessionOptions { context: Some(context), ..self.options()? };
        let sequences = SEQUENCES.min(prompts.len());
        let batch = threads::with_fewer(&mut options, |options| model.batch(options, sequences));
        Ok(batch?)
    }
}

/// Each model's score, and its difference from the first one's.
fn scores(task: Task, examples: &[Example], answers: &[Answers]) -> Vec<Score> {
    let right: Vec<_> = answers.iter().map(|one| exact(examples, &one.texts)).collect();
    let chrf: Vec<_> = match task {
        Task::Intents | Task::Classify => Vec::new(),
        Task::Translate => answers.iter().map(|one| Chrf::new(examples, &one.texts)).collect(),
    };
    let score = |(index, one): (usize, &Answers)| {
        let Percent { value, interval } = accuracy(&right[index]);
        let against = (index > 0).then(|| {
            let difference = accuracy_difference(&right[index], &right[0]);
            let chrf = chrf.get(index).map(|chrf_of| chrf_of.difference(&chrf[0]));
            let same = one.texts.iter().zip(&answers[0].texts).filter(|(a, b)| a == b).count();
            Difference {
                accuracy_difference: difference.value,
                accuracy_difference_interval: difference.interval,
                same_answers: 100.0 * same as f64 / examples.len() as f64,
                chrf_difference: chrf.map(|chrf| chrf.value),
                chrf_difference_interval: chrf.and_then(|chrf| chrf.interval),
            }
        });
        let chrf = chrf.get(index).map(Chrf::score);
        Score {
            model: one.model.clone(),
            bits_per_weight: one.bits_per_weight,
            accuracy: value,
            accuracy_interval: interval,
            against,
            chrf: chrf.map(|chrf| ChrfScore { chrf: chrf.value, chrf_interval: chrf.interval }),
        }
    };
    answers.iter().enumerate().map(score).collect()
}

fn describe(report: &Report) -> String {
    let with_chrf = report.results.iter().any(|score| score.chrf.is_some());
    let mut head = vec!["model", "exactly right", "difference", "same answers"];
    if with_chrf {
        head.extend(["chrF", "difference"]);
    }
    let mut table = Table::new(&head);
    let percent = |value: f64| format!("{value:.2} %");
    let points = |value: f64| format!("{value:+.2}");
    for score in &report.results {
        let against = score.against.as_ref();
        let mut row = vec![
            score.model.clone(),
            with_interval(score.accuracy, score.accuracy_interval, percent),
            against.map_or(String::new(), |d| {
                with_interval(d.accuracy_difference, d.accuracy_difference_interval, points)
            }),
            against.map_or(String::new(), |d| percent(d.same_answers)),
        ];
        if let Some(chrf) = &score.chrf {
            row.push(with_interval(chrf.chrf, chrf.chrf_interval, |value| format!("{value:.2}")));
            row.push(
                against
                    .and_then(|d| Some((d.chrf_difference?, d.chrf_difference_interval)))
                    .map_or(String::new(), |(value, interval)| {
                        with_interval(value, interval, points)
                    }),
            );
        }
        table.push(row);
    }
    format!(
        "{table}{} examples, {:.1} seconds. In brackets: 95 % confidence intervals.",
        report.examples, report.seconds
    )
}

fn with_interval(value: f64, ends: Option<[f64; 2]>, show: impl Fn(f64) -> String) -> String {
    let interval =
        ends.map_or(String::new(), |[low, high]| format!(" ({} to {})", show(low), show(high)));
    format!("{}{interval}", show(value))
}
