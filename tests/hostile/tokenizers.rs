//! Tokenizer tables (`docs/tokenizer-format.md`) that ask for much.

use std::time::Duration;

use cerebellum::text::{EncodeOptions, TextError, TokenTable, Tokenizer, layout};

use crate::bombs::TIME;
use crate::class::{Class, MEMORY, Outcome};
use crate::exercise::Ran;
use crate::random::Random;

/// A table's first 24 bytes; the counts are those of tokens, added tokens, merges, bytes of text.
fn header(counts: [u32; 4]) -> Vec<u8> {
    let mut table = layout::MAGIC.to_vec();
    table.extend([1, 0, layout::BYTE_LEVEL_BPE, layout::USE_REGEX]);
    table.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
    table
}

/// A sound table of these tokens, the last `added` of them added ones.
fn table(tokens: &[Vec<u8>], added: usize, merges: &[(u32, u32)]) -> Vec<u8> {
    let text = tokens.concat();
    let counts = [tokens.len(), added, merges.len(), text.len()].map(|count| count as u32);
    let mut table = header(counts);
    for id in tokens.len() - added..tokens.len() {
        table.extend((id as u32).to_le_bytes());
        table.push(0);
    }
    let mut offset = 0;
    table.extend(0u32.to_le_bytes());
    for token in tokens {
        offset += token.len() as u32;
        table.extend(offset.to_le_bytes());
    }
    table.extend(text);
    table.extend(merges.iter().flat_map(|(a, b)| [*a, *b]).flat_map(u32::to_le_bytes));
    table
}

/// Parses a table, and encodes and decodes a text with it.
fn run(class: &mut Class, case: &str, table: &[u8]) -> Outcome {
    let text = "aa b\u{e9}".repeat(100);
    class.attempt(case, table.len(), || {
        let read = || -> Result<(), TextError> {
            let tokenizer = Tokenizer::from(TokenTable::parse(table)?);
            let ids = tokenizer.encode(&text, EncodeOptions { parse_special: true })?;
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
    // A real encoder takes several times its table, so the bound is a multiple of it.
    let mut class = Class::with_bounds("tokenizers of 1 MiB", 64 * size, Duration::from_secs(2));
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

    let mut refused = |case: &str, table: &[u8]| {
        run(&mut class, case, table).expect(case, &["tokenizer"]);
    };
    refused("long added token", &table(&with_bytes(vec![text(size)]), 1, &[]));
    let tokens = (0..100).map(|_| text(size / 100)).collect();
    refused("100 added tokens", &table(&with_bytes(tokens), 100, &[]));
    refused("many added tokens", &table(&with_bytes(numbered(65_536, 4)), 65_536, &[]));
    refused("added tokens much alike", &table(&with_bytes(numbered(1000, 1000)), 1000, &[]));
    refused("too long merges", &doubling(16, 50_000));
    class.print();
}
