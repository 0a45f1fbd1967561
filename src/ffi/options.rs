//! Options
//!
//! One set of options serves everything: opening a model, making sessions, generating. Where a function
//! takes options, NULL stands for the defaults, and options that do not concern it are ignored.
//!
//!     cbl_options *options;
//!     cbl_options_new(&options);
//!     cbl_options_set_int(options, CBL_OPTION_THREADS, 4);
//!     cbl_options_set_float(options, CBL_OPTION_TEMPERATURE, 0.8);
//!
//! A value is checked when it is set, as far as it can be without a model. A set of options may be
//! changed or freed as soon as the call that took it has returned.

use std::ffi::c_char;
use std::sync::{RwLock, RwLockReadGuard, TryLockError};

use super::arguments::{Out, text};
use super::boundary::{self, Failure, POISONED, Report, once, panic_if_armed};
use super::classify::{Settings, cbl_calibration, cbl_normalization};
use super::constraint;
use super::handle::{self, Handle, Place};
use super::host::{Arena, Log, OnProgress, Pool};
use super::last_failure::LastFailure;
use super::score::cbl_pooling;
use super::status::cbl_status;
use crate::draft::MAX_DRAFT;
use crate::error::{Error, Result};
use crate::generate::GenerateOptions;
use crate::kernels::Isa;
use crate::memory;
use crate::sampler::{SamplerOptions, check_bias};
use crate::session::Pooling;
use crate::session_options::{LogitsFor, SessionOptions};
use crate::threads::MAX_WORKERS;
use crate::{Access, KvType};

/// The keys of options. Numbers are never changed or reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_option {
    /// int. Opening: how a file is opened, a cbl_access. CBL_ACCESS_MAP by default.
    CBL_OPTION_ACCESS = 1,
    /// int, 0 or 1. Opening: read the whole file and check every checksum. 0 by default, when only the
    /// header is checked; no content of a file can do more harm than wrong text either way.
    CBL_OPTION_VERIFY = 2,
    /// int. Session: positions of the cache, at most the model's. 0, the default, means the model's, or fewer
    /// if the cache would take more than four times the file's size and more than 64 MiB.
    CBL_OPTION_CONTEXT = 3,
    /// int. Session: type of the cache, a cbl_cache. CBL_CACHE_F16 by default.
    CBL_OPTION_CACHE = 4,
    /// int, 1 to 64. Session: threads that share the work, the calling one among them. 1, the default,
    /// starts no thread.
    CBL_OPTION_THREADS = 5,
    /// int, from 1. Session: how many tokens of a prompt are evaluated at once. More is faster and
    /// takes more memory. 64 by default.
    CBL_OPTION_CHUNK = 6,
    /// int, 0 or 1. Session: compute the logits of every token, for cbl_session_evaluate_each(). 0 by
    /// default.
    CBL_OPTION_ALL_LOGITS = 7,
    /// string. Session: name of the instruction set to use, see cbl_isa_name(). The best one by default.
    CBL_OPTION_ISA = 8,
    /// int, from 0. Generation: the most tokens to generate. 128 by default.
    CBL_OPTION_MAX_TOKENS = 9,
    /// float, 0 to 100. Generation: 0, the default, takes the most probable token; 1 draws from the
    /// model's own distribution; less than 1 sharpens it.
    CBL_OPTION_TEMPERATURE = 10,
    /// int, from 0. Generation: draw from this number of most probable tokens only. 0, the default: all.
    CBL_OPTION_TOP_K = 11,
    /// float, over 0 to 1. Generation: draw from the most probable tokens that together have this
    /// probability. 1, the default: all.
    CBL_OPTION_TOP_P = 12,
    /// float, 0 to 1. Generation: draw from tokens at least so probable compared to the first only. 0,
    /// the default: all.
    CBL_OPTION_MIN_P = 13,
    /// float, 0.01 to 100. Generation: values over 1 make recent tokens less probable. 1 by default.
    CBL_OPTION_REPETITION_PENALTY = 14,
    /// int, from 0. Generation: how many of the last tokens, those of the prompt among them, count as
    /// recent. 0: all. 64 by default.
    CBL_OPTION_REPETITION_WINDOW = 15,
    /// int, all 64 bits count. Generation: the same seed draws the same tokens on every machine. 0 by
    /// default.
    CBL_OPTION_SEED = 16,
    /// int, 0 or 1. Generation: go on behind the end-of-text token. 0 by default.
    CBL_OPTION_IGNORE_END_OF_TEXT = 17,
    /// int, 0 or 1. Tokenizing: read special tokens such as <|endoftext|> that are written in the text
    /// as such. 0 by default, because text from outside must not speak with the program's voice.
    CBL_OPTION_PARSE_SPECIAL = 18,
    /// int, 0 to 15. Session: the most tokens that are guessed, from what followed the last ones before,
    /// and evaluated along with a single one. A right guess saves a pass over the weights; guesses are
    /// made where they pay, and change no result. Takes memory for so many rows of logits. 4 by default.
    CBL_OPTION_DRAFT = 19,
    /// int. Embedding: how tokens become one vector, a cbl_pooling. CBL_POOLING_MEAN by default.
    CBL_OPTION_POOLING = 20,
    /// string. Classification: where text and label stand in what the model reads, with `{text}` and
    /// `{label}` once each and in this order; what comes behind the label, up to a line's end, marks its
    /// end. "Utterance: {text}\nIntent: {label}\n" by default.
    CBL_OPTION_TEMPLATE = 21,
    /// int. Classification: how a label's length counts, a cbl_normalization. CBL_NORMALIZATION_SUM by
    /// default.
    CBL_OPTION_NORMALIZATION = 22,
    /// int. Classification: what is taken off a label's score, a cbl_calibration. CBL_CALIBRATION_NONE by
    /// default.
    CBL_OPTION_CALIBRATION = 23,
    /// string. Generation: the text is one of these choices, each on a line of its own, and may begin with
    /// a space. Empty, the default: any text.
    ///
    /// This option and the two that follow need a build with cbl_has_constraints(), and each takes the
    /// place of the others. What makes no sense is refused when it is set. Stop strings, the most tokens or
    /// a full context may still cut the text. The first such generation takes some tens of milliseconds to
    /// prepare the vocabulary; setting and preparing need a thread of their own for the time, else they give
    /// CBL_NO_THREADS. In a batch every text has this form.
    CBL_OPTION_CHOICES = 24,
    /// string. Generation: the text matches this regular expression from beginning to end, so that anchors
    /// are not needed: ^ at its beginning and $ at its end change nothing, and anywhere else they are refused,
    /// as are look-around and back-references. Empty, the default: any text.
    CBL_OPTION_REGEX = 25,
    /// string. Generation: the text is JSON that follows this JSON schema (draft 2020-12; what is not
    /// supported is an error), in one line, and may begin with a space. A number has at most 15 digits before
    /// the point, 15 after it and 2 in its exponent, unless the schema leaves no choice; bounds and values
    /// beyond 2^53 are refused. Empty, the default: any text.
    CBL_OPTION_JSON_SCHEMA = 26,
    /// int, from 0. Templates: the most tokens of each part's result, whatever the template asks for. 0, the
    /// default: what the template asks for; that of a model file is limited, see cbl_template_named().
    CBL_OPTION_TEMPLATE_TOKENS = 27,
}

/// Values of CBL_OPTION_ACCESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_access {
    /// Map the file: opens in milliseconds, and its pages are shared and can be evicted. Replace the
    /// file only by renaming another one over it. If it was changed in place, calls that need it give
    /// CBL_MODEL_CHANGED; but truncating it in the middle of a call raises SIGBUS.
    CBL_ACCESS_MAP = 0,
    /// Read the file into memory: nothing that happens to it matters any more.
    CBL_ACCESS_READ = 1,
}

/// Values of CBL_OPTION_CACHE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_cache {
    /// Keys and values as float16.
    CBL_CACHE_F16 = 0,
    /// Keys and values as int8, about half the memory.
    CBL_CACHE_INT8 = 1,
}

/// A set of options.
pub struct cbl_options {
    failure: LastFailure,
    options: RwLock<Options>,
}

const IN_USE: Failure = Failure::Busy(
    c"the options are in use, by another thread or by the call whose callback this is; \
      call again when that has returned",
);

impl Handle for cbl_options {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-opts");
}

/// What the options say.
#[derive(Default)]
pub(super) struct Options {
    pub access: Access,
    pub verify: bool,
    pub session: SessionOptions,
    pub generate: GenerateOptions,
    pub parse_special: bool,
    /// The most tokens of a template's result, if there is a limit.
    pub template_tokens: Option<usize>,
    pub pooling: Pooling,
    pub classification: Settings,
    pub constraint: constraint::Setting,
    pub log: Option<Log>,
    pub progress: Option<OnProgress>,
    pub pool: Option<Pool>,
    pub arena: Option<Arena>,
}

impl Options {
    /// How to choose a single token.
    pub fn choice(&self) -> Result<&SamplerOptions> {
        match self.constraint.name() {
            None => Ok(&self.generate.sampler),
            Some(name) => {
                let detail =
                    "concerns a whole text: generate one, or leave it out to choose a token";
                Err(Error::Option { name, detail: detail.to_owned() })
            }
        }
    }

    fn set_int(&mut self, key: i32, value: i64) -> Result<(), Failure> {
        use cbl_option as key_;
        let name = name_of(key, Kind::Int)?;
        let (session, generate) = (&mut self.session, &mut self.generate);
        match key {
            k if k == key_::CBL_OPTION_ACCESS as i32 => {
                let values = [
                    (cbl_access::CBL_ACCESS_MAP as i64, Access::Map),
                    (cbl_access::CBL_ACCESS_READ as i64, Access::Read),
                ];
                self.access = choose(name, value, values)?;
            }
            k if k == key_::CBL_OPTION_VERIFY as i32 => self.verify = switch(name, value)?,
            k if k == key_::CBL_OPTION_CONTEXT as i32 => {
                session.context = Some(size(name, value, 0, usize::MAX)?).filter(|&n| n > 0);
            }
            k if k == key_::CBL_OPTION_CACHE as i32 => {
                let values = [
                    (cbl_cache::CBL_CACHE_F16 as i64, KvType::F16),
                    (cbl_cache::CBL_CACHE_INT8 as i64, KvType::Int8),
                ];
                session.kv = choose(name, value, values)?;
            }
            k if k == key_::CBL_OPTION_THREADS as i32 => {
                session.threads = size(name, value, 1, MAX_WORKERS)?;
            }
            k if k == key_::CBL_OPTION_CHUNK as i32 => {
                session.chunk = size(name, value, 1, usize::MAX)?;
            }
            k if k == key_::CBL_OPTION_ALL_LOGITS as i32 => {
                let all = switch(name, value)?;
                session.logits = if all { LogitsFor::All } else { LogitsFor::Last };
            }
            k if k == key_::CBL_OPTION_MAX_TOKENS as i32 => {
                generate.max_tokens = size(name, value, 0, usize::MAX)?;
            }
            k if k == key_::CBL_OPTION_TEMPLATE_TOKENS as i32 => {
                let most = size(name, value, 0, usize::MAX)?;
                self.template_tokens = Some(most).filter(|&most| most > 0);
            }
            k if k == key_::CBL_OPTION_TOP_K as i32 => {
                generate.sampler.top_k = size(name, value, 0, usize::MAX)?;
            }
            k if k == key_::CBL_OPTION_REPETITION_WINDOW as i32 => {
                let window = size(name, value, 0, usize::MAX)?;
                generate.sampler.repetition_window = window;
            }
            k if k == key_::CBL_OPTION_SEED as i32 => {
                generate.sampler.seed = value.cast_unsigned();
            }
            k if k == key_::CBL_OPTION_IGNORE_END_OF_TEXT as i32 => {
                generate.ignore_end_of_text = switch(name, value)?;
            }
            k if k == key_::CBL_OPTION_PARSE_SPECIAL as i32 => {
                self.parse_special = switch(name, value)?;
            }
            k if k == key_::CBL_OPTION_DRAFT as i32 => {
                session.draft = size(name, value, 0, MAX_DRAFT)?;
            }
            k if k == key_::CBL_OPTION_POOLING as i32 => {
                let values = [
                    (cbl_pooling::CBL_POOLING_MEAN as i64, Pooling::Mean),
                    (cbl_pooling::CBL_POOLING_LAST as i64, Pooling::Last),
                ];
                self.pooling = choose(name, value, values)?;
            }
            k if k == key_::CBL_OPTION_NORMALIZATION as i32 => {
                use cbl_normalization::{CBL_NORMALIZATION_MEAN, CBL_NORMALIZATION_SUM};
                let values = [CBL_NORMALIZATION_SUM, CBL_NORMALIZATION_MEAN].map(|v| (v as i64, v));
                let chosen = choose(name, value, values)?;
                self.classification.set_normalization(chosen)?;
            }
            k if k == key_::CBL_OPTION_CALIBRATION as i32 => {
                use cbl_calibration::{
                    CBL_CALIBRATION_CONTENT_FREE, CBL_CALIBRATION_MUTUAL_INFORMATION,
                    CBL_CALIBRATION_NONE,
                };
                let values = [
                    CBL_CALIBRATION_NONE,
                    CBL_CALIBRATION_CONTENT_FREE,
                    CBL_CALIBRATION_MUTUAL_INFORMATION,
                ];
                let chosen = choose(name, value, values.map(|v| (v as i64, v)))?;
                self.classification.set_calibration(chosen)?;
            }
            _ => return Err(unknown(key).into()),
        }
        Ok(())
    }

    fn set_float(&mut self, key: i32, value: f64) -> Result<()> {
        name_of(key, Kind::Float)?;
        let value = value as f32;
        let field: fn(&mut SamplerOptions) -> &mut f32 = match key {
            k if k == cbl_option::CBL_OPTION_TEMPERATURE as i32 => |it| &mut it.temperature,
            k if k == cbl_option::CBL_OPTION_TOP_P as i32 => |it| &mut it.top_p,
            k if k == cbl_option::CBL_OPTION_MIN_P as i32 => |it| &mut it.min_p,
            k if k == cbl_option::CBL_OPTION_REPETITION_PENALTY as i32 => {
                |it| &mut it.repetition_penalty
            }
            _ => return Err(unknown(key)),
        };
        // Not cloned, which may need memory.
        let sampler = &mut self.generate.sampler;
        let before = std::mem::replace(field(sampler), value);
        sampler.check().inspect_err(|_| *field(sampler) = before)
    }

    fn set_logit_bias(&mut self, token: u32, bias: f64) -> Result<()> {
        let bias = bias as f32;
        check_bias(bias)?;
        let biases = &mut self.generate.sampler.logit_bias;
        if bias == 0.0 {
            biases.retain(|&(known, _)| known != token);
            return Ok(());
        }
        let memory = |_| Error::OutOfMemory { bytes: size_of::<(u32, f32)>() };
        biases.try_reserve(1).map_err(memory)?;
        match biases.iter_mut().find(|(known, _)| *known == token) {
            Some((_, known)) => *known = bias,
            None => biases.push((token, bias)),
        }
        Ok(())
    }

    fn set_string(&mut self, key: i32, value: &str) -> Result<(), Failure> {
        name_of(key, Kind::String)?;
        match key {
            k if k == cbl_option::CBL_OPTION_ISA as i32 => {
                let isa = Isa::from_name(value).ok_or_else(|| {
                    let detail = "no instruction set of that name; cbl_isa_name() lists them";
                    Error::Option { name: "isa", detail: detail.to_owned() }
                })?;
                self.session.isa = Some(isa);
            }
            k if k == cbl_option::CBL_OPTION_TEMPLATE as i32 => {
                self.classification.set_template(value)?;
            }
            k if k == cbl_option::CBL_OPTION_CHOICES as i32 => {
                self.constraint.set_choices(value)?;
            }
            k if k == cbl_option::CBL_OPTION_REGEX as i32 => self.constraint.set_regex(value)?,
            k if k == cbl_option::CBL_OPTION_JSON_SCHEMA as i32 => {
                self.constraint.set_json_schema(value)?;
            }
            _ => return Err(unknown(key).into()),
        }
        Ok(())
    }
}

/// What an option's value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    String,
}

impl Kind {
    /// In words, and the function that sets it.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Int => ("an int", "cbl_options_set_int()"),
            Self::Float => ("a float", "cbl_options_set_float()"),
            Self::String => ("a string", "cbl_options_set_string()"),
        }
    }
}

/// Every option, with its name in messages and its kind; that of key 1 first.
const OPTIONS: [(&str, Kind); 27] = [
    ("access", Kind::Int),
    ("verify", Kind::Int),
    ("context", Kind::Int),
    ("cache", Kind::Int),
    ("threads", Kind::Int),
    ("chunk", Kind::Int),
    ("all_logits", Kind::Int),
    ("isa", Kind::String),
    ("max_tokens", Kind::Int),
    ("temperature", Kind::Float),
    ("top_k", Kind::Int),
    ("top_p", Kind::Float),
    ("min_p", Kind::Float),
    ("repetition_penalty", Kind::Float),
    ("repetition_window", Kind::Int),
    ("seed", Kind::Int),
    ("ignore_end_of_text", Kind::Int),
    ("parse_special", Kind::Int),
    ("draft", Kind::Int),
    ("pooling", Kind::Int),
    ("template", Kind::String),
    ("normalization", Kind::Int),
    ("calibration", Kind::Int),
    ("choices", Kind::String),
    ("regex", Kind::String),
    ("json_schema", Kind::String),
    ("template_tokens", Kind::Int),
];

/// The name of an option that is to be set as one of this kind.
fn name_of(key: i32, kind: Kind) -> Result<&'static str> {
    let index = usize::try_from(key).ok().and_then(|key| key.checked_sub(1));
    let &(name, its) = index.and_then(|index| OPTIONS.get(index)).ok_or_else(|| unknown(key))?;
    if its == kind {
        return Ok(name);
    }
    let ((words, setter), (_, called)) = (its.words(), kind.words());
    let detail = format!("is {words}: set it with {setter}, not {called}");
    Err(Error::Option { name, detail })
}

fn unknown(key: i32) -> Error {
    let detail = format!("{key} is not the key of an option of this version");
    Error::Option { name: "key", detail }
}

fn size(name: &'static str, value: i64, least: usize, most: usize) -> Result<usize> {
    let size = usize::try_from(value).ok().filter(|size| (least..=most).contains(size));
    size.ok_or_else(|| {
        let detail = match most {
            usize::MAX => format!("{value} is not at least {least}"),
            _ => format!("{value} is not in {least}..={most}"),
        };
        Error::Option { name, detail }
    })
}

fn choose<T: Copy, const N: usize>(
    name: &'static str,
    value: i64,
    values: [(i64, T); N],
) -> Result<T> {
    let chosen = values.into_iter().find(|&(number, _)| number == value);
    chosen.map(|(_, chosen)| chosen).ok_or_else(|| {
        let detail = format!("{value} is not in 0..={}", N - 1);
        Error::Option { name, detail }
    })
}

fn switch(name: &'static str, value: i64) -> Result<bool> {
    choose(name, value, [(0, false), (1, true)])
}

/// Runs `body` on options that may be NULL, for the defaults, and keeps them from changing meanwhile.
///
/// # Safety
/// As [`handle::get`].
pub(super) unsafe fn with<T>(
    options: *const cbl_options,
    body: impl FnOnce(&Options) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if options.is_null() {
        return body(&Options::default());
    }
    // SAFETY: the caller's contract.
    let options = unsafe { handle::get(options) }?;
    body(&*options.read()?)
}

impl cbl_options {
    fn read(&self) -> Result<RwLockReadGuard<'_, Options>, Failure> {
        self.options.try_read().map_err(|error| match error {
            TryLockError::WouldBlock => IN_USE,
            TryLockError::Poisoned(_) => POISONED,
        })
    }
}

/// Runs `body` on options that are to be changed.
///
/// # Safety
/// As [`handle::get`].
pub(super) unsafe fn change(
    options: *mut cbl_options,
    body: impl FnOnce(&mut Options) -> Result<(), Failure>,
) -> cbl_status {
    let mut body = Some(body);
    // SAFETY: the caller's contract.
    unsafe { change_dyn(options, &mut |options| once(&mut body)(options)) }
}

/// # Safety
/// As [`handle::get`].
unsafe fn change_dyn(
    options: *mut cbl_options,
    body: &mut dyn FnMut(&mut Options) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    let options = match unsafe { handle::get(options) } {
        Ok(options) => options,
        Err(failure) => return failure.status(),
    };
    boundary::status_of_locked(Report::Handle(&options.failure), || {
        let mut locked = options.options.try_write().map_err(|error| match error {
            TryLockError::WouldBlock => IN_USE,
            TryLockError::Poisoned(_) => POISONED,
        })?;
        panic_if_armed();
        body(&mut locked)
    })
}

/// Makes a set of options with all defaults. `*options` is NULL if that fails.
///
/// Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_new(options: *mut *mut cbl_options) -> cbl_status {
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        let out = unsafe { Out::new(options, std::ptr::null_mut()) }?;
        out.set(
            Place::new(cbl_options {
                failure: LastFailure::none(None),
                options: RwLock::new(Options::default()),
            })?
            .give(),
        );
        Ok(())
    })
}

/// Frees a set of options. NULL is fine. Models and sessions made with it live on.
///
/// Errors: CBL_BAD_HANDLE; CBL_BUSY, which frees nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_free(options: *mut cbl_options) -> cbl_status {
    if options.is_null() {
        return cbl_status::CBL_OK;
    }
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { handle::get(options) }?;
        if let Err(TryLockError::WouldBlock) = handle.options.try_write() {
            handle.failure.set(&IN_USE);
            return Err(IN_USE);
        }
        // SAFETY: the caller's contract, and no call is using them.
        unsafe { handle::free(options) };
        Ok(())
    })
}

/// Why the last failed call that was to change these options failed: English, never NULL, valid until
/// the next call with them. After CBL_BUSY it says so, to the thread that got it.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_error(options: *mut cbl_options) -> *const c_char {
    boundary::value(handle::NONE.as_ptr(), || {
        // SAFETY: the caller's contract.
        Ok(unsafe { handle::get(options) }?.failure.text())
    })
}

/// Sets an option whose kind is int. `key` is a cbl_option.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_UNSUPPORTED, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_int(
    options: *mut cbl_options,
    key: i32,
    value: i64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { change(options, |options| options.set_int(key, value)) }
}

/// Sets an option whose kind is float. `key` is a cbl_option.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_float(
    options: *mut cbl_options,
    key: i32,
    value: f64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { change(options, |options| Ok(options.set_float(key, value)?)) }
}

/// Sets an option whose kind is string, to the `length` bytes at `value`. `key` is a cbl_option.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION,
/// CBL_NO_THREADS, CBL_UNSUPPORTED, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_string(
    options: *mut cbl_options,
    key: i32,
    value: *const c_char,
    length: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { change(options, |options| options.set_string(key, text(value, length)?)) }
}

/// Adds a stop string, `length` bytes of UTF-8 that are copied. Generating text ends before the first
/// stop string that appears, however tokens cut it; no part of it is ever passed on.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION if
/// it is empty, CBL_NO_MEMORY, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_add_stop(
    options: *mut cbl_options,
    stop: *const c_char,
    length: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            let stop = text(stop, length)?;
            if stop.is_empty() {
                let detail = "is empty and would stop before the first token".to_owned();
                return Err(Error::Option { name: "stop string", detail }.into());
            }
            let stop = memory::copy(stop)?;
            let bytes = size_of::<String>();
            options.generate.stop.try_reserve(1).map_err(|_| Error::OutOfMemory { bytes })?;
            options.generate.stop.push(stop);
            Ok(())
        })
    }
}

/// Removes all stop strings.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_clear_stops(options: *mut cbl_options) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            options.generate.stop.clear();
            Ok(())
        })
    }
}

/// Adds `bias` to the logit of a token before all else, -1000 to 1000: -100 all but forbids it, 100 all but
/// forces it, 0 undoes what was set. A generation or a choice by a model that does not have the token fails
/// with CBL_BAD_OPTION.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_NO_MEMORY, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_logit_bias(
    options: *mut cbl_options,
    token: u32,
    bias: f64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { change(options, |options| Ok(options.set_logit_bias(token, bias)?)) }
}

/// Removes all that cbl_options_set_logit_bias() has set.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_clear_logit_biases(options: *mut cbl_options) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            options.generate.sampler.logit_bias.clear();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_set_as_another_kind_says_its_name_and_its_setter() {
        use cbl_option::*;
        let mut options = Options::default();
        let texts = [
            options.set_int(CBL_OPTION_TEMPERATURE as i32, 1).map_err(|e| e.to_string()),
            options.set_float(CBL_OPTION_SEED as i32, 1.0).map_err(|e| e.to_string()),
            options.set_string(CBL_OPTION_TOP_P as i32, "1").map_err(|e| e.to_string()),
            options.set_int(CBL_OPTION_REGEX as i32, 1).map_err(|e| e.to_string()),
            options.set_int(0, 1).map_err(|e| e.to_string()),
            options.set_float(99, 1.0).map_err(|e| e.to_string()),
            options.set_int(CBL_OPTION_TOP_K as i32, -1).map_err(|e| e.to_string()),
            options.set_float(CBL_OPTION_TEMPERATURE as i32, 101.0).map_err(|e| e.to_string()),
        ];
        let wants = [
            "temperature: is a float: set it with cbl_options_set_float(), not cbl_options_set_int()",
            "seed: is an int: set it with cbl_options_set_int(), not cbl_options_set_float()",
            "top_p: is a float: set it with cbl_options_set_float(), not cbl_options_set_string()",
            "regex: is a string: set it with cbl_options_set_string(), not cbl_options_set_int()",
            "key: 0 is not the key of an option of this version",
            "key: 99 is not the key of an option of this version",
            "top_k: -1 is not at least 0",
            "temperature: 101 is not in 0..=100",
        ];
        for (text, want) in texts.into_iter().zip(wants) {
            assert_eq!(text.unwrap_err(), format!("option {want}"));
        }
    }

    /// The last key that there is has the last name.
    #[test]
    fn every_option_has_a_name() {
        assert_eq!(OPTIONS.len() as i32, cbl_option::CBL_OPTION_TEMPLATE_TOKENS as i32);
    }
}
