//! `src/segments/data.rs` is what this writes: `UPDATE_UNICODE=1 cargo test --test segments_data`.
//!
//! The `unicode-segmentation` library keeps its tables to itself. So each character is put into texts that show
//! what kind it is: it is of the kind of the character that stands for a kind and is cut alike in all of them.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use unicode_segmentation::UnicodeSegmentation;

const HEAD: &str =
    "//! What the rules of segmentation know of characters, as a compact table. Written by
//! `tests/segments_data.rs` of what unicode-segmentation 1.13 does (Unicode 17.0).
";

/// Kinds by name, and a character that stands for each; a pictograph, which some texts tell apart, is of none.
type Kinds = &'static [(&'static str, char)];

const SENTENCE: Kinds = &[
    ("None", '%'),
    ("Return", '\r'),
    ("Feed", '\n'),
    ("Separator", '\u{2028}'),
    ("Extend", '\u{301}'),
    ("Space", ' '),
    ("Lower", 'a'),
    ("Upper", 'A'),
    ("Other", '\u{5d0}'),
    ("Number", '1'),
    ("Stop", '.'),
    ("End", '!'),
    ("Continue", ','),
    ("Close", ')'),
];
const WORD: Kinds = &[
    ("None", '%'),
    ("Return", '\r'),
    ("Feed", '\n'),
    ("Line", '\u{2028}'),
    ("Extend", '\u{301}'),
    ("Joiner", '\u{200d}'),
    ("Flag", '\u{1f1e6}'),
    ("Katakana", '\u{30a2}'),
    ("Hebrew", '\u{5d0}'),
    ("Letter", 'a'),
    ("MidLetter", ':'),
    ("MidNumber", ','),
    ("MidBoth", '.'),
    ("Single", '\''),
    ("Double", '"'),
    ("Number", '1'),
    ("Connector", '_'),
    ("Space", ' '),
];
const CLUSTER: Kinds = &[
    ("None", 'a'),
    ("Return", '\r'),
    ("Feed", '\n'),
    ("Control", '\0'),
    ("Extend", '\u{301}'),
    ("Joiner", '\u{200d}'),
    ("Spacing", '\u{e33}'),
    ("Prepend", '\u{600}'),
    ("Flag", '\u{1f1e6}'),
    ("Lead", '\u{1100}'),
    ("Vowel", '\u{1161}'),
    ("Trail", '\u{11a8}'),
    ("LeadVowel", '\u{ac00}'),
    ("LeadVowelTrail", '\u{ac01}'),
    ("None", '\u{231a}'),
];

/// Texts that show the kinds; `@` stands for the character.
const SENTENCE_TEXTS: [&str; 15] = [
    "@a", "\r@", "@\n", "a.@", "1.@", "1. @", "!@", "! @", "1@ A", "1@ a", "1.@a", ".@1", "a.@B",
    "1.)@", "!@A",
];
const WORD_TEXTS: [&str; 28] = [
    "@a",
    "a@",
    "a@a",
    "1@",
    "@1",
    "1@1",
    "\u{5d0}@",
    "\u{5d0}@\u{5d0}",
    "@\u{5d0}",
    "@\u{301}",
    "\r@",
    "@\n",
    " @",
    "@ ",
    "\u{30a2}@",
    "@\u{30a2}",
    "_@",
    "@_",
    "\u{1f1e6}@",
    "@\u{1f1e6}",
    "@\u{231a}",
    "%@",
    "@%",
    "@'",
    "a:@",
    "1,@",
    "\u{231a}@\u{231a}",
    "\u{1f1e6}@\u{1f1e6}",
];
const CLUSTER_TEXTS: [&str; 17] = [
    "@a",
    "a@",
    "\r@",
    "@\n",
    "@\u{301}",
    "\u{1100}@",
    "@\u{1161}",
    "@\u{11a8}",
    "\u{ac00}@",
    "\u{ac01}@",
    "\u{1161}@",
    "\u{11a8}@",
    "\u{1f1e6}@",
    "@\u{1f1e6}",
    "\u{231a}@\u{231a}",
    "\u{231a}@\u{200d}\u{231a}",
    "\u{1100}@\u{1161}",
];

type Cut = fn(&str) -> u64;

/// Which places of a text are cut.
fn bits<'t>(units: impl Iterator<Item = (usize, &'t str)>) -> u64 {
    units.map(|(at, _)| 1 << at).sum()
}

fn sentences(text: &str) -> u64 {
    bits(text.split_sentence_bound_indices())
}

fn words(text: &str) -> u64 {
    bits(text.split_word_bound_indices())
}

fn clusters(text: &str) -> u64 {
    bits(text.grapheme_indices(true))
}

/// Where the texts are cut, counted from the character.
fn signature(texts: &[&str], cut: Cut, c: char) -> Vec<u64> {
    let length = c.len_utf8();
    let one = |text: &&str| {
        let bits = cut(&text.replace('@', c.encode_utf8(&mut [0; 4])));
        let before = text.find('@').unwrap();
        bits & ((2 << before) - 1) | bits >> (before + length) << 32
    };
    texts.iter().map(one).collect()
}

/// The number of the kind of a character.
fn finder(kinds: Kinds, texts: &'static [&'static str], cut: Cut) -> impl Fn(char) -> usize {
    let mut known = HashMap::new();
    for (i, (name, c)) in kinds.iter().enumerate() {
        let other = known.insert(signature(texts, cut, *c), i);
        assert!(other.is_none(), "the texts do not tell {name} from {other:?}");
    }
    move |c| {
        let found = known.get(&signature(texts, cut, c));
        *found.unwrap_or_else(|| panic!("{c:?} is of no known kind among {kinds:?}"))
    }
}

/// How a character takes part in conjuncts: as a number of `CONJUNCT`.
fn conjunct(c: char) -> usize {
    let whole = |text: String| clusters(&text) == 1;
    if whole(format!("\u{915}{c}\u{915}")) {
        2
    } else if whole(format!("\u{915}\u{94d}{c}\u{915}")) {
        3
    } else {
        usize::from(whole(format!("\u{915}\u{94d}{c}")) && !whole(format!("a{c}")))
    }
}

const CONJUNCT: [&str; 4] = ["None", "Consonant", "Linker", "Extend"];

fn data() -> String {
    let sentence = finder(SENTENCE, &SENTENCE_TEXTS, sentences);
    let word = finder(WORD, &WORD_TEXTS, words);
    let cluster = finder(CLUSTER, &CLUSTER_TEXTS, clusters);
    let pictograph =
        |c: char| clusters(&format!("\u{231a}\u{200d}{c}")) == 1 && clusters(&format!("a{c}")) != 1;
    let mut kinds: Vec<String> = Vec::new();
    let mut runs: Vec<u32> = Vec::new();
    for c in (0..0x11_0000).filter_map(char::from_u32) {
        // Planes without assigned characters are of one kind each.
        let plane = u32::from(c) >> 16;
        if matches!(plane, 4..=13 | 15 | 16) && u32::from(c) & 0xFFFF > 0 {
            continue;
        }
        let kind = format!(
            "Kind {{ sentence: Sentence::{}, word: Word::{}, cluster: Cluster::{}, conjunct: Conjunct::{}, pictograph: {} }}",
            SENTENCE[sentence(c)].0,
            WORD[word(c)].0,
            CLUSTER[cluster(c)].0,
            CONJUNCT[conjunct(c)],
            pictograph(c),
        );
        let number = kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            kinds.push(kind);
            kinds.len() - 1
        });
        if runs.last().is_none_or(|last| (last & 0xFF) as usize != number) {
            runs.push(u32::from(c) << 8 | u32::try_from(number).unwrap());
        }
    }
    assert!(kinds.len() <= 64);
    let (first, runs) = packed(&runs);

    let mut out = String::from(HEAD);
    for (name, what, kinds) in [
        ("Sentence", "Sentence_Break", SENTENCE),
        ("Word", "Word_Break", WORD),
        ("Cluster", "Grapheme_Cluster_Break", CLUSTER),
    ] {
        let mut names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
        if names.last() == names.first() {
            names.pop();
        }
        enumeration(&mut out, name, what, &names);
    }
    enumeration(&mut out, "Conjunct", "Indic_Conjunct_Break", &CONJUNCT);
    out.push_str(
        "
/// A kind of characters.
#[derive(Clone, Copy)]
pub struct Kind {
    pub sentence: Sentence,
    pub word: Word,
    pub cluster: Cluster,
    pub conjunct: Conjunct,
    /// Extended_Pictographic.
    pub pictograph: bool,
}
",
    );
    write!(
        out,
        "\n/// All kinds.\n#[rustfmt::skip]\npub static KINDS: [Kind; {}] = [\n",
        kinds.len()
    )
    .unwrap();
    kinds.iter().for_each(|kind| writeln!(out, "    {kind},").unwrap());
    out.push_str("];\n");
    numbers(&mut out, "The first character of each 64 numbers of `RUNS`.", "FIRST: [u32", &first);
    let what = "Runs of characters: their kind (from bit 10) and how many they are; or 0, and then in a number of its own\n/// how many 256s they are.";
    numbers(&mut out, what, "RUNS: [u16", &runs);
    out
}

/// `RUNS` and `FIRST` of runs as their first characters (from bit 8) and their kinds.
fn packed(runs: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let (mut first, mut packed) = (Vec::new(), Vec::new());
    let ends = runs.iter().skip(1).map(|run| run >> 8).chain([0x11_0000]);
    for (&run, end) in runs.iter().zip(ends) {
        let (mut start, kind) = (run >> 8, (run & 0xFF) << 10);
        while start < end {
            if packed.len() % 64 == 0 {
                first.push(start);
            }
            let left = end - start;
            // The two numbers of a long run are not parted.
            if left < 1024 || packed.len() % 64 == 63 {
                let count = left.min(1023);
                packed.push(kind | count);
                start += count;
            } else {
                packed.extend([kind, left >> 8]);
                start += left >> 8 << 8;
            }
        }
    }
    (first, packed)
}

fn numbers(out: &mut String, what: &str, head: &str, values: &[u32]) {
    write!(out, "\n/// {what}\n#[rustfmt::skip]\npub static {head}; {}] = [", values.len())
        .unwrap();
    for (i, value) in values.iter().enumerate() {
        out.push_str(if i % 10 == 0 { "\n    " } else { " " });
        write!(out, "{value:#x},").unwrap();
    }
    out.push_str("\n];\n");
}

fn enumeration(out: &mut String, name: &str, what: &str, names: &[&str]) {
    write!(out, "\n/// {what}.\n#[derive(Clone, Copy, PartialEq, Eq)]\npub enum {name} {{\n")
        .unwrap();
    names.iter().for_each(|name| writeln!(out, "    {name},").unwrap());
    out.push_str("}\n");
}

#[test]
fn the_table_is_that_of_the_library() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/segments/data.rs");
    let expected = data();
    if std::env::var_os("UPDATE_UNICODE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == expected, "out of date: UPDATE_UNICODE=1 cargo test --test segments_data");
}
