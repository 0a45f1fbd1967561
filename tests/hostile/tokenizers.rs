//! Tokenizer tables (`docs/tokenizer-format.md`) that ask for much.

use std::collections::HashMap;
use std::time::Duration;

use cerebellum::text::{EncodeOptions, TextError, TokenTable, Tokenizer, layout};
use cerebellum_tools::tokenizer::blob::{self, Added, Parts};

use crate::bombs::TIME;
use crate::class::{Class, MEMORY, Outcome};
use crate::exercise::Ran;
use crate::random::Random;

/// A table's header; the counts are those of tokens, added tokens, slots of merges, bytes of text.
fn header([tokens, added, merges, text]: [u32; 4]) -> Vec<u8> {
    let mut table = layout::MAGIC.to_vec();
    table.extend([2, 0, layout::BYTE_LEVEL_BPE, layout::SPLIT_GPT2]);
    let fields = [0, tokens, 0, added, 0, text, 0, merges, layout::NONE, 0];
    table.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    table
}

/// A sound table of these tokens, the last `added` of them added ones. Merges name the two tokens.
fn table(tokens: &[Vec<u8>], added: usize, merges: &[(u32, u32)]) -> Vec<u8> {
    let ids: HashMap<_, _> = tokens.iter().zip(0..).collect();
    let both = |a: u32, b: u32| [a, b].map(|id| tokens[id as usize].as_slice()).concat();
    let first = tokens.len() - added;
    blob::write(&Parts {
        kind: layout::BYTE_LEVEL_BPE,
        rule: layout::SPLIT_GPT2,
        bytes: (0..=255).map(|byte| ids.get(&vec![byte]).copied()).collect(),
        tokens: tokens.to_vec(),
        added: (first..tokens.len())
            .map(|id| Added { id: id as u32, ..Added::default() })
            .collect(),
        merges: merges.iter().map(|&(a, b)| (a, b, ids[&both(a, b)])).collect(),
        ..Parts::default()
    })
    .unwrap()
}

/// Parses a table, and encodes and decodes a text with it.
fn run(class: &mut Class, case: &str, table: &[u8]) -> Outcome {
    let text = "aa b\u{e9}".repeat(100);
    class.attempt(case, table.len(), || {
        let read = || -> Result<(), TextError> {
            let tokenizer = Tokenizer::from(TokenTable::parse(table)?);
            let ids = tokenizer.encode(&text, EncodeOptions::PARSE_SPECIAL.at_the_beginning())?;
            tokenizer.table().decode_into(&ids, &mut Vec::new());
            Ok(())
        };
        Ok(Ran { damaged: Vec::new(), tokenizer: read().map_err(Into::into), evaluation: Ok(()) })
    })
}

/// All single bytes, then `aa`, `aaaa`, ...: each the merge of the one before with itself, and the last
/// such merge some more times.
fn doubling(doublings: u32, repetitions: usize) -> Vec<u8> {
    let longer = (1..=doublings).map(|i| vec![b'a'; 1 << i]);
    let texts: Vec<_> = bytes().into_iter().chain(longer).collect();
    let merge = |i| if i == 0 { (97, 97) } else { (255 + i, 255 + i) };
    let merges = (0..doublings).map(merge).chain(vec![merge(doublings - 1); repetitions]);
    table(&texts, 0, &merges.collect::<Vec<_>>())
}

/// A token for each byte.
fn bytes() -> Vec<Vec<u8>> {
    (0..=255).map(|byte| vec![byte]).collect()
}

#[test]
fn small() {
    let values = [0, 1, 2, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, u32::MAX - 1, u32::MAX];
    let mut class = Class::with_bounds("tokenizers of 1 KiB", MEMORY, TIME);
    for (a, b) in values.iter().flat_map(|a| values.map(|b| (*a, b))) {
        for counts in [[a, b, 0, 0], [0, 0, a, b], [a, 0, b, 0], [0, a, 0, b]] {
            let mut table = header(counts);
            table.resize(1024, 0);
            run(&mut class, &format!("{counts:?}"), &table);
        }
    }
    class.print();
}

#[test]
fn of_a_mebibyte() {
    let size = 1 << 20;
    let mut class = Class::with_bounds("tokenizers of 1 MiB", MEMORY, Duration::from_secs(2));
    let mut random = Random::new(4);
    let mut text = |bytes: usize| -> Vec<u8> {
        let char = |_| char::from_u32(0x100 + random.below(0x700) as u32).expect("no surrogate");
        (0..bytes / 2).map(char).collect::<String>().into_bytes()
    };
    let numbered = |count: u32, size: usize| -> Vec<Vec<u8>> {
        (0..count).map(|i| format!("{i:0size$x}").into_bytes()).collect()
    };
    let with_bytes = |more: Vec<Vec<u8>>| [bytes(), more].concat();
    let mut accepted = |case: &str, table: &[u8]| {
        run(&mut class, case, table).expect(case, &["runs"]);
    };
    accepted("long token", &table(&with_bytes(vec![text(size)]), 0, &[]));
    accepted("many tokens", &table(&with_bytes(numbered(65_536, 4)), 0, &[]));
    accepted("ids without a token", &table(&with_bytes(vec![Vec::new(); size / 4]), 0, &[]));
    accepted("long merges", &doubling(16, 100));
    accepted("added tokens", &table(&with_bytes(numbered(16_384, 4)), 16_384, &[]));
    accepted("long added tokens", &table(&with_bytes(vec![text(1 << 15); 1]), 1, &[]));

    // Nothing is built from a table, so nothing of it is too much.
    accepted("long added token", &table(&with_bytes(vec![text(size)]), 1, &[]));
    let tokens = (0..100).map(|_| text(size / 100)).collect();
    accepted("100 added tokens", &table(&with_bytes(tokens), 100, &[]));
    accepted("many added tokens", &table(&with_bytes(numbered(65_536, 4)), 65_536, &[]));
    accepted("added tokens much alike", &table(&with_bytes(numbered(1000, 1000)), 1000, &[]));
    accepted("repeated merges", &doubling(16, 50_000));
    class.print();
}
