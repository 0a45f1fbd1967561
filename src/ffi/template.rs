//! Templates
//!
//! A template puts a task to the model, such as translating or summarizing. It is a prompt with a
//! place for the text, and says where the result ends. Needs a build that can tokenize.
//!
//!     cbl_template *translate;
//!     cbl_template_named(model, "translate", 9, &translate, NULL, 0);
//!     cbl_apply_template(session, translate, NULL, "I am hungry.", 12, on_text, NULL, NULL, 0);
//!
//! A model file may hold templates of its own. "summarize", "translate" (English to French) and some
//! more are built in, for models that were trained on text from the web.

use core::ffi::{c_char, c_void};

use super::arguments::{Growing, GrowingOut, Out, required, text};
use super::boundary::{self, Report};
use super::handle::{self, Handle, Place};
use super::model::{self, cbl_model};
use super::options::{self, cbl_options};
use super::session::{self, cbl_session, cbl_text_callback, pass_on};
use super::status::cbl_status;

#[cfg(feature = "text")]
use with_text::Prepared;
#[cfg(not(feature = "text"))]
use without_text::Prepared;

/// How a task is put to a model.
pub struct cbl_template {
    prepared: Prepared,
}

impl Handle for cbl_template {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-tmpl");
}

/// What cbl_apply_template() did with a text. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_template_result {
    /// Number of parts that the text was cut into; 0 if it was blank.
    pub parts: u64,
    /// Number of parts whose results were too long and were cut.
    pub cut_parts: u64,
    /// Number of tokens of the text, without the template.
    pub text_tokens: u64,
    /// Number of tokens of the prompts.
    pub prompt_tokens: u64,
    /// Number of tokens generated.
    pub generated_tokens: u64,
    /// Time that all of it took.
    pub seconds: f64,
    /// Why the last part's result ended: a cbl_stop_reason. CBL_STOP_STRING also if the result has
    /// as many sentences as the template asks for.
    pub stop_reason: i32,
    /// 1 if the text was cut to fit into the context although the template alone would not have cut
    /// it there; otherwise 0.
    pub split: i32,
}

// SAFETY: `repr(C)`, and zeros are numbers.
unsafe impl Growing for cbl_template_result {
    const FIRST_SIZE: usize = 56;
}

const _: () = assert!(size_of::<cbl_template_result>() == 56);

/// Prepares the template whose name is the `length` bytes at `name`: one of the model file's own,
/// or a built-in one. If there is no such template, the message lists the names that there are.
/// `*prepared` is NULL if that fails.
///
/// A file's own template cannot keep a device busy for ever. It may ask for a result of 4096
/// tokens, or of one token for each KiB of the file if that is more.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION,
/// CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_template_named(
    model: *const cbl_model,
    name: *const c_char,
    length: usize,
    prepared: *mut *mut cbl_template,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(prepared, core::ptr::null_mut());
        model::with(model, Report::Buffer(message, message_size), |shared| {
            let out = out?;
            let prepared = Prepared::named(&shared.model, text(name, length)?)?;
            out.set(Place::new(cbl_template { prepared })?.give());
            Ok(())
        })
    }
}

/// Prepares a template from its text, `length` bytes of UTF-8: the prompt, with `{text}` in the
/// place of the text. Before the prompt there may be lines of options that end with a line `---`,
/// such as `stop: "\n"`, `max-tokens: 3x` or `split: sentences`. docs/templates.md lists all
/// options. `*prepared` is NULL if that fails.
///
/// Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION with a message that
/// names the line, CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_template_new(
    text: *const c_char,
    length: usize,
    prepared: *mut *mut cbl_template,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    boundary::status(Report::Buffer(message, message_size), || {
        // SAFETY: the caller's contract.
        let (out, text) =
            unsafe { (Out::new(prepared, core::ptr::null_mut())?, self::text(text, length)?) };
        out.set(Place::new(cbl_template { prepared: Prepared::parse(text)? })?.give());
        Ok(())
    })
}

/// Frees a template; NULL is allowed.
///
/// No other call may be using the handle. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_template_free(prepared: *mut cbl_template) -> cbl_status {
    if prepared.is_null() {
        return cbl_status::CBL_OK;
    }
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        unsafe {
            handle::get(prepared)?;
            handle::free(prepared);
        }
        Ok(())
    })
}

/// Applies a template to a text, `length` bytes of UTF-8. The callback receives the result piece by
/// piece, without white space around it. A text that does not fit into the session's context is cut
/// between sentences, unless the template forbids that. The result is then the results of the
/// parts, one after the other.
///
/// The call replaces the tokens that the session holds. If the new tokens begin as the ones before
/// did, this beginning is not evaluated again. The template brings its own options for generation.
/// Of `options`, which may be NULL, only CBL_OPTION_SEED and CBL_OPTION_TEMPLATE_TOKENS are used.
/// `*result` receives what was done, and `size` is `sizeof *result`; `result` may be NULL if `size`
/// is 0. A call that is cancelled returns CBL_OK, and the stop reason is CBL_STOP_CANCELLED.
///
/// One thread at a time for the session; thread-safe for the template, which serves any model.
/// Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_INVALID_UTF8; CBL_NO_TOKENIZER; CBL_BAD_TEXT;
/// CBL_CONTEXT_FULL if the context is too small for the template, or for a text that must not be
/// cut; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_NO_MEMORY; CBL_UNSUPPORTED; CBL_BUSY; CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_apply_template(
    session: *mut cbl_session,
    prepared: *const cbl_template,
    options: *const cbl_options,
    text: *const c_char,
    length: usize,
    callback: cbl_text_callback,
    user: *mut c_void,
    result: *mut cbl_template_result,
    size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let wanted = !(result.is_null() && size == 0);
        let out = wanted.then(|| GrowingOut::new(result, size)).transpose();
        session::work(session, |inner| {
            let out = out?;
            let callback = required(callback)?;
            let prepared = &handle::get(prepared)?.prepared;
            let text = self::text(text, length)?;
            let given = options::with(options, |options| {
                Ok((options.generate.sampler.seed, options.template_tokens))
            })?;
            let came =
                prepared.apply(inner, given, text, &mut |text| pass_on(callback, user, text))?;
            if let Some(out) = out {
                out.set(&came);
            }
            Ok(())
        })
    }
}

#[cfg(feature = "text")]
mod with_text {
    use alloc::sync::Arc;
    use core::ops::ControlFlow;

    use super::super::failure::Failure;
    use super::super::session::Inner;
    use super::super::stop_reason::cbl_stop_reason;
    use super::cbl_template_result;
    use crate::model::Model;
    use crate::task::{Task, TaskResult};
    use crate::template::Template;

    pub struct Prepared(Template);

    impl Prepared {
        pub fn named(model: &Model, name: &str) -> Result<Self, Failure> {
            Ok(Self(model.template(name)?))
        }

        pub fn parse(template: &str) -> Result<Self, Failure> {
            Ok(Self(template.parse()?))
        }

        pub fn apply(
            &self,
            inner: &mut Inner,
            (seed, most_tokens): (u64, Option<usize>),
            text: &str,
            wants_more: &mut dyn FnMut(&str) -> bool,
        ) -> Result<cbl_template_result, Failure> {
            let tokenizer = Arc::clone(inner.shared.tokenizer()?);
            let model = Arc::clone(&inner.shared);
            let mut task = Task::for_model(&model.model, &tokenizer, self.0.try_clone()?)?;
            task.set_seed(seed);
            if let Some(most) = most_tokens {
                task.set_max_tokens(most);
            }
            let result = inner.counted(0, |session| {
                task.run(session, text, |piece| match wants_more(piece) {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                })
            })?;
            inner.counters.evaluated(result.prompt_tokens + result.tokens);
            Ok(result.into())
        }
    }

    impl From<TaskResult> for cbl_template_result {
        fn from(result: TaskResult) -> Self {
            Self {
                parts: result.parts as u64,
                cut_parts: result.cut as u64,
                text_tokens: result.text_tokens as u64,
                prompt_tokens: result.prompt_tokens as u64,
                generated_tokens: result.tokens as u64,
                seconds: result.seconds,
                stop_reason: cbl_stop_reason::from(result.stop_reason) as i32,
                split: i32::from(result.split),
            }
        }
    }
}

#[cfg(not(feature = "text"))]
mod without_text {
    use super::super::failure::Failure;
    use super::super::failure::NO_TOKENIZING as UNSUPPORTED;
    use super::super::session::Inner;
    use super::cbl_template_result;
    use crate::model::Model;

    /// No value exists: making one always fails.
    pub enum Prepared {}

    impl Prepared {
        pub fn named(_: &Model, _: &str) -> Result<Self, Failure> {
            Err(UNSUPPORTED)
        }

        pub fn parse(_: &str) -> Result<Self, Failure> {
            Err(UNSUPPORTED)
        }

        pub fn apply(
            &self,
            _: &mut Inner,
            _: (u64, Option<usize>),
            _: &str,
            _: &mut dyn FnMut(&str) -> bool,
        ) -> Result<cbl_template_result, Failure> {
            match *self {}
        }
    }
}
