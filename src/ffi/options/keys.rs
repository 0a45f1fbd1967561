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

use crate::error::{Error, Result};

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
    /// float, 0.01 to 100. Generation: a value over 1 makes recent tokens less probable. 1, the
    /// default, changes nothing.
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

/// The type of an option's value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Float,
    String,
}

impl Kind {
    /// The kind in words, and the function that sets an option of this kind.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Int => ("an int", "cbl_options_set_int()"),
            Self::Float => ("a float", "cbl_options_set_float()"),
            Self::String => ("a string", "cbl_options_set_string()"),
        }
    }
}

/// The name of every option in messages, and its kind. The option with key 1 comes first.
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

/// The name of the option `key`; an error if it is not of this kind.
pub fn name_of(key: i32, kind: Kind) -> Result<&'static str> {
    let index = usize::try_from(key).ok().and_then(|key| key.checked_sub(1));
    let &(name, its) = index.and_then(|index| OPTIONS.get(index)).ok_or_else(|| unknown(key))?;
    if its == kind {
        return Ok(name);
    }
    let ((words, setter), (_, called)) = (its.words(), kind.words());
    let detail = format!("is {words}: set it with {setter}, not {called}");
    Err(Error::Option { name, detail })
}

pub fn unknown(key: i32) -> Error {
    let detail = format!("{key} is not the key of an option of this version");
    Error::Option { name: "key", detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last key has the last name.
    #[test]
    fn every_option_has_a_name() {
        assert_eq!(OPTIONS.len() as i32, cbl_option::CBL_OPTION_TEMPLATE_TOKENS as i32);
    }
}
