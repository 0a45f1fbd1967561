//! Words of a text by GPT-2's rules, spelled in the byte-level alphabet.
//!
//! The same words come from the library's `ByteLevel`. But that keeps its regular expression and its
//! alphabet, 240 KiB, until the process ends, also when a program unloads this library and loads it
//! again. Here all encoders of a process share one expression, which takes some milliseconds to compile
//! and goes with the last of them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokenizers::utils::SysRegex;
use tokenizers::{PreTokenizedString, PreTokenizer, SplitDelimiterBehavior};

use super::encoder::library_error;
use super::{TextError, byte_level};

/// Matches exactly one word (`src/encoder.py` of GPT-2).
const WORD: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Cuts a text into words.
pub(super) struct Splitter {
    /// Whether a text that does not begin with a space is read as if it did.
    pub add_prefix_space: bool,
    /// None if a text is one word.
    word: Option<Word>,
}

/// The compiled [`WORD`].
struct Word(Arc<SysRegex>);

/// That of the encoders that live.
static SHARED: Mutex<Weak<SysRegex>> = Mutex::new(Weak::new());

impl Word {
    fn new() -> Result<Self, TextError> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(word) = shared.upgrade() {
            return Ok(Self(word));
        }
        let word = Arc::new(SysRegex::new(WORD).map_err(library_error)?);
        *shared = Arc::downgrade(&word);
        Ok(Self(word))
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.0) == 1 {
            // Nothing stays when the library is unloaded.
            *shared = Weak::new();
        }
    }
}

impl Splitter {
    pub fn new(add_prefix_space: bool, use_regex: bool) -> Result<Self, TextError> {
        let word = if use_regex { Some(Word::new()?) } else { None };
        Ok(Self { add_prefix_space, word })
    }

    /// Whether there are words; otherwise a text is one.
    pub fn cuts_words(&self) -> bool {
        self.word.is_some()
    }
}

impl PreTokenizer for Splitter {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        text.split(|_, mut part| {
            if self.add_prefix_space && !part.get().starts_with(' ') {
                part.prepend(" ");
            }
            match &self.word {
                Some(Word(word)) => part.split(&**word, SplitDelimiterBehavior::Isolated),
                None => Ok(vec![part]),
            }
        })?;
        text.normalize(|word| {
            let mut spelled = Vec::with_capacity(word.get().len());
            for byte in word.get().bytes() {
                // The second number: the first byte's character takes the place of one in the text, and the
                // others are more.
                let is_more = byte & 0xC0 == 0x80;
                spelled.push((byte_level::byte_to_char(byte), isize::from(is_more)));
            }
            word.transform(spelled, 0);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{OffsetReferential, OffsetType};

    fn words(splitter: &impl PreTokenizer, text: &str) -> Vec<String> {
        let mut words = PreTokenizedString::from(text);
        splitter.pre_tokenize(&mut words).unwrap();
        let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(word, _, _)| word.to_owned()).collect()
    }

    #[test]
    fn encoders_share_one_expression() {
        let [a, b] = [(); 2].map(|()| Word::new().unwrap());
        assert!(Arc::ptr_eq(&a.0, &b.0));
    }

    proptest! {
        /// Words, and how the library spells them.
        #[test]
        fn words_are_those_of_the_library(
            text in r"([ \n\t'a-zA-Z0-9.,!]|'(s|re|ll)|\PC){0,40}",
            add_prefix_space: bool,
            use_regex: bool,
        ) {
            let own = Splitter::new(add_prefix_space, use_regex).unwrap();
            let library = ByteLevel::new(add_prefix_space, false, use_regex);
            prop_assert_eq!(words(&own, &text), words(&library, &text));
        }
    }
}
