//! Conversations
//!
//! A conversation is a list of messages. Each has a role, which is "system", "user" or "assistant",
//! and a content. The chat template in the model file puts them into the form that the model knows.
//! The text of a message never becomes a control token. docs/chat.md says more.
//!
//!     const char *roles[] = {"system", "user"};
//!     const char *contents[] = {"Answer in one sentence.", "What is the capital of France?"};
//!     cbl_chat_answer(session, NULL, roles, contents, 2, on_text, NULL, NULL, 0);
//!
//! The program keeps the messages. For the next turn, add the answer and the next message to both
//! lists and call again on the same session: only what is new is evaluated.

use core::ffi::{c_char, c_void};

use super::arguments::{Growing, GrowingOut, Out, copy_out, required, texts};
use super::boundary::{self, Report};
use super::model::{self, cbl_model};
use super::options::{self, cbl_options};
use super::session::{self, cbl_session, cbl_text_callback, pass_on};
use super::status::cbl_status;

#[cfg(feature = "text")]
use with_text::{answer, tokens_of};
#[cfg(not(feature = "text"))]
use without_text::{answer, tokens_of};

/// What cbl_chat_answer() did. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_chat_result {
    /// Number of tokens of the conversation that were evaluated.
    pub prompt_tokens: u64,
    /// Number of tokens of the conversation that the session held already.
    pub reused_tokens: u64,
    /// Number of tokens generated.
    pub generated_tokens: u64,
    /// Number of messages that were left out because the context is full: the oldest ones after the
    /// system message.
    pub left_out: u64,
    /// Why the answer ended: a cbl_stop_reason.
    pub stop_reason: i32,
    /// 0.
    pub reserved: i32,
}

// SAFETY: `repr(C)`, and zeros are numbers.
unsafe impl Growing for cbl_chat_result {
    const FIRST_SIZE: usize = 40;
}

const _: () = assert!(size_of::<cbl_chat_result>() == 40);

/// Returns whether this build evaluates every chat template. If not, it knows conversations only if
/// the quantizer found a simple form of the model's template, and only with messages of user and
/// assistant in turn, perhaps after one of the system.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_has_chat() -> bool {
    boundary::value(false, || Ok(cfg!(feature = "chat")))
}

/// Turns a conversation of `count` messages into token ids, what asks for an answer included. The
/// roles and contents end with zero bytes. If the last message is the assistant's, it is the
/// beginning of the answer. `*number` receives the number of ids. `tokens` has room for `capacity`
/// ids, and receives them if they all fit. A capacity of 0 only asks for the number, and then gives
/// CBL_BUFFER_TOO_SMALL. `options` may be NULL; only CBL_OPTION_DATE and CBL_OPTION_THINKING are
/// used.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_INVALID_UTF8; CBL_NO_TOKENIZER;
/// CBL_BAD_TEXT; CBL_BAD_OPTION if the model has no chat template, or if the template refuses the
/// messages; CBL_BUFFER_TOO_SMALL; CBL_MODEL_CHANGED; CBL_NO_THREADS; CBL_NO_MEMORY;
/// CBL_UNSUPPORTED; CBL_BUSY; CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_chat_tokens(
    model: *const cbl_model,
    options: *const cbl_options,
    roles: *const *const c_char,
    contents: *const *const c_char,
    count: usize,
    tokens: *mut u32,
    capacity: usize,
    number: *mut usize,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(number, 0);
        model::with(model, Report::Buffer(message, message_size), |shared| {
            out?;
            let (roles, contents) = (texts(roles, count)?, texts(contents, count)?);
            let setting = options::with(options, |options| Ok(options.chat))?;
            let made = tokens_of(shared, setting, &roles, &contents)?;
            copy_out(&made, tokens, capacity, number)
        })
    }
}

/// Lets the model answer a conversation of `count` messages. The roles and contents end with zero
/// bytes. The callback receives the answer piece by piece, as that of cbl_generate() does. The
/// answer ends at any token that ends a text or a turn of the model. If the last message is the
/// assistant's, the answer continues it.
///
/// The conversation replaces the tokens that the session holds. If it begins as they do, this
/// beginning is not evaluated again. If the conversation and an answer of CBL_OPTION_MAX_TOKENS
/// tokens, or of half the context if that is less, do not fit into the context, the oldest turns are
/// left out, whole. The system message and the last turn stay.
///
/// `options` may be NULL. They are those of cbl_generate(), CBL_OPTION_DATE and
/// CBL_OPTION_THINKING. `*result` receives what was done, and `size` is `sizeof *result`; `result`
/// may be NULL if `size` is 0. A call that is cancelled returns CBL_OK, and the stop reason is
/// CBL_STOP_CANCELLED.
///
/// One thread at a time. Errors: those of cbl_generate(), CBL_MODEL_CHANGED among them, and of
/// cbl_chat_tokens(); CBL_CONTEXT_FULL if the last turn does not fit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_chat_answer(
    session: *mut cbl_session,
    options: *const cbl_options,
    roles: *const *const c_char,
    contents: *const *const c_char,
    count: usize,
    callback: cbl_text_callback,
    user: *mut c_void,
    result: *mut cbl_chat_result,
    size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let wanted = !(result.is_null() && size == 0);
        let out = wanted.then(|| GrowingOut::new(result, size)).transpose();
        session::work(session, |inner| {
            let out = out?;
            let callback = required(callback)?;
            let (roles, contents) = (texts(roles, count)?, texts(contents, count)?);
            let came = options::with(options, |options| {
                answer(inner, options, &roles, &contents, &mut |text| pass_on(callback, user, text))
            })?;
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
    use alloc::vec::Vec;
    use core::ops::ControlFlow;

    use super::super::failure::Failure;
    use super::super::model::Shared;
    use super::super::options::{ChatSetting, Options};
    use super::super::session::Inner;
    use super::super::status::cbl_status::CBL_BAD_ARGUMENT;
    use super::super::stop_reason::cbl_stop_reason;
    use super::cbl_chat_result;
    use crate::chat::{Answer, Chat, Role};
    use crate::generate::Constraint;

    fn chat(
        shared: &Shared,
        setting: ChatSetting,
        roles: &[&str],
        contents: &[&str],
    ) -> Result<Chat, Failure> {
        const ROLE: &str = "a role is not \"system\", \"user\" or \"assistant\"";
        if roles.is_empty() {
            return Err(Failure::Misuse(CBL_BAD_ARGUMENT, "a conversation without messages"));
        }
        let tokenizer = Arc::clone(shared.tokenizer()?);
        let mut chat = Chat::with_tokenizer(&shared.model, tokenizer, setting.options())?;
        for (role, content) in roles.iter().zip(contents) {
            let role = Role::named(role).ok_or(Failure::Misuse(CBL_BAD_ARGUMENT, ROLE))?;
            chat.push(role, content)?;
        }
        Ok(chat)
    }

    pub fn tokens_of(
        shared: &Shared,
        setting: ChatSetting,
        roles: &[&str],
        contents: &[&str],
    ) -> Result<Vec<u32>, Failure> {
        Ok(chat(shared, setting, roles, contents)?.tokens()?)
    }

    pub fn answer(
        inner: &mut Inner,
        options: &Options,
        roles: &[&str],
        contents: &[&str],
        wants_more: &mut dyn FnMut(&str) -> bool,
    ) -> Result<cbl_chat_result, Failure> {
        let mut chat = chat(&inner.shared, options.chat, roles, contents)?;
        let mut constraint = inner.shared.constraint(&options.constraint)?;
        let constraint = constraint.as_mut().map(|it| &mut **it as &mut dyn Constraint);
        let answer = chat.answer(&mut inner.session, &options.generate, constraint, |text| {
            if wants_more(text) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        inner.counters.generated(&answer.generation);
        Ok(answer.into())
    }

    impl From<Answer> for cbl_chat_result {
        fn from(answer: Answer) -> Self {
            let Answer { generation, reused_tokens, left_out } = answer;
            Self {
                prompt_tokens: generation.prompt_tokens as u64,
                reused_tokens: reused_tokens as u64,
                generated_tokens: generation.tokens as u64,
                left_out: left_out as u64,
                stop_reason: cbl_stop_reason::from(generation.stop_reason) as i32,
                reserved: 0,
            }
        }
    }
}

#[cfg(not(feature = "text"))]
mod without_text {
    use alloc::vec::Vec;

    use super::super::failure::Failure;
    use super::super::failure::NO_TOKENIZING as UNSUPPORTED;
    use super::super::model::Shared;
    use super::super::options::{ChatSetting, Options};
    use super::super::session::Inner;
    use super::cbl_chat_result;

    pub fn tokens_of(
        _: &Shared,
        _: ChatSetting,
        _: &[&str],
        _: &[&str],
    ) -> Result<Vec<u32>, Failure> {
        Err(UNSUPPORTED)
    }

    pub fn answer(
        _: &mut Inner,
        _: &Options,
        _: &[&str],
        _: &[&str],
        _: &mut dyn FnMut(&str) -> bool,
    ) -> Result<cbl_chat_result, Failure> {
        Err(UNSUPPORTED)
    }
}
