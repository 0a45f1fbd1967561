//! `src/text/unicode/data.rs` is what this writes of other crates' data: `UPDATE_UNICODE=1 cargo test --test
//! text_unicode`.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt::{Display, LowerHex, Write};
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

const PROPERTIES: &str = "Four bits a character, the even one's the lower: bits 0 and 1, 1 a letter, 2 a number, 3 white space;
bit 2, a character of words; bit 3, NFC may change it or what is before it.";

const RUNS_OF: &str = "A run's value in the upper four bits, its length in the others; if that is 0, in the bytes that follow, of which
the last is less than 128, and the first has its lowest seven bits. A group of runs has 64 bytes.";

const PART_SECONDS: &str = "And the place of a second, with bit 7 if the two do not compose again; the first is of the plane of what
decomposes. Without a second 0x7F, or 0xFF if the first is of plane 2.";

/// Bytes of a group of runs.
const GROUP: usize = 64;

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

/// Writes the table `name` of numbers of a type, in decimal if that is a byte, with what is said of it; `condition`
/// is the attribute that it has, if any.
fn table<T: Copy + LowerHex + Display>(
    out: &mut String,
    condition: &str,
    comment: &str,
    name: &str,
    values: &[T],
) {
    let number = type_name::<T>();
    let values = values.iter().map(|value| match number {
        "u32" | "u64" => format!("{value:#x}"),
        _ => value.to_string(),
    });
    for line in comment.lines() {
        write!(out, "\n/// {line}").unwrap();
    }
    write!(out, "{condition}\n#[rustfmt::skip]").unwrap();
    write!(out, "\npub static {name}: [{number}; {}] = [", values.len()).unwrap();
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

/// Runs of characters with one value each, as [`RUNS_OF`] says: the first character of each group, and the bytes.
fn runs(values: &[u8], bits: u32) -> (Vec<u32>, Vec<u8>) {
    let short = (1 << (8 - bits)) - 1;
    let (mut firsts, mut bytes, mut at) = (Vec::new(), Vec::<u8>::new(), 0);
    while at < values.len() {
        let length = values[at..].iter().take_while(|value| **value == values[at]).count();
        if bytes.len().is_multiple_of(GROUP) {
            firsts.push(at as u32);
        }
        // A run that does not fit into the group is two.
        let left = GROUP - bytes.len() % GROUP;
        let fits = if left > 4 { length } else { length.min(short) };
        at += fits;
        let value = values[at - 1];
        assert!(u32::from(value) < 1 << bits);
        if fits <= short {
            bytes.push(value << (8 - bits) | fits as u8);
        } else {
            bytes.push(value << (8 - bits));
            let mut rest = fits;
            while rest > 0x7F {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
    }
    (firsts, bytes)
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
        let at = known.unwrap_or_else(|| {
            blocks.push(block);
            blocks.len() - 1
        });
        indices.push(u8::try_from(at).unwrap());
    }
    // The last blocks are all alike; what lies behind the table is like its last.
    while indices.len() > 1 && indices[indices.len() - 2] == *indices.last().unwrap() {
        indices.pop();
    }

    let all: Vec<u8> = (0..0x11_0000).map(properties).collect();
    let latin: Vec<u8> = (0..256).step_by(2).map(|c| all[c] | all[c + 1] << 4).collect();
    let (property_firsts, property_runs) = runs(&all, 4);

    let class = |c: u32| char::from_u32(c).map_or(0, canonical_combining_class);
    let class_of: Vec<u8> = (0..0x11_0000).map(class).collect();
    let mut classes = class_of.clone();
    classes.sort_unstable();
    classes.dedup();
    let index = |class: &u8| classes.binary_search(class).unwrap() as u8;
    let (class_firsts, class_runs) = runs(&class_of.iter().map(index).collect::<Vec<_>>(), 6);
    let begins = |&c: &usize| class_of[c] != c.checked_sub(1).map_or(0, |before| class_of[before]);
    let combining: Vec<u32> =
        (0..0x11_0000).filter(begins).map(|c| (c as u32) << 8 | u32::from(class_of[c])).collect();

    let pair = |step: &(char, char, Option<char>)| {
        let [whole, first] = [step.0, step.1].map(u64::from);
        is_composed(step).then(|| first << 42 | step.2.map_or(0, u64::from) << 21 | whole)
    };
    let mut composed: Vec<u64> = steps.iter().filter_map(pair).collect();
    composed.sort_unstable();
    let mut seconds: Vec<u32> = steps.iter().filter_map(|step| step.2.map(u32::from)).collect();
    seconds.sort_unstable();
    seconds.dedup();
    assert!(seconds.len() < 0x7F);
    let parts: Vec<(u16, u8)> = steps
        .iter()
        .map(|step| {
            let (whole, first, second) = (step.0 as u32, step.1 as u32, step.2);
            let place =
                second.map(|second| seconds.binary_search(&u32::from(second)).unwrap() as u8);
            let plane = place.map_or(0, |_| whole >> 16);
            assert!(first >> 16 == plane || place.is_none() && first >> 16 == 2);
            let code = match place {
                Some(place) if is_composed(step) => place,
                Some(place) => place | 0x80,
                None if first < 0x1_0000 => 0x7F,
                None => 0xFF,
            };
            (first as u16, code)
        })
        .collect();
    let (firsts, codes): (Vec<u16>, Vec<u8>) = parts.into_iter().unzip();
    let begins = |&i: &usize| i == 0 || steps[i].0 as u32 != steps[i - 1].0 as u32 + 1;
    assert!(steps.len() < 1 << 12);
    let decomposed: Vec<u32> =
        (0..steps.len()).filter(begins).map(|i| (steps[i].0 as u32) << 12 | i as u32).collect();

    let (fast, short) =
        ("\n#[cfg(feature = \"tables\")]", "\n#[cfg(any(test, not(feature = \"tables\")))]");
    let mut out = String::from(HEAD);
    let to = &mut out;
    table(
        to,
        fast,
        "Number of each 256 characters' block; the last counts for all behind it.",
        "BLOCKS",
        &indices,
    );
    table(to, fast, PROPERTIES, "PROPERTIES", &blocks.concat());
    table(to, short, "The same of the first 256 characters.", "LATIN", &latin);
    table(
        to,
        short,
        "The first character of each group of runs with the same properties.",
        "PROPERTY_FIRSTS",
        &property_firsts,
    );
    table(to, short, RUNS_OF, "PROPERTY_RUNS", &property_runs);
    table(
        to,
        fast,
        "Canonical combining classes: the first character of each run (from bit 8), and the run's class.",
        "COMBINING",
        &combining,
    );
    table(to, short, "All canonical combining classes.", "CLASSES", &classes);
    table(
        to,
        short,
        "The first character of each group of runs with the same class.",
        "CLASS_FIRSTS",
        &class_firsts,
    );
    table(
        to,
        short,
        "As `PROPERTY_RUNS`, of places in `CLASSES`, which have six bits.",
        "CLASS_RUNS",
        &class_runs,
    );
    table(
        to,
        "",
        "Runs of characters that decompose canonically, but for Hangul: the first character of each (from bit 12),\nand the place of its parts.",
        "DECOMPOSED",
        &decomposed,
    );
    table(
        to,
        "",
        "What they decompose into in one step: the lower 16 bits of a first character.",
        "PARTS",
        &firsts,
    );
    table(to, "", PART_SECONDS, "PART_SECONDS", &codes);
    table(to, "", "The second characters.", "SECONDS", &seconds);
    table(
        to,
        fast,
        "The pairs of characters that compose, in order: the first (from bit 42), the second (from bit 21), and both.",
        "COMPOSITIONS",
        &composed,
    );
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
