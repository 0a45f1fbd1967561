//! A model: the bytes of a file, and where in them the forward pass finds its weights.

use alloc::borrow::ToOwned;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

#[cfg(feature = "text")]
use alloc::string::String;

use crate::error::{Error, Result};
#[cfg(feature = "text")]
use crate::format::ChatFormat;
use crate::format::{
    self, Config, Fault, FileLayout, Header, ModelBytes, WeightsCopy, read_header,
};
use crate::kernels::{Kernels, LayerNorm, RmsNorm, Weights};
use crate::memory::{self, Arena, Frozen, HostMemory, Planner, try_vec};
use crate::page_lock::PageLock;
use crate::program::{MatrixAt, NormAt, Program};
use crate::sync::OnceLock;
use crate::tell::Tell;
use crate::text::Tokenizer;

/// An opened model: immutable, cheap to clone, shareable between threads and sessions.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    /// Dropped before the bytes.
    lock: OnceLock<PageLock>,
    bytes: ModelBytes,
    header: Header,
    /// What the header says of conversations, or what is wrong with that.
    #[cfg(feature = "text")]
    chat: Option<Result<Arc<ChatFormat>, String>>,
    layout: FileLayout,
    program: Program,
    /// Some of the bytes in faster memory, and where they begin in the file.
    copied: OnceLock<(usize, Frozen)>,
}

/// The tokenizer's tables (`docs/tokenizer-format.md`): in place in the model's bytes, unless these are
/// a mapped file. Text is made and read between evaluations, where nobody looks whether the file was
/// changed; so of a mapped file they are a copy, about 1 MB for 50 000 tokens.
pub struct TokenizerBytes(Tables);

enum Tables {
    InPlace { model: Model, range: Range<usize> },
    Copied(Vec<u8>),
}

impl AsRef<[u8]> for TokenizerBytes {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Tables::InPlace { model, range } => &model.0.bytes.checked()[range.clone()],
            Tables::Copied(tables) => tables,
        }
    }
}

/// A norm over its numbers.
pub(crate) enum Norm<'a> {
    Layer(LayerNorm<'a>),
    Rms(RmsNorm<'a>),
}

impl Norm<'_> {
    /// `x` -> its norm `[width]`.
    pub fn apply(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        match self {
            Self::Layer(norm) => kernels.layer_norm(x, norm, out),
            Self::Rms(norm) => kernels.rms_norm(x, norm, out),
        }
    }
}

impl Model {
    /// Opens a model over bytes that someone else keeps; they must begin on a 64-byte boundary.
    pub fn borrow(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        Self::from_bytes(ModelBytes::borrow(bytes)?)
    }

    pub(crate) fn from_bytes(bytes: ModelBytes) -> Result<Self> {
        let (header, layout) = read_header(bytes.get()?)?;
        let program = Program::compile(&header.config, &layout);
        Ok(Self(Arc::new(Inner {
            lock: OnceLock::new(),
            bytes,
            // Read once: the parser ends the process if it gets no memory.
            #[cfg(feature = "text")]
            chat: header.chat.as_ref().map(|chat| ChatFormat::parse(chat.text()).map(Arc::new)),
            header,
            layout,
            program,
            copied: OnceLock::new(),
        })))
    }

    /// Shape and switches.
    pub fn config(&self) -> &Config {
        &self.0.header.config
    }

    /// All that the file's header states.
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// How the file says that the model is put conversations; `None` if it does not say.
    ///
    /// # Errors
    /// [`Error::Chat`] if it makes no sense.
    #[cfg(feature = "text")]
    pub(crate) fn chat_format(&self) -> Result<Option<Arc<ChatFormat>>> {
        match &self.0.chat {
            None => Ok(None),
            Some(Ok(format)) => Ok(Some(Arc::clone(format))),
            Some(Err(detail)) => Err(Error::Chat(memory::copy(detail)?)),
        }
    }

    /// Every tensor's place.
    pub fn layout(&self) -> &FileLayout {
        &self.0.layout
    }

    /// Length of the file in bytes.
    pub fn file_bytes(&self) -> usize {
        self.0.bytes.len()
    }

    /// The tokenizer in the file, its tables validated. It needs the file no more if that is mapped.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] if there is none; [`Error::Text`] if its tables are damaged;
    /// [`Error::FileChanged`]; [`Error::OutOfMemory`].
    pub fn tokenizer(&self) -> Result<Tokenizer<TokenizerBytes>> {
        let tensor = self.0.layout.get(format::TOKENIZER).ok_or(Error::NoTokenizer)?;
        let range = tensor.range.clone();
        let in_place = &self.0.bytes.get()?[range.clone()];
        // What holds the tables, and perhaps the tables.
        memory::probe(4096 + if self.is_mapped() { in_place.len() } else { 0 })?;
        let tables = if self.is_mapped() {
            let mut copy = try_vec(in_place.len())?;
            copy.extend_from_slice(in_place);
            Tables::Copied(copy)
        } else {
            Tables::InPlace { model: self.clone(), range }
        };
        Ok(Tokenizer::parse(TokenizerBytes(tables))?)
    }

    /// Reads the whole file and checks every tensor's checksum; returns those that are damaged.
    ///
    /// # Errors
    /// [`Error::FileChanged`].
    pub fn verify(&self) -> Result<Vec<Fault>> {
        self.verify_telling(&mut |_, _| Ok(()))
    }

    /// As [`verify`](Self::verify), telling how many bytes were checked.
    pub(crate) fn verify_telling(&self, tell: &mut Tell) -> Result<Vec<Fault>> {
        format::verify_telling(self.0.bytes.get()?, &self.0.layout, &mut |done, total| {
            self.0.bytes.check_unchanged()?;
            tell(done, total)
        })
    }

    /// Brings the model's pages into memory and keeps them there as long as the model lives, so that no
    /// evaluation waits for the disk. Takes the time to read what is not there yet.
    ///
    /// # Errors
    /// [`Error::PageLock`] if the system refuses, and the model can be used as before;
    /// [`Error::FileChanged`].
    pub fn lock_memory(&self) -> Result<()> {
        if self.0.lock.get().is_none()
            && let Err(second) = self.0.lock.set(self.0.bytes.lock()?)
        {
            // Somebody else was faster; dropped, it would take the pages back from both.
            let _kept = core::mem::ManuallyDrop::new(second);
        }
        Ok(())
    }

    /// What [`copy_weights`](Self::copy_weights) would copy to so many bytes of memory, of which it uses whole lines of
    /// 64; none if no tensor fits.
    pub fn worth_copying(&self, bytes: usize) -> WeightsCopy {
        self.0.layout.worth_copying(self.config(), bytes - bytes % HostMemory::ALIGN)
    }

    /// Copies those weights to memory of the host's that save a token most bytes of the file: for files in slow
    /// memory. Sessions, those that there are, too, read them there from now on; results stay the same bits. Once
    /// for a model. Nothing is allocated but a few bytes that note whose memory it is.
    ///
    /// # Errors
    /// [`Error::Option`] if the memory does not begin on its boundary or has no room for any tensor, or the model has
    /// such a copy; [`Error::ArenaInUse`] if any of it belongs to a session or a model that is still there;
    /// [`Error::FileChanged`]; [`Error::OutOfMemory`].
    pub fn copy_weights(&self, memory: HostMemory) -> Result<WeightsCopy> {
        let fail = |detail: &str| Err(Error::Option { name: "arena", detail: detail.to_owned() });
        let copy = self.worth_copying(memory.len());
        if copy.range.is_empty() {
            return fail("no tensor fits in it");
        }
        let bytes = &self.0.bytes.get()?[copy.range.clone()];
        let mut plan = Planner::default();
        plan.reserve::<i8>(&[bytes.len()])?;
        let mut arena = Arena::place(&plan, memory)?;
        arena.bytes(0..bytes.len()).copy_from_slice(bytes);
        match self.0.copied.set((copy.range.start, arena.freeze(bytes.len()))) {
            Ok(()) => Ok(copy),
            Err(_) => fail("the model has a copy of weights already"),
        }
    }

    /// The most bytes of keys and values that a session takes where its options name no context: four times the
    /// file's size, and at least 64 MiB. A context that the options name may take more.
    pub fn memory_budget(&self) -> usize {
        self.file_bytes().saturating_mul(4).max(64 << 20)
    }

    /// Whether the weights lie in a mapped file and so cost no private memory.
    pub fn is_mapped(&self) -> bool {
        self.0.bytes.is_mapped()
    }

    /// Fails if the file is mapped and was changed. Comes before everything that reads weights.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.0.bytes.check_unchanged()
    }

    /// The table of the tensors' checksums.
    pub(crate) fn checksums(&self) -> Result<&[u8]> {
        let tensor = self.0.layout.get(format::CHECKSUMS).expect("every layout has checksums");
        Ok(&self.0.bytes.get()?[tensor.range.clone()])
    }

    /// Bytes of a tensor that a forward pass reads, whose beginning was [`check_unchanged`].
    ///
    /// [`check_unchanged`]: Self::check_unchanged
    #[inline(never)]
    fn tensor(&self, range: &Range<usize>) -> &[u8] {
        let copied = self.0.copied.get().and_then(|(first, copied)| {
            copied.bytes().get(range.start.checked_sub(*first)?..range.end - first)
        });
        copied.unwrap_or_else(|| &self.0.bytes.checked()[range.clone()])
    }

    pub(crate) fn program(&self) -> &Program {
        &self.0.program
    }

    pub(crate) fn weights(&self, matrix: &MatrixAt) -> Weights<'_> {
        Weights::new(matrix.tiles, matrix.scale, self.tensor(&matrix.range))
    }

    pub(crate) fn norm(&self, norm: &NormAt) -> Norm<'_> {
        let (weight, epsilon) = (self.vector(&norm.weight), self.config().norm.epsilon);
        match &norm.bias {
            Some(bias) => Norm::Layer(LayerNorm { weight, bias: self.vector(bias), epsilon }),
            None => Norm::Rms(RmsNorm { weight, epsilon }),
        }
    }

    pub(crate) fn vector(&self, range: &Range<usize>) -> &[f32] {
        cast(self.tensor(range))
    }

    /// Float16 bits of the embedding of `position`, `[n_embd]`; `None` unless positions are learned.
    pub(crate) fn position(&self, position: usize) -> Option<&[u16]> {
        let range = self.0.program.wpe.as_ref()?;
        let width = self.config().n_embd;
        Some(&cast(self.tensor(range))[position * width..][..width])
    }

    /// What the distance of a key is multiplied by in each head's scores `[H]`; `None` without ALiBi.
    pub(crate) fn slopes(&self) -> Option<&[f32]> {
        self.0.program.slopes.as_ref().map(|slopes| self.vector(slopes))
    }

    /// The inverse frequencies by which positions are rotated, of all bases one after the other.
    pub(crate) fn frequencies(&self) -> &[f64] {
        self.0.program.frequencies.as_ref().map_or(&[], |range| cast(self.tensor(range)))
    }
}

/// Number types that a file's bytes may be read as in place.
trait InPlace {}
impl InPlace for f32 {}
impl InPlace for f64 {}
impl InPlace for u16 {}

/// The bytes as numbers, in place.
///
/// Panics if they are not aligned; the format and [`ModelBytes`] see to that.
fn cast<T: InPlace>(bytes: &[u8]) -> &[T] {
    // SAFETY: `InPlace` types are plain numbers: any bytes are a value.
    let (before, numbers, after) = unsafe { bytes.align_to::<T>() };
    assert!(before.is_empty() && after.is_empty(), "tensor is not aligned");
    numbers
}
