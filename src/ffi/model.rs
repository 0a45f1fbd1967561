//! Models
//!
//! A model is opened from a file, a descriptor or memory, never changes, and may be shared by any number
//! of sessions and threads. Sessions keep what they need of it alive, so it may be freed before them.
//!
//! The file of a model that is mapped may be removed, or replaced by renaming another one over it. If it is
//! written to or truncated instead, the functions that need the file return CBL_MODEL_CHANGED from then
//! on; those that do not list this status work from memory.
//!
//! Functions that fail write a message to a buffer of the caller's: `message_size` bytes at `message`,
//! which may be NULL. 256 bytes are plenty. The text ends with a zero byte, is cut if it is too long, and
//! is empty after a success.

use std::ffi::{CString, c_char, c_void};
use std::fs::File;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use super::arguments::{Growing, GrowingOut, Out, path, slice};
use super::boundary::{self, Failure, POISONED, Report, once, panic_if_armed};
use super::handle::{self, Handle, Place};
use super::host::{Log, cbl_log_level, log};
use super::options::{self, cbl_options};
use super::status::cbl_status;
use crate::error::{Error, Result};
use crate::format::{Architecture, TensorKind};
use crate::model::{Model, TokenizerBytes};
use crate::open_options::OpenOptions;
use crate::session_options::MemoryPlan;
use crate::text::Tokenizer;

/// A model that is open.
pub struct cbl_model {
    poisoned: AtomicBool,
    pub(super) shared: Arc<Shared>,
}

impl Handle for cbl_model {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-modl");
}

/// What a model's handle and its sessions have in common.
pub(super) struct Shared {
    pub model: Model,
    /// Opened when text is first asked for.
    tokenizer: OnceLock<Arc<Tokenizer<TokenizerBytes>>>,
    #[cfg(feature = "constraints")]
    pub vocabulary: super::constraint::Vocabulary,
    /// For C, which wants a zero at the end.
    digest: CString,
    pub log: Option<Log>,
}

impl Shared {
    /// The tokenizer, for one call. A model file that was changed gives an error whether or not the
    /// tokenizer was opened before, as it does for evaluations.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer<TokenizerBytes>>> {
        self.model.check_unchanged()?;
        if self.tokenizer.get().is_none() {
            // If two threads come here at once, one result is dropped.
            let _ = self.tokenizer.set(Arc::new(self.model.tokenizer()?));
        }
        self.tokenizer.get().ok_or(Error::NoTokenizer)
    }
}

/// Runs a function on a model.
///
/// # Safety
/// As [`handle::get`]; `report` as its kind asks.
pub(super) unsafe fn with(
    model: *const cbl_model,
    report: Report<'_>,
    body: impl FnOnce(&Shared) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with_shared(model, report, |shared| body(shared)) }
}

/// As [`with`], for a body that keeps its share.
///
/// # Safety
/// As [`with`].
pub(super) unsafe fn with_shared(
    model: *const cbl_model,
    report: Report<'_>,
    body: impl FnOnce(&Arc<Shared>) -> Result<(), Failure>,
) -> cbl_status {
    let mut body = Some(body);
    // SAFETY: the caller's contract.
    unsafe { with_dyn(model, report, &mut |shared| once(&mut body)(shared)) }
}

/// # Safety
/// As [`with`].
unsafe fn with_dyn(
    model: *const cbl_model,
    report: Report<'_>,
    body: &mut dyn FnMut(&Arc<Shared>) -> Result<(), Failure>,
) -> cbl_status {
    boundary::status_of_locked(report, || {
        // SAFETY: the caller's contract.
        let model = unsafe { handle::get(model) }?;
        if model.poisoned.load(Relaxed) {
            return Err(POISONED);
        }
        let _poison = PoisonOnPanic(&model.poisoned);
        panic_if_armed();
        body(&model.shared)
    })
}

struct PoisonOnPanic<'a>(&'a AtomicBool);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Relaxed);
        }
    }
}

/// What there is to know about a model. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_model_info {
    /// Name of the family of networks, "gpt2" or "btlm". Static.
    pub architecture: *const c_char,
    /// Hash of the checkpoint the model was made from, after the algorithm's name and a colon; "" if
    /// the file does not say. Valid as long as the model.
    pub digest: *const c_char,
    /// Length of the model file in bytes.
    pub file_bytes: u64,
    /// Number of weights.
    pub parameters: u64,
    /// Bits per weight of the matrices, scales included.
    pub bits_per_weight: f64,
    /// Number of tokens: ids are below it, and so many logits come out.
    pub vocabulary: u32,
    /// Positions that the model was trained on: the default, and mostly the limit, of a session's.
    pub context: u32,
    /// Width of the embeddings.
    pub embedding: u32,
    /// Number of layers.
    pub layers: u32,
    /// Number of attention heads per layer.
    pub heads: u32,
    /// The token that ends a text, or -1.
    pub end_of_text: i32,
    /// Whether the file holds a tokenizer.
    pub has_tokenizer: bool,
    /// Whether the weights lie in a mapped file and so take no private memory.
    pub is_mapped: bool,
}

// SAFETY: `repr(C)`, and zeros are null pointers, numbers and `false`.
unsafe impl Growing for cbl_model_info {
    const FIRST_SIZE: usize = size_of::<cbl_model_info>();
}

const _: () = assert!(size_of::<usize>() != 8 || size_of::<cbl_model_info>() == 72);

/// The memory that a session will take. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_memory_plan {
    /// Length of the model file: mapped, shared with other processes and evictable, unless it is read.
    /// Not part of the total.
    pub weights_bytes: u64,
    /// The cache of keys and values.
    pub cache_bytes: u64,
    /// Activations, logits, the sampler's buffers, each thread's buffers.
    pub scratch_bytes: u64,
    /// What the session allocates, or takes from the arena: the sum of the two above.
    pub total_bytes: u64,
}

// SAFETY: `repr(C)`, and all numbers.
unsafe impl Growing for cbl_memory_plan {
    const FIRST_SIZE: usize = size_of::<cbl_memory_plan>();
}

/// Opens a model by the caller's options and gives it to `*out`, which is NULL on failure.
///
/// # Safety
/// As [`options::with`], [`Out::new`] and [`Report::Buffer`].
unsafe fn open(
    options: *const cbl_options,
    out: *mut *mut cbl_model,
    report: Report<'_>,
    from: &dyn Fn(OpenOptions) -> Result<Model, Failure>,
) -> cbl_status {
    boundary::status(report, || {
        // SAFETY: the caller's contract.
        let out = unsafe { Out::new(out, ptr::null_mut()) }?;
        // SAFETY: the caller's contract.
        unsafe {
            options::with(options, |options| {
                let how = OpenOptions::new().access(options.access).verify(options.verify);
                let model = match options.progress {
                    Some(progress) => from(how.on_progress(&mut |it| progress.tell(it))),
                    None => from(how),
                }?;
                out.set(new_handle(model, options.log)?.give());
                Ok(())
            })
        }
    })
}

fn check_all(model: &Model) -> Result<(), Failure> {
    match model.verify()?.into_iter().next() {
        None => Ok(()),
        Some(fault) => Err(Error::Damaged { tensor: fault.tensor }.into()),
    }
}

fn new_handle(model: Model, to: Option<Log>) -> Result<Place<cbl_model>> {
    let config = model.config();
    log(
        to,
        cbl_log_level::CBL_LOG_INFO,
        format_args!(
            "model opened: {} layers, width {}, {} tokens, {} bytes {}",
            config.n_layer,
            config.n_embd,
            config.vocab_size,
            model.file_bytes(),
            if model.is_mapped() { "mapped" } else { "in memory" },
        ),
    );
    let digest = model.header().source.as_ref().map_or("", |source| source.digest.as_str());
    // A zero byte inside would cut it for C; no writer makes one.
    let digest = CString::new(digest.replace('\0', "")).unwrap_or_default();
    let shared = Shared {
        model,
        tokenizer: OnceLock::new(),
        #[cfg(feature = "constraints")]
        vocabulary: Default::default(),
        digest,
        log: to,
    };
    Place::new(cbl_model { poisoned: AtomicBool::new(false), shared: Arc::new(shared) })
}

/// Opens the model file at `path`, which ends with a zero byte (any bytes on Unix, UTF-8 elsewhere).
/// `options` may be NULL. `*model` is NULL if that fails.
///
/// By default the file is mapped and only its header is read: see CBL_OPTION_ACCESS, CBL_OPTION_VERIFY and,
/// if they take long, cbl_options_set_progress().
///
/// Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_IO, CBL_BAD_MODEL, CBL_NO_MEMORY, CBL_CANCELLED, CBL_BUSY;
/// CBL_MODEL_CHANGED if the file is changed meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_open(
    path: *const c_char,
    options: *const cbl_options,
    model: *mut *mut cbl_model,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        open(options, model, Report::Buffer(message, message_size), &|how| {
            Ok(how.open(self::path(path)?)?)
        })
    }
}

/// As cbl_model_open(), from a file descriptor of a regular file. The descriptor stays the caller's, with
/// its offset, and may be closed afterwards. On Unix only.
///
/// Thread-safe. Errors: those of cbl_model_open(), CBL_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_open_fd(
    fd: i32,
    options: *const cbl_options,
    model: *mut *mut cbl_model,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        open(options, model, Report::Buffer(message, message_size), &|how| {
            Ok(how.open_file(duplicate(fd)?, Path::new(FD_NAME))?)
        })
    }
}

/// As cbl_model_open_fd(), from a part of the file: `length` bytes from `offset` on, wherever the
/// descriptor's own offset is. For a model inside of a package, such as what AAsset_openFileDescriptor64()
/// tells of on Android.
///
/// To be mapped, the part must be stored uncompressed and begin at a multiple of 64 bytes, which zipalign
/// and most packagers see to; otherwise CBL_BAD_ARGUMENT says so, and CBL_ACCESS_READ takes it. A model
/// that is mapped counts as changed when any part of the file was.
///
/// Thread-safe. Errors: those of cbl_model_open_fd(); CBL_BAD_ARGUMENT also if the file has no such part.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_open_fd_range(
    fd: i32,
    offset: u64,
    length: u64,
    options: *const cbl_options,
    model: *mut *mut cbl_model,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        open(options, model, Report::Buffer(message, message_size), &|how| {
            let range = offset..offset.saturating_add(length);
            Ok(how.open_range(duplicate(fd)?, Path::new(FD_NAME), range)?)
        })
    }
}

/// What messages call a file without a path.
const FD_NAME: &str = "the file descriptor's file";

#[cfg(unix)]
fn duplicate(fd: i32) -> Result<File, Failure> {
    use std::os::fd::BorrowedFd;
    if fd < 0 {
        let detail = "a file descriptor is negative";
        return Err(Failure::Misuse(cbl_status::CBL_BAD_ARGUMENT, detail));
    }
    // SAFETY: not -1; it is used for nothing but to be duplicated, which fails unless it is open.
    let duplicate = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned();
    let fail = |source| Error::Io { action: "duplicate", path: FD_NAME.into(), source };
    Ok(duplicate.map_err(fail)?.into())
}

#[cfg(not(unix))]
fn duplicate(_: i32) -> Result<File, Failure> {
    let detail = "file descriptors are for Unix only";
    Err(Failure::Misuse(cbl_status::CBL_UNSUPPORTED, detail))
}

/// As cbl_model_open(), from the `size` bytes at `data`: flash, an asset, a buffer. They begin on a
/// 64-byte boundary, are not copied, and stay valid and unchanged until the model and all its sessions
/// are freed.
///
/// Thread-safe. Errors: those of cbl_model_open().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_open_memory(
    data: *const c_void,
    size: usize,
    options: *const cbl_options,
    model: *mut *mut cbl_model,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        open(options, model, Report::Buffer(message, message_size), &|how| {
            Ok(how.borrow(slice::<'static, u8>(data.cast(), size)?)?)
        })
    }
}

/// Frees a model. NULL is fine. Its sessions live on, and with them what they need of it.
///
/// No other call may be using the handle. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_free(model: *mut cbl_model) -> cbl_status {
    if model.is_null() {
        return cbl_status::CBL_OK;
    }
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        unsafe {
            handle::get::<cbl_model>(model)?;
            handle::free(model);
        }
        Ok(())
    })
}

/// Tells about a model. `size` is `sizeof *info`.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_get_info(
    model: *const cbl_model,
    info: *mut cbl_model_info,
    size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = GrowingOut::new(info, size);
        with(model, Report::Nothing, |shared| {
            out?.set(&describe(shared));
            Ok(())
        })
    }
}

fn describe(shared: &Shared) -> cbl_model_info {
    let model = &shared.model;
    let config = model.config();
    let (mut parameters, mut weights, mut weight_bytes) = (0, 0, 0);
    for tensor in model.layout().tensors() {
        match &tensor.kind {
            TensorKind::Matrix(matrix) => {
                weights += matrix.tiles.rows() * matrix.tiles.cols();
                weight_bytes += tensor.range.len();
            }
            TensorKind::Vector | TensorKind::Positions => {
                parameters += tensor.shape.iter().product::<usize>();
            }
            TensorKind::Tokenizer | TensorKind::Checksums => {}
        }
    }
    // The format keeps all of these below 2^24.
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    cbl_model_info {
        architecture: match config.architecture {
            Architecture::Gpt2 => c"gpt2".as_ptr(),
            Architecture::Btlm => c"btlm".as_ptr(),
        },
        digest: shared.digest.as_ptr(),
        file_bytes: model.file_bytes() as u64,
        parameters: (parameters + weights) as u64,
        bits_per_weight: weight_bytes as f64 * 8.0 / weights as f64,
        vocabulary: small(config.vocab_size),
        context: small(config.n_positions),
        embedding: small(config.n_embd),
        layers: small(config.n_layer),
        heads: small(config.n_head),
        end_of_text: config.eos_token_id.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1),
        has_tokenizer: model.layout().get(crate::format::TOKENIZER).is_some(),
        is_mapped: model.is_mapped(),
    }
}

/// Tells what memory a session with these options will take, to the byte, before anything is allocated.
/// `options` may be NULL; `size` is `sizeof *plan`.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_MEMORY if it is more
/// than an address can reach, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_plan(
    model: *const cbl_model,
    options: *const cbl_options,
    plan: *mut cbl_memory_plan,
    size: usize,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = GrowingOut::new(plan, size);
        with(model, Report::Buffer(message, message_size), |shared| {
            let out = out?;
            let planned = options::with(options, |options| {
                let mut session = options.session.clone();
                session.threads = options.pool.map_or(session.threads, |pool| pool.workers);
                Ok(shared.model.plan(&session)?)
            })?;
            out.set(&planned.into());
            Ok(())
        })
    }
}

impl From<MemoryPlan> for cbl_memory_plan {
    fn from(plan: MemoryPlan) -> Self {
        Self {
            weights_bytes: plan.weights_bytes as u64,
            cache_bytes: plan.kv_bytes as u64,
            scratch_bytes: plan.scratch_bytes as u64,
            total_bytes: plan.total_private_bytes as u64,
        }
    }
}

/// Reads the whole model and checks every checksum. They find accidents, not forgeries.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_MODEL with the name of a damaged tensor,
/// CBL_MODEL_CHANGED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_verify(
    model: *const cbl_model,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with(model, Report::Buffer(message, message_size), |shared| check_all(&shared.model)) }
}

/// Brings the model's pages into memory and keeps them there as long as the model and its sessions live,
/// so that no evaluation waits for the disk. Takes the time to read what is not there yet. Evaluations may
/// go on meanwhile. If the system refuses, the message names the bytes and the limit (RLIMIT_MEMLOCK), and
/// the model can be used as before.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_MODEL_CHANGED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_lock_memory(
    model: *const cbl_model,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with(model, Report::Buffer(message, message_size), |shared| {
            Ok(shared.model.lock_memory()?)
        })
    }
}
