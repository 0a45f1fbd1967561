//! Options
//!
//! One set of options serves all functions: those that open a model, make a session or generate. A
//! function uses the options that concern it, and ignores the others. Where a function takes
//! options, NULL stands for the defaults.
//!
//!     cbl_options *options;
//!     cbl_options_new(&options);
//!     cbl_options_set_int(options, CBL_OPTION_THREADS, 4);
//!     cbl_options_set_float(options, CBL_OPTION_TEMPERATURE, 0.8);
//!
//! The function that sets an option checks the value, as far as it can without a model. A set of
//! options may be changed or freed as soon as the call that takes it has returned.

use crate::error::{Error, Result};

/// The keys of options. Numbers never change and are never used again. The comment of a key begins
/// with the type and the range of its value, and then names what it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_option {
    /// int. Opening: how the file is opened, a cbl_access. Default: CBL_ACCESS_MAP.
    CBL_OPTION_ACCESS = 1,
    /// int, 0 or 1. Opening: 1 reads the whole file and checks every checksum; 0, the default,
    /// checks only the header. With either value, a damaged file can do no more harm than give
    /// wrong text.
    CBL_OPTION_VERIFY = 2,
    /// int. Session: the number of positions of the cache. 0, the default, takes
    /// cbl_model_info.context, or fewer if the cache would take more than 64 MiB and more than four
    /// times the size of the file.
    CBL_OPTION_CONTEXT = 3,
    /// int. Session: the type of the cache, a cbl_cache. Default: CBL_CACHE_F16.
    CBL_OPTION_CACHE = 4,
    /// int, 1 to 64. Session: the number of threads that share the work, the calling thread
    /// included. 1, the default, starts no thread.
    CBL_OPTION_THREADS = 5,
    /// int, from 1. Session: the number of tokens of a prompt that are evaluated at once. A larger
    /// number is faster and takes more memory. Default: 64.
    CBL_OPTION_CHUNK = 6,
    /// int, 0 or 1. Session: 1 computes the logits of every token, for cbl_session_evaluate_each().
    /// Default: 0.
    CBL_OPTION_ALL_LOGITS = 7,
    /// string. Session: the name of the instruction set to use; see cbl_isa_name(). Default: the
    /// fastest one.
    CBL_OPTION_ISA = 8,
    /// int, from 0. Generation: the largest number of tokens to generate. Default: 128.
    CBL_OPTION_MAX_TOKENS = 9,
    /// float, 0 to 100. Generation: 0, the default, chooses the most probable token; 1 draws from
    /// the model's own distribution; a value below 1 makes probable tokens more probable.
    CBL_OPTION_TEMPERATURE = 10,
    /// int, from 0. Generation: draws only from this number of most probable tokens. 0, the
    /// default, draws from all tokens.
    CBL_OPTION_TOP_K = 11,
    /// float, more than 0, at most 1. Generation: draws only from the most probable tokens whose
    /// probabilities add up to this value. 1, the default, draws from all tokens.
    CBL_OPTION_TOP_P = 12,
    /// float, 0 to 1. Generation: draws only from tokens whose probability is at least this
    /// fraction of the highest probability. 0, the default, draws from all tokens.
    CBL_OPTION_MIN_P = 13,
    /// float, 0.01 to 100. Generation: a value over 1 makes recent tokens less probable. 1, the
    /// default, changes nothing.
    CBL_OPTION_REPETITION_PENALTY = 14,
    /// int, from 0. Generation: the number of last tokens that count as recent, those of the prompt
    /// included. 0 counts all tokens. Default: 64.
    CBL_OPTION_REPETITION_WINDOW = 15,
    /// int, all 64 bits count. Generation: the same seed draws the same tokens on every machine.
    /// Default: 0.
    CBL_OPTION_SEED = 16,
    /// int, 0 or 1. Generation: 1 goes on after the end-of-text token, and after all other tokens that
    /// end an answer. Default: 0.
    CBL_OPTION_IGNORE_END_OF_TEXT = 17,
    /// int, 0 or 1. Tokenizing: 1 turns the name of a special token in the text, such as
    /// <|endoftext|>, into that token. 0, the default, reads it as plain text, so that a text from
    /// outside cannot contain special tokens.
    CBL_OPTION_PARSE_SPECIAL = 18,
    /// int, 0 to 15. Session: the largest number of tokens that a generation guesses and evaluates
    /// together with the next token. It guesses what followed the last tokens when they occurred
    /// before. A right guess saves a pass over the weights. The session guesses only where this
    /// saves time, and guesses change no result. A value `n` takes memory for `n` more rows of
    /// logits. Default: 4.
    CBL_OPTION_DRAFT = 19,
    /// int. Embedding: how the vectors of the tokens become one vector, a cbl_pooling. Default:
    /// CBL_POOLING_MEAN.
    CBL_OPTION_POOLING = 20,
    /// string. Classification: the text that the model reads, with `{text}` and `{label}` once each
    /// and in this order. The characters after `{label}`, up to the end of the line, mark the end
    /// of the label. Default: "Utterance: {text}\nIntent: {label}\n".
    CBL_OPTION_TEMPLATE = 21,
    /// int. Classification: how the length of a label counts, a cbl_normalization. Default:
    /// CBL_NORMALIZATION_SUM.
    CBL_OPTION_NORMALIZATION = 22,
    /// int. Classification: what is subtracted from the score of a label, a cbl_calibration.
    /// Default: CBL_CALIBRATION_NONE.
    CBL_OPTION_CALIBRATION = 23,
    /// string. Generation: the text is one of these choices, each of which stands on a line of its
    /// own. The text may begin with a space. An empty string, the default, allows any text.
    ///
    /// This option, CBL_OPTION_REGEX and CBL_OPTION_JSON_SCHEMA need a build with
    /// cbl_has_constraints(). Setting one of them removes the other two. A value that makes no
    /// sense is refused when it is set. A stop string, CBL_OPTION_MAX_TOKENS or a full context may
    /// still cut the text. In a batch, every text has the form.
    ///
    /// The first generation with such an option takes some tens of milliseconds to prepare the
    /// vocabulary. Setting the option and preparing the vocabulary start a thread for a short time;
    /// if the system refuses the thread, they give CBL_NO_THREADS.
    CBL_OPTION_CHOICES = 24,
    /// string. Generation: the text matches this regular expression from beginning to end. No
    /// anchors are needed: ^ at the beginning and $ at the end change nothing. Anchors elsewhere,
    /// look-around and back-references are refused. An empty string, the default, allows any text.
    CBL_OPTION_REGEX = 25,
    /// string. Generation: the text is JSON that follows this JSON schema (draft 2020-12), in one
    /// line. The text may begin with a space. A schema that uses what the library does not support
    /// is refused. A number has at most 15 digits before the point, 15 after it and 2 in its
    /// exponent, unless the schema leaves no choice. Bounds and values beyond 2^53 are refused. An
    /// empty string, the default, allows any text.
    CBL_OPTION_JSON_SCHEMA = 26,
    /// int, from 0. Templates: the largest number of tokens in the result of each part, whatever
    /// number the template asks for. 0, the default, takes the number that the template asks for.
    /// That number is limited if the template comes from a model file; see cbl_template_named().
    CBL_OPTION_TEMPLATE_TOKENS = 27,
    /// string. Conversations: the day that a chat template may write, such as "2025-01-31". An empty
    /// string, the default, is today by the system's clock, in UTC.
    CBL_OPTION_DATE = 28,
    /// int. Conversations: 1 asks a model that can think before it answers to do so, 0 not to, if
    /// its chat template knows that. -1, the default, leaves it to the template.
    CBL_OPTION_THINKING = 29,
    /// int, 0 or 1. cbl_model_tokenize(): 1 if the text begins what the model reads. The token that the
    /// model wants before every text, if it wants one, is then put there, unless the text begins with it.
    /// The functions that take a text and a session need no such option: they put it before a text that
    /// begins an empty session. Default: 0.
    CBL_OPTION_BEGIN_OF_TEXT = 30,
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
const OPTIONS: [(&str, Kind); 30] = [
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
    ("date", Kind::String),
    ("thinking", Kind::Int),
    ("begin_of_text", Kind::Int),
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
        assert_eq!(OPTIONS.len() as i32, cbl_option::CBL_OPTION_BEGIN_OF_TEXT as i32);
    }
}
