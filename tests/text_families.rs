//! Every family's tokenizer against the `tokenizers` library: the published form of its `tokenizer.json`, over a
//! small vocabulary.
//!
//! `CEREBELLUM_TEXTS=100000` compares so many texts of each family, otherwise 400.
#![cfg(feature = "text")]

#[path = "common/families.rs"]
mod families;

use cerebellum::text::layout;

use families::{
    PARSE, check_bytes, comparable, families, gemma, gpt_neox, llama2, llama3, qwen2, smollm,
};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }
}

const NASTY: &[&str] = &[
    " ",
    "  ",
    "   ",
    "\u{2581}",
    "\u{2581}\u{2581}",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\u{a0}",
    "\u{3000}",
    "\u{85}",
    "'s",
    "'S",
    "'\u{17f}",
    "'ll",
    "'LL",
    "'re",
    "'",
    "1",
    "23",
    "456",
    "\u{663}",
    "\u{b2}",
    "\u{2167}",
    "e\u{301}",
    "e",
    "\u{301}",
    "\u{323}",
    "\u{e9}",
    "\u{1100}\u{1161}\u{11a8}",
    "\u{ac00}",
    "\u{212b}",
    "\u{1d15e}",
    "\u{fb1d}",
    "\u{340}",
    "日本",
    "日本語",
    "🙂",
    "👍🏽",
    "\0",
    "\u{fffd}",
    "\u{10ffff}",
    ".",
    ",",
    "!?",
    "->",
    "<",
    ">",
    "</",
    "> </",
    "<0x0A>",
    "|",
    "the",
    " the",
    "The",
    " king",
    "ing",
    " t",
    "e t",
    "> t",
    "str",
    "a",
    "aa",
    "aaaa",
    "Żółć",
    "ру́сский",
    "العربية",
    "हिन्दी",
    "\u{feff}",
    "\u{200b}",
    "x==y",
    "{\"a\": 1}",
    "https://a.b/c?d=1",
];

/// A text of nasty parts, added tokens and parts of them, and characters of all kinds.
fn text(random: &mut Random, added: &[String]) -> String {
    let mut text = String::new();
    for _ in 0..random.below(14) {
        match random.below(10) {
            0..5 => text.push_str(random.of(NASTY)),
            5 => {
                let token = &added[random.below(added.len())];
                let ends: Vec<usize> = token.char_indices().map(|(at, _)| at).collect();
                match random.below(3) {
                    0 => text.push_str(&token[ends[random.below(ends.len())]..]),
                    1 => text.push_str(&token[..ends[random.below(ends.len())]]),
                    _ => text.push_str(token),
                }
            }
            6 => {
                let limit = [0x80, 0x800, 0x3000, 0x1_0000, 0x11_0000][random.below(5)];
                text.extend(char::from_u32(random.below(limit) as u32));
            }
            7 => (0..random.below(9))
                .for_each(|_| text.push(char::from(b'a' + random.below(26) as u8))),
            8 => {
                let part = random.of(NASTY);
                (0..random.below(6)).for_each(|_| text.push_str(part));
            }
            _ => text.push_str(random.of(&[
                " once upon a time",
                "there was",
                " 3.14 ",
                "Mother said",
            ])),
        }
    }
    comparable(text)
}

#[test]
fn encodes_as_the_library_does() {
    let texts: usize =
        std::env::var("CEREBELLUM_TEXTS").map_or(400, |texts| texts.parse().unwrap());
    std::thread::scope(|scope| {
        for family in families() {
            scope.spawn(move || {
                let mut random = Random(family.name.len() as u64);
                for part in NASTY {
                    family.check(part);
                    family.check(&part.repeat(70));
                }
                for token in &family.added {
                    family.check(token);
                    family.check(&format!("a {token}  b{token}{token} \n{token}"));
                }
                for _ in 0..texts {
                    family.check(&text(&mut random, &family.added));
                }
                println!("{}: 0 differences in {texts} texts", family.name);
            });
        }
    });
}

/// What the fuzz target `text` starts from, and what was once a fault.
#[test]
fn texts_of_the_fuzz_target_are_encoded_alike() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hostile/text");
    let texts = std::fs::read_dir(directory).unwrap();
    let texts = texts.map(|entry| check_bytes(&std::fs::read(entry.unwrap().path()).unwrap()));
    assert!(texts.count() >= 13);
}

#[test]
fn encodes_every_character_as_the_library_does() {
    let families = [qwen2(), gpt_neox(), llama2(), gemma(false)];
    let step = if std::env::var_os("CEREBELLUM_TEXTS").is_some() { 1 } else { 41 };
    let chars: Vec<char> = (0..0x11_0000).step_by(step).filter_map(char::from_u32).collect();
    std::thread::scope(|scope| {
        for family in &families {
            let chars = &chars;
            scope.spawn(move || {
                for chars in chars.chunks(64) {
                    let text: String =
                        chars.iter().flat_map(|&c| [c, 'e', c, ' ', c, '\u{301}', c]).collect();
                    family.check(&text);
                }
            });
        }
    });
}

#[test]
fn long_runs_take_time_linear_in_their_length() {
    for family in families() {
        for unit in [
            "a", " ", "1", "\n", "\u{e9}", "e\u{301}", "\u{301}", "日本", "> ", "e t", "\0",
            "\u{2581}", "the",
        ] {
            family.check(&unit.repeat(1_500 / unit.len()));
            let text = unit.repeat(400_000 / unit.len());
            assert!(!family.ours.encode(&text, PARSE).unwrap().is_empty());
        }
    }
}

#[test]
fn pieces_give_the_tokens_of_the_whole() {
    let mut random = Random(7);
    for family in families() {
        for _ in 0..20 {
            let text: String = (0..300).map(|_| text(&mut random, &family.added)).collect();
            family.check(&text);
            let (mut pieces, mut last) = (Vec::new(), usize::MAX);
            let encoder = cerebellum::text::Encoder::new(family.ours.table());
            encoder
                .encode_in_pieces(&text, PARSE, &mut |tokens, rest| {
                    assert!(rest <= last);
                    assert!(encoder.least_tokens(rest, PARSE) <= text.len());
                    last = rest;
                    pieces.extend_from_slice(tokens);
                    std::ops::ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!((last, pieces), (0, family.ours.encode(&text, PARSE).unwrap()));
        }
    }
}

#[test]
fn texts_come_back() {
    for family in families() {
        for text in ["Once upon a time", "  two  spaces ", "日本語 🙂\n\n\ttab", "", "\u{0}a"]
        {
            // Of a text that begins with a space, these do not know whether it was its own.
            if family.name.contains("Metaspace") && text.starts_with(' ') {
                continue;
            }
            assert_eq!(family.decoded(text), text, "{}", family.name);
        }
    }
}

#[test]
fn the_table_says_what_begins_a_text() {
    let wanted = |family: families::Family| family.ours.table().begin_of_text();
    assert_eq!(wanted(llama2()), Some(1));
    assert_eq!(wanted(smollm()), None);
    let llama3 = llama3();
    let bos = llama3.ours.table().added_token_id("<|begin_of_text|>");
    assert!(bos.is_some() && llama3.ours.table().begin_of_text() == bos);
    assert_eq!(gemma(false).ours.table().split_rule(), layout::SPLIT_SPACES);
    assert_eq!(gemma(true).ours.table().split_rule(), layout::SPLIT_NONE);
}
