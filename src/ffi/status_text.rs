//! Texts of status codes. They are apart from the codes, because a function needs the boundary, which
//! uses the codes.

use core::ffi::{CStr, c_char};

use super::boundary;
use super::status::cbl_status::{
    self, CBL_BAD_ARGUMENT, CBL_BAD_HANDLE, CBL_BAD_MODEL, CBL_BAD_OPTION, CBL_BAD_POSITION,
    CBL_BAD_SAVED, CBL_BAD_TEXT, CBL_BAD_TOKEN, CBL_BUFFER_TOO_SMALL, CBL_BUSY, CBL_CANCELLED,
    CBL_CONTEXT_FULL, CBL_INVALID_UTF8, CBL_IO, CBL_MODEL_CHANGED, CBL_NO_GENERATION,
    CBL_NO_LOGITS, CBL_NO_MEMORY, CBL_NO_THREADS, CBL_NO_TOKENIZER, CBL_NON_FINITE, CBL_OK,
    CBL_PANIC, CBL_UNSUPPORTED,
};

/// Returns what a status means, in a few words of English, for logs. Any number may be passed. The
/// text is static.
///
/// The message of a handle or of a call says more: which file, which option, what to do next.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_status_text(status: i32) -> *const c_char {
    boundary::value(c"unknown status".as_ptr(), || Ok(text(status).as_ptr()))
}

fn text(status: i32) -> &'static CStr {
    const TEXTS: [(cbl_status, &CStr); 24] = [
        (CBL_OK, c"ok"),
        (CBL_BAD_HANDLE, c"bad handle"),
        (CBL_BAD_ARGUMENT, c"bad argument"),
        (CBL_BAD_OPTION, c"bad option"),
        (CBL_INVALID_UTF8, c"invalid UTF-8"),
        (CBL_BUFFER_TOO_SMALL, c"buffer too small"),
        (CBL_NO_MEMORY, c"out of memory"),
        (CBL_IO, c"input or output failed"),
        (CBL_BAD_MODEL, c"not a valid model file"),
        (CBL_MODEL_CHANGED, c"the model file changed"),
        (CBL_BAD_TOKEN, c"token id out of range"),
        (CBL_CONTEXT_FULL, c"context full"),
        (CBL_BAD_POSITION, c"position not reached yet"),
        (CBL_NO_LOGITS, c"no logits"),
        (CBL_NON_FINITE, c"logits not finite"),
        (CBL_NO_TOKENIZER, c"no tokenizer in the model file"),
        (CBL_BAD_TEXT, c"text cannot be tokenized"),
        (CBL_BUSY, c"handle in use"),
        (CBL_CANCELLED, c"cancelled"),
        (CBL_NO_THREADS, c"cannot start a thread"),
        (CBL_BAD_SAVED, c"not a saved session for this model"),
        (CBL_UNSUPPORTED, c"not in this build"),
        (CBL_PANIC, c"a bug in the library"),
        (CBL_NO_GENERATION, c"no such generation"),
    ];
    let known = TEXTS.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"unknown status", |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The comment of the enumeration promises that numbers never change.
    #[test]
    fn numbers_never_change() {
        let texts: Vec<_> = (-1..=24).map(|n| text(n).to_str().unwrap()).collect();
        assert_eq!(texts[0], "unknown status");
        assert_eq!(texts[1], "ok");
        assert_eq!(texts[7], "out of memory");
        assert_eq!(texts[18], "handle in use");
        assert_eq!(texts[23], "a bug in the library");
        assert_eq!(texts[24], "no such generation");
        assert_eq!(texts[25], "unknown status");
    }
}
