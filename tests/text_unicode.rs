//! `src/text/unicode/data.rs` is what this writes of other crates' data: `UPDATE_UNICODE=1 cargo test --test
//! text_unicode`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use regex_syntax::hir::{Class, HirKind};
use unicode_normalization_alignments::char::{
    canonical_combining_class, compose, decompose_canonical,
};

const HEAD: &str = "//! Unicode's properties, as compact tables. Written by `tests/text_unicode.rs`.
//!
//! Letters, numbers, white space and word characters are those of regex-syntax 0.8 (Unicode 16.0). What NFC
//! needs is that of unicode-normalization-alignments 0.1 (Unicode 9.0), by which tokenizers have normalized
//! the texts that models were trained on: a newer version would give them tokens they never saw.
";

/// Characters of a block: the second step of looking a character up.
const BLOCK: u32 = 256;

/// Whether each scalar value matches a class of the regular expression crate.
fn matching(class: &str) -> Vec<bool> {
    let hir = regex_syntax::parse(class).unwrap();
    let HirKind::Class(Class::Unicode(class)) = hir.kind() else { panic!("{class} is no class") };
    let mut matches = vec![false; 0x11_0000];
    for range in class.ranges() {
        matches[range.start() as usize..=range.end() as usize].fill(true);
    }
    matches
}

fn chars() -> impl Iterator<Item = char> {
    (0..0x11_0000).filter_map(char::from_u32)
}

fn is_hangul(c: char) -> bool {
    ('\u{ac00}'..='\u{d7a3}').contains(&c)
}

/// Full canonical decompositions of all that have one, but for Hangul.
fn decompositions() -> BTreeMap<char, Vec<char>> {
    let decomposed = |c: char| {
        let mut parts = Vec::new();
        decompose_canonical(c, |part| parts.push(part));
        (c, parts)
    };
    chars().filter(|&c| !is_hangul(c)).map(decomposed).filter(|(c, parts)| parts != &[*c]).collect()
}

/// Each decomposition in one step, into one or two characters: `(composed, first, second)`.
fn steps(full: &BTreeMap<char, Vec<char>>) -> Vec<(char, char, Option<char>)> {
    let step = |(&composed, parts): (&char, &Vec<char>)| {
        let (last, first) = parts.split_last().unwrap();
        match first {
            [] => (composed, *last, None),
            [one] => (composed, *one, Some(*last)),
            several => {
                let of_several = |(_, parts): &(&char, &Vec<char>)| parts.as_slice() == several;
                let (first, _) = full.iter().find(of_several).expect("decompositions are pairs");
                (composed, *first, Some(*last))
            }
        }
    };
    full.iter().map(step).collect()
}

fn rows(out: &mut String, head: &str, values: &[String]) {
    write!(out, "\n{head} = [").unwrap();
    let mut width = 200;
    for value in values {
        if width + value.len() > 105 {
            out.push_str("\n   ");
            width = 4;
        }
        write!(out, " {value},").unwrap();
        width += value.len() + 2;
    }
    out.push_str("\n];\n");
}

fn data() -> String {
    let full = decompositions();
    let steps = steps(&full);
    let is_composed =
        |(c, a, b): &(char, char, Option<char>)| b.is_some_and(|b| compose(*a, b) == Some(*c));
    let [letters, numbers, spaces, words] = [r"\p{L}", r"\p{N}", r"\s", r"\w"].map(matching);
    let mut unstable = vec![false; 0x11_0000];
    for c in chars().filter(|&c| canonical_combining_class(c) != 0) {
        unstable[c as usize] = true;
    }
    for step in &steps {
        match step {
            (_, _, Some(second)) if is_composed(step) => unstable[*second as usize] = true,
            (composed, ..) => unstable[*composed as usize] = true,
        }
    }
    // Vowels and final consonants of Hangul.
    unstable[0x1161..0x1176].fill(true);
    unstable[0x11a8..0x11c3].fill(true);

    let properties = |c: u32| {
        let at = c as usize;
        let class = if letters[at] {
            1
        } else if numbers[at] {
            2
        } else if spaces[at] {
            3
        } else {
            0
        };
        class | u8::from(words[at]) << 2 | u8::from(unstable[at]) << 3
    };
    let (mut indices, mut blocks) = (Vec::new(), Vec::<Vec<u8>>::new());
    for first in (0..0x11_0000).step_by(BLOCK as usize) {
        let pairs = (first..first + BLOCK).step_by(2);
        let block: Vec<u8> = pairs.map(|c| properties(c) | properties(c + 1) << 4).collect();
        let known = blocks.iter().position(|known| *known == block);
        indices.push(known.unwrap_or_else(|| {
            blocks.push(block);
            blocks.len() - 1
        }));
    }
    // The last blocks are all alike; what lies behind the table is like its last.
    while indices.len() > 1 && indices[indices.len() - 2] == *indices.last().unwrap() {
        indices.pop();
    }

    let mut classes = Vec::new();
    let mut last = 0;
    for c in 0..0x11_0000 {
        let class = char::from_u32(c).map_or(0, canonical_combining_class);
        if class != last {
            classes.push(format!("{:#x}", c << 8 | u32::from(class)));
            last = class;
        }
    }

    let mut composed: Vec<usize> = (0..steps.len()).filter(|&i| is_composed(&steps[i])).collect();
    composed.sort_by_key(|&i| (steps[i].1, steps[i].2));
    let mut seconds: Vec<u32> = steps.iter().map(|step| step.2.map_or(0, u32::from)).collect();
    seconds.sort_unstable();
    seconds.dedup();
    let parts = steps.iter().map(|(_, first, second)| {
        let second = seconds.binary_search(&second.map_or(0, u32::from)).unwrap();
        assert!(u32::from(*first) < 1 << 18);
        format!("{:#x}", second << 18 | *first as usize)
    });
    let parts: Vec<_> = parts.collect();
    let begins = |&i: &usize| i == 0 || steps[i].0 as u32 != steps[i - 1].0 as u32 + 1;
    assert!(steps.len() < 1 << 12);
    let runs =
        (0..steps.len()).filter(begins).map(|i| format!("{:#x}", (steps[i].0 as usize) << 12 | i));
    let runs: Vec<_> = runs.collect();

    let mut out = String::from(HEAD);
    let indices: Vec<_> = indices.iter().map(ToString::to_string).collect();
    let bytes: Vec<_> = blocks.concat().iter().map(ToString::to_string).collect();
    let seconds: Vec<_> = seconds.iter().map(|second| format!("{second:#x}")).collect();
    let composed: Vec<_> = composed.iter().map(ToString::to_string).collect();
    out.push_str("\n/// Number of each 256 characters' block; the last counts for all behind it.\n#[rustfmt::skip]");
    rows(&mut out, &format!("pub static BLOCKS: [u8; {}]", indices.len()), &indices);
    out.push_str("\n/// Four bits a character, the even one's the lower: bits 0 and 1, 1 a letter, 2 a number, 3 white space;\n/// bit 2, a character of words; bit 3, NFC may change it or what is before it.\n#[rustfmt::skip]");
    rows(&mut out, &format!("pub static PROPERTIES: [u8; {}]", bytes.len()), &bytes);
    out.push_str("\n/// Canonical combining classes: the first character of each run (from bit 8), and the run's class.\n#[rustfmt::skip]");
    rows(&mut out, &format!("pub static COMBINING: [u32; {}]", classes.len()), &classes);
    out.push_str("\n/// Runs of characters that decompose canonically, but for Hangul: the first character of each (from bit 12),\n/// and the place of its parts.\n#[rustfmt::skip]");
    rows(&mut out, &format!("pub static DECOMPOSED: [u32; {}]", runs.len()), &runs);
    out.push_str("\n/// What they decompose into in one step: a first character, and the place (from bit 18) of a second.\n#[rustfmt::skip]");
    rows(&mut out, &format!("pub static PARTS: [u32; {}]", parts.len()), &parts);
    out.push_str("\n/// The second characters; 0 is none.\n#[rustfmt::skip]");
    rows(&mut out, &format!("pub static SECONDS: [u32; {}]", seconds.len()), &seconds);
    out.push_str(
        "\n/// The places of the parts that compose again, in the order of the two.\n#[rustfmt::skip]",
    );
    rows(&mut out, &format!("pub static COMPOSITIONS: [u16; {}]", composed.len()), &composed);
    out
}

#[test]
fn the_tables_are_those_of_the_crates() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/text/unicode/data.rs");
    let expected = data();
    if std::env::var_os("UPDATE_UNICODE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == expected, "out of date: UPDATE_UNICODE=1 cargo test --test text_unicode");
}
