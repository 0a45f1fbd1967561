//! Models
//!
//! A model is opened from a file, a file descriptor or memory. It never changes. Any number of
//! sessions and threads may share it. A session keeps alive what it needs of the model, so the model
//! may be freed first.
//!
//! The file of a mapped model may be removed, or replaced by renaming another file over it. If a
//! program writes to the file or truncates it, the functions that need the file return
//! CBL_MODEL_CHANGED from then on. Functions that do not list this status work from memory.
//!
//! Some functions take `message` and `message_size`: a buffer of `message_size` bytes, to which a
//! call that fails writes why. `message` may be NULL. 256 bytes are enough for most messages. The
//! text ends with a zero byte, is cut if it is too long, and is empty after a success.

use alloc::sync::Arc;
use core::ffi::{c_char, c_void};
use core::ptr;
use core::sync::atomic::AtomicBool;

use super::shared::{Shared, cbl_model};
use crate::error::Result;
use crate::ffi::arguments::{Out, slice};
use crate::ffi::boundary::{self, Report};
use crate::ffi::failure::Failure;
use crate::ffi::files;
use crate::ffi::handle::{self, Place};
use crate::ffi::host::{Log, cbl_log_level, log};
use crate::ffi::options::{self, cbl_options};
use crate::ffi::status::cbl_status;
use crate::memory::try_vec;
use crate::model::Model;
use crate::open_options::OpenOptions;
use crate::sync::OnceLock;

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
    // For C, a zero byte would end the digest too early. No writer makes one.
    let mut ended = try_vec(digest.len() + 1)?;
    ended.extend(digest.bytes().filter(|&byte| byte != 0));
    ended.push(0);
    let shared = Shared {
        model,
        tokenizer: OnceLock::new(),
        #[cfg(feature = "constraints")]
        vocabulary: Default::default(),
        digest: ended,
        log: to,
    };
    Place::new(cbl_model { poisoned: AtomicBool::new(false), shared: Arc::new(shared) })
}

/// Opens the model file at `path`. The path ends with a zero byte. On Unix it is any bytes,
/// elsewhere UTF-8. `options` may be NULL. `*model` is NULL if that fails.
///
/// By default the file is mapped, and only its header is read. CBL_OPTION_ACCESS and
/// CBL_OPTION_VERIFY can change that. If opening then takes long, cbl_options_set_progress() helps.
///
/// Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_IO, CBL_BAD_MODEL, CBL_NO_MEMORY, CBL_CANCELLED,
/// CBL_BUSY; CBL_MODEL_CHANGED if the file is changed during the call; CBL_UNSUPPORTED without an
/// operating system.
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
        open(options, model, Report::Buffer(message, message_size), &|how| files::open(how, path))
    }
}

/// Opens a model as cbl_model_open() does, from the file descriptor of a regular file. The
/// descriptor and its offset stay the caller's, who may close it after the call. On Unix only.
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
            files::open_descriptor(how, fd, None)
        })
    }
}

/// Opens a model as cbl_model_open_fd() does, from a part of the file: `length` bytes from byte
/// `offset` on. The descriptor's own offset does not matter. This is for a model inside a package,
/// such as a part of a file that AAsset_openFileDescriptor64() gives on Android.
///
/// To be mapped, the part must be stored uncompressed and begin at a multiple of 64 bytes. zipalign
/// and most packagers see to that. If the part does not begin there, the call returns
/// CBL_BAD_ARGUMENT, and CBL_ACCESS_READ can open it. A mapped model counts as changed if any part
/// of the file was changed.
///
/// Thread-safe. Errors: those of cbl_model_open_fd(); CBL_BAD_ARGUMENT also if the file has no such
/// part.
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
            files::open_descriptor(how, fd, Some(offset..offset.saturating_add(length)))
        })
    }
}

/// Opens a model as cbl_model_open() does, from the `size` bytes at `data`, such as flash memory or
/// a buffer. `data` begins on a 64-byte boundary. The bytes are not copied. They must stay valid
/// and unchanged until the model and all its sessions and batches are freed.
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

/// Frees a model; NULL is allowed. Its sessions stay usable, and keep what they need of it.
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
