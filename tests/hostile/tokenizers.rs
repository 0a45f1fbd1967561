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
    let text = "aa b\u{e9} e\u{301}\u{323}\u{2581}\u{2581}12 \u{65e5}\n\n<a> <b>".repeat(30);
    class.attempt(case, table, || {
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

/// A sound table of this kind, by this rule, with bytes, characters, merges and added tokens of all flags.
fn sound(kind: u8, rule: u8, flags: u32) -> Vec<u8> {
    let more =
        ["aa", "\u{e9}", "b\u{e9}", "\u{65e5}", "\u{301}", "  ", "12", "<a>", "<b>", "e\u{301}"];
    let tokens: Vec<_> = bytes().into_iter().chain(more.map(|text| text.into())).collect();
    let characters = [257, 259, 260];
    let added =
        [(263, layout::SPECIAL | layout::LSTRIP), (264, layout::RSTRIP | layout::SINGLE_WORD)];
    let added = added.into_iter().chain([(265, layout::NORMALIZED | layout::IN_VOCABULARY)]);
    blob::write(&Parts {
        kind,
        rule,
        flags,
        glue: Some('>').filter(|_| rule == layout::SPLIT_SPACES),
        bytes: (0..256).map(Some).collect(),
        index: if kind == layout::SENTENCEPIECE_BPE { characters.into() } else { vec![256, 262] },
        added: added.map(|(id, flags)| Added { id, flags, ..Added::default() }).collect(),
        merges: vec![(97, 97, 256), (98, 257, 258), (32, 32, 261), (49, 50, 262)],
        tokens,
        ..Parts::default()
    })
    .unwrap()
}

/// Where the order of the added tokens, the index and the merges lie in a table, and its end.
fn places(table: &[u8]) -> [usize; 4] {
    let field = |at: usize| u32::from_le_bytes(table[at..][..4].try_into().unwrap()) as usize;
    let [tokens, more, added, text, index, merges] = [12, 16, 20, 28, 32, 36].map(field);
    let order_at =
        layout::HEADER_BYTES + layout::BYTE_TOKENS_BYTES + added * layout::ADDED_TOKEN_BYTES;
    let text_at =
        order_at + added * layout::ORDER_BYTES + (tokens + more + 1) * layout::OFFSET_BYTES;
    let (index_at, end) = (text_at + text, table.len());
    assert_eq!(end, index_at + index * layout::INDEX_BYTES + merges * layout::MERGE_BYTES);
    [order_at, index_at, index_at + index * layout::INDEX_BYTES, end]
}

/// Searches must end where a table has not the order that they count on, and where no slot is empty.
#[test]
fn without_order_and_without_empty_slots() {
    let mut class = Class::with_bounds("tokenizers out of order", MEMORY, TIME);
    let mut random = Random::new(9);
    let flags =
        [0, layout::NFC, layout::WHOLE_WORDS, layout::HEADER_FLAGS, layout::ADD_PREFIX_SPACE];
    let rules = layout::SPLIT_NONE..=layout::SPLIT_EACH_SPACE;
    for (kind, rule, flags) in [layout::BYTE_LEVEL_BPE, layout::SENTENCEPIECE_BPE]
        .into_iter()
        .flat_map(|kind| rules.clone().map(move |rule| (kind, rule)))
        .flat_map(|(kind, rule)| flags.map(|flags| (kind, rule, flags)))
    {
        let table = sound(kind, rule, flags);
        let name = |damage: &str| format!("{damage}, kind {kind}, rule {rule}, flags {flags}");
        run(&mut class, &name("sound"), &table).expect("sound", &["runs"]);
        let [order_at, index_at, merges_at, end] = places(&table);
        let order_end = order_at + 3 * layout::ORDER_BYTES;
        let mut damaged = |damage: &str, change: &mut dyn FnMut(&mut [u8])| {
            let mut table = table.clone();
            change(&mut table);
            // All that may not be is checked where it is used: such a table is taken.
            run(&mut class, &name(damage), &table).expect(damage, &["runs"]);
        };
        // Every slot taken: by one merge or token, by all that there are, by ones that grow nothing.
        for (pair, id) in [((97, 97), 97u64), ((97, 97), 256), ((32, 97), 32), ((98, 256), 256)] {
            damaged("full of one merge", &mut |table| {
                let merge = layout::pair(pair.0, pair.1) | id << (2 * layout::ID_BITS);
                for slot in table[merges_at..end].chunks_exact_mut(layout::MERGE_BYTES) {
                    slot[..8].copy_from_slice(&merge.to_le_bytes());
                    slot[8..].fill(0);
                }
            });
        }
        damaged("full of merges", &mut |table| {
            for slot in table[merges_at..end].chunks_exact_mut(layout::MERGE_BYTES) {
                let [a, b, id] = [0; 3].map(|_: u32| random.below(270) as u32);
                let merge = layout::pair(a, b) | u64::from(id) << (2 * layout::ID_BITS);
                slot[..8].copy_from_slice(&merge.to_le_bytes());
                slot[8..].copy_from_slice(&(random.below(9) as u32).to_le_bytes());
            }
        });
        for id in [0, 97, 257, 265, u32::MAX - 1] {
            damaged("full index", &mut |table| {
                let slots = table[index_at..merges_at].chunks_exact_mut(layout::INDEX_BYTES);
                slots.for_each(|slot| slot.copy_from_slice(&id.to_le_bytes()));
            });
        }
        damaged("reversed merges", &mut |table| {
            let slots = table[merges_at..end].rchunks_exact(layout::MERGE_BYTES);
            let reversed: Vec<u8> = slots.flatten().copied().collect();
            table[merges_at..end].copy_from_slice(&reversed);
        });
        for order in [[2, 1, 0], [0, 0, 0], [1, 0, 2], [3, 7, u32::MAX]] {
            damaged("order of added tokens", &mut |table| {
                let bytes: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
                table[order_at..order_end].copy_from_slice(&bytes);
            });
        }
        damaged("random bytes", &mut |table| {
            table[index_at..end].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
        });
    }
    class.print();
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
