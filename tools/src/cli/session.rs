//! The options of all commands that run a model file.

use std::path::{Path, PathBuf};

use cerebellum::{Access, Model, SessionOptions};

use super::context::{Context, Failure};
use super::kv::Kv;
use super::values::whole;

/// A model file and how to run it.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// The model file
    #[arg(short, long, value_name = "FILE", env = "CEREBELLUM_MODEL")]
    model: PathBuf,
    #[command(flatten)]
    session: SessionArgs,
    /// Read the file into memory instead of mapping it
    #[arg(long)]
    read: bool,
}

impl ModelArgs {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.model
    }

    /// Opens the file; errors name it.
    pub fn open(&self) -> Result<Model, Failure> {
        open(&self.model, if self.read { Access::Read } else { Access::Map })
    }

    /// Its path.
    pub fn file(&self) -> &Path {
        &self.model
    }

    /// The session's options.
    pub fn options(&self, context: &Context) -> Result<SessionOptions, Failure> {
        self.session.options(context)
    }
}

/// How to run a model.
#[derive(Debug, clap::Args)]
pub struct SessionArgs {
    /// Number of positions in the cache [default: all that the model has]
    #[arg(long, value_name = "N", value_parser = whole(1..=usize::MAX))]
    context: Option<usize>,
    /// Type of the cached keys and values
    #[arg(long, value_enum, default_value_t)]
    kv: Kv,
    /// Number of a prompt's tokens that are evaluated at once; affects speed and memory, never results
    #[arg(long, value_name = "N", default_value_t = SessionOptions::default().chunk, value_parser = whole(1..=usize::MAX))]
    chunk: usize,
    /// The most tokens, 0 to 15, to guess from the text so far and to evaluate together with each token;
    /// affects speed and memory, never results
    #[arg(long, value_name = "N", default_value_t = SessionOptions::default().draft, value_parser = whole(0..=15usize))]
    draft: usize,
}

impl SessionArgs {
    /// The session's options, with the threads of the context and the instruction set that
    /// CEREBELLUM_ISA forces.
    pub fn options(&self, context: &Context) -> Result<SessionOptions, Failure> {
        Ok(SessionOptions {
            context: self.context,
            kv: self.kv.into(),
            threads: context.session_threads(),
            chunk: self.chunk,
            draft: self.draft,
            isa: cerebellum::isa_from_environment()?,
            ..SessionOptions::default()
        })
    }
}

/// A model file as the commands take it that run nothing: by its place, or by `-m` as all others.
#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// The model file
    #[arg(required_unless_present = "model")]
    file: Option<PathBuf>,
    #[arg(short, long, value_name = "FILE", hide = true, conflicts_with = "file")]
    model: Option<PathBuf>,
}

impl FileArgs {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.file.as_deref().or(self.model.as_deref()).expect("one of them is required")
    }
}

/// Refuses a checkpoint where a model file is wanted, and says how to make one of it.
pub fn refuse_checkpoint(path: &Path) -> Result<(), Failure> {
    let on_hub = path.to_str().is_some_and(|it| it.starts_with("hf:")) && !path.exists();
    if !on_hub && !path.join("config.json").is_file() {
        return Ok(());
    }
    let path = path.display();
    let error = format!(
        "{path} is a checkpoint, no model file: `cerebellum quantize {path} -o FILE` makes one of it"
    );
    Err(error.into())
}

/// Opens a model file; errors name it.
pub fn open(path: &Path, access: Access) -> Result<Model, Failure> {
    use cerebellum::Error::Format;
    refuse_checkpoint(path)?;
    Model::open(path, access).map_err(|e| match e {
        Format(e) => format!("{}: {e}", path.display()).into(),
        // The others name the file themselves.
        e => e.into(),
    })
}
