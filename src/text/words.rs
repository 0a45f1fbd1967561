//! How texts are cut into words before merging: each rule is a regular expression of a published tokenizer,
//! written out as the steps it takes.
//!
//! Every rule takes time linear in the text: what it reads ahead is white space only, and of a run of white
//! space it takes all but the last character at once.

use super::layout;
use super::unicode::Class;

/// The rules, with the numbers they have in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// A text is one word.
    Whole,
    /// GPT-2's.
    Gpt2,
    /// GPT-2's, where each number is a word.
    Gpt2Digits,
    /// Llama 3's: numbers are words of up to three.
    Llama3,
    /// Qwen's: Llama 3's, where each number is a word.
    Qwen2,
    /// A word begins at each space behind another character, but for one that tokens have before a space.
    Spaces(char),
    /// A word begins at each space.
    EachSpace,
}

impl Rule {
    /// The rule with a number, and the character behind which a space begins no word; unknown ones were refused
    /// before.
    pub fn of(number: u8, glue: u32) -> Self {
        match number {
            layout::SPLIT_GPT2 => Self::Gpt2,
            layout::SPLIT_GPT2_DIGITS => Self::Gpt2Digits,
            layout::SPLIT_LLAMA3 => Self::Llama3,
            layout::SPLIT_QWEN2 => Self::Qwen2,
            // Most tokenizers have none. Behind a zero, no merge joins anything then.
            layout::SPLIT_SPACES => Self::Spaces(char::from_u32(glue).unwrap_or('\0')),
            layout::SPLIT_EACH_SPACE => Self::EachSpace,
            _ => Self::Whole,
        }
    }

    /// Bytes of the word at the beginning of a text, which is not empty.
    pub fn word(self, text: &str) -> usize {
        match self {
            Self::Whole => text.len(),
            Self::Gpt2 => gpt2(text, false),
            Self::Gpt2Digits => gpt2(text, true),
            Self::Llama3 => llama3(text, 3),
            Self::Qwen2 => llama3(text, 1),
            Self::Spaces(glue) => {
                let mut before = ' ';
                run(text, 0, |c| {
                    let ends = is_space(c) && !is_space(before) && before != glue;
                    before = c;
                    !ends
                })
            }
            Self::EachSpace => {
                let first = text.chars().next().map_or(0, char::len_utf8);
                run(text, first, |c| !is_space(c))
            }
        }
    }

    /// Where a text may be cut behind so many bytes so that both sides have the words of the whole: before a
    /// space behind anything but white space. No rule has a space inside a word, but between spaces; none
    /// looks back; and none looks ahead but behind white space. NFC joins nothing with a space.
    pub fn cut(self, text: &str, from: usize) -> usize {
        if self == Self::Whole {
            return text.len();
        }
        let from = text.floor_char_boundary(from.min(text.len()));
        let mut behind = text[..from].chars().next_back();
        for (at, c) in text[from..].char_indices() {
            let is_glue = |before| matches!(self, Self::Spaces(glue) if glue == before);
            let parts = |before: char| {
                !is_space(before) && Class::of(before) != Class::Space && !is_glue(before)
            };
            if c == ' ' && behind.is_some_and(parts) {
                return from + at;
            }
            behind = Some(c);
        }
        text.len()
    }
}

/// What SentencePiece takes for a space: the space, and the character it writes for one.
pub(super) fn is_space(c: char) -> bool {
    c == ' ' || c == '\u{2581}'
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
///
/// Where numbers stand alone, each was cut out before: for all other words, a text ends before it.
fn gpt2(text: &str, numbers_alone: bool) -> usize {
    let first = text.chars().next().unwrap_or(' ');
    if first == '\'' {
        let bytes = text.as_bytes();
        match (bytes.get(1), bytes.get(2)) {
            (Some(b's' | b't' | b'm' | b'd'), _) => return 2,
            (Some(b'r' | b'v'), Some(b'e')) | (Some(b'l'), Some(b'l')) => return 3,
            _ => {}
        }
    }
    let begin = usize::from(first == ' ');
    let class = text[begin..].chars().next().map_or(Class::Space, Class::of);
    match class {
        Class::Number if numbers_alone && begin == 1 => 1,
        Class::Number if numbers_alone => first.len_utf8(),
        Class::Space => space(text, numbers_alone),
        class => run(text, begin, |c| Class::of(c) == class),
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
///
/// With the most numbers that a word may have.
fn llama3(text: &str, numbers: usize) -> usize {
    let mut chars = text.chars();
    let first = chars.next().unwrap_or(' ');
    let second = chars.next();
    if first == '\'' {
        let third = chars.next().map(|c| c.to_ascii_lowercase());
        match (second.map(|c| c.to_ascii_lowercase()), third) {
            (Some('s' | 't' | 'm' | 'd'), _) => return 2,
            // The long s is an s in lower case.
            (Some('\u{17f}'), _) => return 3,
            (Some('r' | 'v'), Some('e')) | (Some('l'), Some('l')) => return 3,
            _ => {}
        }
    }
    let class = Class::of(first);
    let second_class = second.map(Class::of);
    let is_letter = |c| Class::of(c) == Class::Letter;
    let is_break = |c| matches!(c, '\r' | '\n');
    match class {
        Class::Letter => return run(text, first.len_utf8(), is_letter),
        Class::Number => {
            let mut left = numbers;
            return run(text, 0, |c| {
                let takes = left > 0 && Class::of(c) == Class::Number;
                left = left.saturating_sub(1);
                takes
            });
        }
        _ if second_class == Some(Class::Letter) && !is_break(first) => {
            return run(text, first.len_utf8(), is_letter);
        }
        _ => {}
    }
    let begin = usize::from(first == ' ' && second_class == Some(Class::Other));
    if class == Class::Other || begin == 1 {
        let end = run(text, begin, |c| Class::of(c) == Class::Other);
        return run(text, end, is_break);
    }
    let end = run(text, 0, |c| Class::of(c) == Class::Space);
    match text.as_bytes()[..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(last) => last + 1,
        None => space(text, false),
    }
}

/// `\s+(?!\S)|\s+`: white space up to a text's end; before a word, all but its last character, which may
/// belong to the word; or that character alone.
fn space(text: &str, ends_before_number: bool) -> usize {
    let end = run(text, 0, |c| Class::of(c) == Class::Space);
    let Some(next) = text[end..].chars().next() else { return end };
    if ends_before_number && Class::of(next) == Class::Number {
        return end;
    }
    match text[..end].char_indices().next_back() {
        Some((last, _)) if last > 0 => last,
        _ => end,
    }
}

/// Where the characters from `from` on that are `wanted` end.
fn run(text: &str, from: usize, mut wanted: impl FnMut(char) -> bool) -> usize {
    let behind = &text[from..];
    let end = behind.char_indices().find(|&(_, c)| !wanted(c));
    from + end.map_or(behind.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::pre_tokenizers::digits::Digits;
    use tokenizers::pre_tokenizers::sequence::Sequence;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
        SplitDelimiterBehavior,
    };

    const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    fn oracles() -> Vec<(Rule, PreTokenizerWrapper)> {
        let split = |pattern: &str| -> PreTokenizerWrapper {
            let pattern = SplitPattern::Regex(pattern.into());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap().into()
        };
        let gpt2 = || -> PreTokenizerWrapper { ByteLevel::new(false, false, true).into() };
        let digits = Sequence::new(vec![Digits::new(true).into(), gpt2()]);
        vec![
            (Rule::Gpt2, gpt2()),
            (Rule::Gpt2Digits, digits.into()),
            (Rule::Llama3, split(LLAMA3)),
            (Rule::Qwen2, split(QWEN2)),
        ]
    }

    fn theirs(oracle: &PreTokenizerWrapper, text: &str) -> Vec<usize> {
        let mut words = PreTokenizedString::from(text);
        oracle.pre_tokenize(&mut words).unwrap();
        let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(_, (from, to), _)| to - from).collect()
    }

    fn ours(rule: Rule, mut text: &str) -> Vec<usize> {
        let mut words = Vec::new();
        while !text.is_empty() {
            words.push(rule.word(text));
            text = &text[words[words.len() - 1]..];
        }
        words
    }

    /// Characters of all classes, and all that a rule names.
    const KINDS: &[char] = &[
        ' ',
        '\n',
        '\r',
        '\t',
        '\u{85}',
        '\u{a0}',
        '\u{3000}',
        'a',
        'S',
        's',
        'l',
        'L',
        'v',
        'E',
        'e',
        '\u{17f}',
        '\u{e9}',
        '\u{5b57}',
        '\u{1d400}',
        '1',
        '9',
        '\u{b2}',
        '\u{2167}',
        '\u{663}',
        '\'',
        '.',
        '_',
        '\u{301}',
        '\u{1f600}',
        '\u{0}',
        '\u{2581}',
        '\u{200b}',
    ];

    #[test]
    fn all_short_texts_of_all_kinds() {
        for (rule, oracle) in oracles() {
            for &a in KINDS {
                for &b in KINDS {
                    for &c in KINDS {
                        let text = String::from_iter([a, b, c, 'e', '1']);
                        let text = &text[..text.len() - 2 + usize::from(b == 'l') * 2];
                        assert_eq!(ours(rule, text), theirs(&oracle, text), "{rule:?} {text:?}");
                    }
                }
            }
        }
    }

    fn check_characters(chars: impl Iterator<Item = char>) {
        // Digits asks the standard library what a number is, whose Unicode is newer.
        let agreed = |c: &char| c.is_numeric() == (Class::of(*c) == Class::Number);
        let chars: Vec<char> = chars.filter(agreed).collect();
        for (rule, oracle) in oracles() {
            for chars in chars.chunks(64) {
                let text: String =
                    chars.iter().flat_map(|&c| ['a', c, '1', c, ' ', c, '.']).collect();
                assert_eq!(ours(rule, &text), theirs(&oracle, &text), "{rule:?} {text:?}");
            }
        }
    }

    #[test]
    fn characters_at_the_borders_of_classes() {
        let chars = (1..0x11_0000).filter_map(char::from_u32);
        let before = |c: char| char::from_u32(c as u32 - 1).map(Class::of);
        check_characters(chars.filter(|&c| before(c) != Some(Class::of(c))));
    }

    #[test]
    #[ignore = "takes minutes: every character there is"]
    fn every_character() {
        check_characters((0..0x11_0000).filter_map(char::from_u32));
    }

    #[test]
    fn random_texts() {
        let kind = prop::sample::select(KINDS).prop_map(String::from);
        let pieces =
            prop_oneof![4 => kind, 1 => "\\PC{0,3}", 1 => "'(s|re|LL|x)", 1 => "[ \n]{1,4}"];
        let texts = prop::collection::vec(pieces, 0..30).prop_map(|pieces| pieces.concat());
        let oracles = oracles();
        proptest!(ProptestConfig::with_cases(500), |(text in texts)| {
            for (rule, oracle) in &oracles {
                prop_assert_eq!(ours(*rule, &text), theirs(oracle, &text), "{:?}", rule);
                let cut = rule.cut(&text, text.len() / 3);
                let (before, behind) = text.split_at(cut);
                let both = [ours(*rule, before), ours(*rule, behind)].concat();
                prop_assert_eq!(both, ours(*rule, &text), "{:?} cut at {}", rule, cut);
            }
        });
    }

    #[test]
    fn words_of_sentencepiece_begin_at_spaces() {
        assert_eq!(ours(Rule::Spaces('\0'), " a b  c\u{2581} d "), [2, 2, 3, 5, 1]);
        assert_eq!(ours(Rule::Spaces('b'), " a b  c\u{2581} d "), [2, 5, 5, 1]);
        assert_eq!(ours(Rule::EachSpace, " a b  c\u{2581} d "), [2, 2, 1, 2, 3, 2, 1]);
        assert_eq!(ours(Rule::Whole, " a b"), [4]);
    }
}
