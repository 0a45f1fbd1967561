//! Opening a model: from where, how thoroughly, and who is told of it.

use core::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::format::{Access, ModelBytes};
use crate::model::Model;

/// How a model is opened. [`Model::open`] is enough for most.
///
/// ```no_run
/// use cerebellum::{Access, OpenOptions};
/// use std::ops::ControlFlow;
///
/// # fn main() -> cerebellum::Result<()> {
/// let mut tell = |progress: cerebellum::OpenProgress| {
///     println!("{:?}: {} of {} bytes", progress.stage, progress.done, progress.total);
///     ControlFlow::Continue(())
/// };
/// let model = OpenOptions::new().access(Access::Read).on_progress(&mut tell).open("111m.cbl")?;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct OpenOptions<'a> {
    pub(crate) access: Access,
    verify: bool,
    progress: Option<&'a mut OnProgress<'a>>,
}

/// Is told how far a model is opened. Breaking gives up, with [`Error::OpenCancelled`].
pub type OnProgress<'a> = dyn FnMut(OpenProgress) -> ControlFlow<()> + 'a;

/// How far a model is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// What is done now.
    pub stage: OpenStage,
    /// Bytes of the file that it was done with.
    pub done: u64,
    /// Bytes of the file that it is to be done with.
    pub total: u64,
}

/// What takes time when a model is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenStage {
    /// The file is read into memory.
    Read,
    /// The checksums are computed.
    Verify,
}

impl<'a> OpenOptions<'a> {
    /// A file that is mapped, of which only the header is checked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the file is mapped or read.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Whether to read the whole file and check every checksum, as [`Model::verify`] does.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Calls `progress` at the beginning of each stage, every few mebibytes, and at its end. To map a file
    /// has no stage.
    pub fn on_progress(mut self, progress: &'a mut OnProgress<'a>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Opens a model over bytes that someone else keeps; they must begin on a 64-byte boundary.
    ///
    /// # Errors
    /// [`Error::Misaligned`], and those of [`open`](Self::open) that concern no file.
    pub fn borrow(self, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Model> {
        self.finish(ModelBytes::borrow(bytes)?)
    }

    pub(crate) fn finish(mut self, bytes: ModelBytes) -> Result<Model> {
        let model = Model::from_bytes(bytes)?;
        if self.verify {
            let faults = model.verify_telling(&mut self.teller(OpenStage::Verify))?;
            if let Some(fault) = faults.into_iter().next() {
                return Err(Error::Damaged { tensor: fault.tensor });
            }
        }
        Ok(model)
    }

    /// What is told of a stage, bytes done and in total.
    pub(crate) fn teller(
        &mut self,
        stage: OpenStage,
    ) -> impl FnMut(u64, u64) -> Result<()> + use<'_, 'a> {
        let progress = &mut self.progress;
        move |done, total| {
            let Some(progress) = progress else { return Ok(()) };
            match progress(OpenProgress { stage, done, total }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::OpenCancelled),
            }
        }
    }
}
