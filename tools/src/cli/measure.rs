//! Measuring model files on a text: what `eval` and the report of `quantize` share.

use std::path::{Path, PathBuf};
use std::time::Instant;

use cerebellum::kernels::Isa;
use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum::{Access, KvType, LogitsFor, Model, SessionOptions, TokenizerBytes};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::eval::{self, Histogram, Metrics, Predictor, StoredWeights, Windows};
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::Observer;
use cerebellum_tools::reference::Reference;
use cerebellum_tools::report::{Measured, Step, Text};
use cerebellum_tools::summary::Summary;

use super::context::{Context, Failure};
use super::progress::Progress;
use super::session::open;
use super::text_file;

/// A model file to be measured.
pub struct Subject {
    pub path: PathBuf,
    pub model: Model,
}

impl Subject {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: path.to_owned(), model: open(path, Access::Map)? })
    }

    /// What is in the file.
    pub fn summary(&self) -> Summary {
        let model = &self.model;
        Summary::new(model.header(), model.layout(), model.file_bytes() as u64)
    }

    /// The text's tokens by the file's own tokenizer.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        encode(&self.tokenizer()?, text)
    }

    /// The file's tokenizer; errors name the file.
    pub fn tokenizer(&self) -> Result<Tokenizer<TokenizerBytes>, Failure> {
        let tokenizer = self.model.tokenizer();
        Ok(tokenizer.map_err(|e| format!("{}: {e}", self.path.display()))?)
    }

    /// For the report's page.
    pub fn measured(
        &self,
        kv: KvType,
        measurement: Option<Measurement>,
    ) -> Result<Measured, Failure> {
        let (mut metrics, mut divergence, mut ablation) = (None, None, Vec::new());
        if let Some(measurement) = measurement {
            (metrics, divergence) = (Some(measurement.metrics), measurement.divergence);
            ablation = measurement.ablation;
        }
        Ok(Measured {
            name: file_name(&self.path),
            digest: digest(&self.path)?,
            summary: self.summary(),
            kv: kv.name(),
            metrics,
            divergence,
            ablation,
        })
    }
}

/// What is measured, and how.
pub struct Plan<'a> {
    pub subjects: &'a [Subject],
    /// The type of the cache.
    pub kv: KvType,
    pub reference: Option<&'a Checkpoint>,
    /// Whether each step away from the reference is measured, too.
    pub ablation: bool,
    pub windows: &'a Windows,
}

/// What was measured of one model file.
#[derive(Clone)]
pub struct Measurement {
    pub metrics: Metrics,
    pub divergence: Option<Histogram>,
    pub ablation: Vec<(Step, Metrics)>,
}

/// All measurements, in the order of the subjects, and how long they took.
pub struct Measurements {
    pub of_subjects: Vec<Measurement>,
    pub seconds: f64,
    pub threads: usize,
    pub isa: &'static str,
}

impl Plan<'_> {
    /// The steps measured of each subject.
    fn steps(&self) -> &[Step] {
        match (self.ablation, self.kv) {
            (true, _) => &Step::ALL,
            (false, KvType::Int8) => &[Step::Cache],
            (false, _) => &[Step::Activations],
        }
    }

    /// The step that is the model as it is asked for.
    fn asked(&self) -> Step {
        if self.kv == KvType::Int8 { Step::Cache } else { Step::Activations }
    }

    /// Measures everything, with a progress bar.
    pub fn run(&self, context: &Context) -> Result<Measurements, Failure> {
        let isa = cerebellum::isa_from_environment()?;
        let threads = context.thread_count().min(self.windows.count());
        let stored = self.stored_weights()?;
        let workers = (0..threads).map(|_| self.predictors(&stored, isa));
        let workers: Vec<Vec<Predictor>> = workers.collect::<Result<_, _>>()?;
        let isa = isa_name(&workers);
        let reference = self.reference.map(eval::load_reference).transpose()?;
        let (progress, started) = (Progress::new(context), Instant::now());
        progress.begin(self.windows.count() as u64);
        progress.turn_to("windows");
        let advance = || progress.advance(1);
        let scores = eval::score(workers, reference.as_ref(), self.windows, &advance)?;
        let seconds = started.elapsed().as_secs_f64();
        let steps = self.steps();
        let of_subjects = scores.chunks_exact(steps.len()).map(|of_subject| {
            let metrics = |scores: &Vec<_>| Metrics::new(scores, self.windows.length());
            let all: Vec<_> = steps.iter().copied().zip(of_subject.iter().map(metrics)).collect();
            let asked =
                steps.iter().position(|&step| step == self.asked()).expect("always measured");
            Measurement {
                metrics: all[asked].1.clone(),
                divergence: Histogram::of_divergence(&of_subject[asked]),
                ablation: if self.ablation { all } else { Vec::new() },
            }
        });
        Ok(Measurements { of_subjects: of_subjects.collect(), seconds, threads, isa })
    }

    /// Each subject's weights in float32, if they are to be run.
    fn stored_weights(&self) -> Result<Vec<Reference>, Failure> {
        if self.reference.is_none() || !self.ablation {
            return Ok(Vec::new());
        }
        let load =
            |subject: &Subject| Ok(eval::load_reference(&StoredWeights::open(&subject.path)?)?);
        self.subjects.iter().map(load).collect()
    }

    /// One thread's predictors: each subject at each step.
    fn predictors<'a>(
        &self,
        stored: &'a [Reference],
        isa: Option<Isa>,
    ) -> Result<Vec<Predictor<'a>>, Failure> {
        let mut predictors = Vec::new();
        for (index, subject) in self.subjects.iter().enumerate() {
            for step in self.steps() {
                let kv = match step {
                    Step::Weights => {
                        predictors.push(Predictor::Float(&stored[index]));
                        continue;
                    }
                    Step::Activations => KvType::F16,
                    Step::Cache => KvType::Int8,
                };
                let options = SessionOptions {
                    context: Some(self.windows.length()),
                    kv,
                    logits: LogitsFor::All,
                    isa,
                    ..SessionOptions::default()
                };
                predictors.push(Predictor::Session(Box::new(subject.model.session(&options)?)));
            }
        }
        Ok(predictors)
    }
}

fn isa_name(workers: &[Vec<Predictor>]) -> &'static str {
    let sessions = workers.iter().flatten().filter_map(|predictor| match predictor {
        Predictor::Session(session) => Some(session.isa().name()),
        Predictor::Float(_) => None,
    });
    { sessions }.next().expect("every subject runs in a session")
}

/// Refuses a checkpoint from which the subject cannot have been made; without `any_weights`, also one
/// that the subject's record does not name.
pub fn check_reference(
    checkpoint: &Checkpoint,
    subject: &Subject,
    any_weights: bool,
    context: &Context,
) -> Result<(), Failure> {
    if eval::is_source(checkpoint, &subject.model)? {
        return Ok(());
    }
    let problem = format!(
        "{} was not made from the weights in {}, as the record in the file says",
        subject.path.display(),
        checkpoint.path().display()
    );
    match any_weights {
        true => context.warn(problem),
        false => {
            return Err(format!(
                "{problem}: give the checkpoint from which it was quantized, or accept other weights with \
                 --any-weights"
            )
            .into());
        }
    }
    Ok(())
}

/// The text's tokens, special ones parsed, with what the model wants before a text.
pub fn encode<B: AsRef<[u8]>>(tokenizer: &Tokenizer<B>, text: &str) -> Result<Vec<u32>, Failure> {
    Ok(tokenizer.encode(text, EncodeOptions::PARSE_SPECIAL.at_the_beginning())?)
}

/// What a report says of the text.
pub fn describe_text(path: &Path, text: &str, windows: &Windows) -> Text {
    Text {
        name: file_name(Path::new(&text_file::Source::of(path).name())),
        digest: blake3::hash(text.as_bytes()).to_hex().to_string(),
        tokens: windows.text_tokens(),
    }
}

/// Writes a page where `output` is to be.
pub fn write_page(mut output: Output, page: &str) -> Result<(), Failure> {
    use std::io::Write;
    let written = output.file().write_all(page.as_bytes());
    written.map_err(|e| output.error("write", e))?;
    Ok(output.commit()?)
}

/// A path's last part: where a file lies is nobody's business.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn digest(path: &Path) -> Result<String, Failure> {
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(path);
    let hashed = file.and_then(|file| hasher.update_reader(file).map(drop));
    hashed.map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}
