//! The tokenizer against the `tokenizers` library reading the original files, and against damage.
#![cfg(feature = "text")]

use std::path::{Path, PathBuf};

use cerebellum::text::{EncodeOptions, Encoder, TextError, TokenTable, Tokenizer, Utf8Stream};
use cerebellum_tools::tokenizer::{TokenType, Vocabulary, from_vocabulary, import};
use proptest::prelude::*;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

const PARSE: EncodeOptions = EncodeOptions::PARSE_SPECIAL;
const PLAIN: EncodeOptions = EncodeOptions { parse_special: false, begin_of_text: false };

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name)
}

/// A tokenizer of ours beside the library's, which loaded the original files by itself.
struct Pair {
    name: &'static str,
    ours: Tokenizer<Vec<u8>>,
    parse: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer,
}

impl Pair {
    fn new(name: &'static str, vocab_size: u32, library: tokenizers::Tokenizer) -> Self {
        let imported = import(&data(name), vocab_size).unwrap().unwrap();
        assert_eq!((imported.tokens, imported.unused_ids), (vocab_size as usize, 0));
        let mut plain = library.clone();
        plain.set_encode_special_tokens(true);
        let ours = Tokenizer::parse(imported.blob).unwrap();
        Self { name, ours, parse: library, plain }
    }

    fn demo() -> Self {
        let library = tokenizers::Tokenizer::from_file(data("demo/tokenizer.json")).unwrap();
        Self::new("demo", 4096, library)
    }

    fn gpt2() -> Self {
        let [vocab, merges] =
            ["vocab.json", "merges.txt"].map(|f| data("gpt2").join(f).to_str().unwrap().to_owned());
        let mut library =
            tokenizers::Tokenizer::new(BPE::from_file(&vocab, &merges).build().unwrap());
        library.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        library.add_special_tokens([tokenizers::AddedToken::from("<|endoftext|>", true)]).unwrap();
        Self::new("gpt2", 50257, library)
    }

    /// The demo's with added tokens of every kind, and with or without a space before every text.
    fn with_added_tokens(prefix_space: bool) -> Self {
        let file = std::fs::read(data("demo/tokenizer.json")).unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&file).unwrap();
        json["pre_tokenizer"]["add_prefix_space"] = prefix_space.into();
        let kinds = [
            ("<left>", "lstrip"),
            ("[r1!]", "rstrip"),
            ("word", "single_word"),
            ("a b", "normalized"),
            ("1a", "special"),
            ("!x 2", "special"),
        ];
        for (id, (content, kind)) in (4096..).zip(kinds) {
            let mut token = serde_json::json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": false,
            });
            token[kind] = true.into();
            json["added_tokens"].as_array_mut().unwrap().push(token);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        let parse = tokenizers::Tokenizer::from_file(&path).unwrap();
        let mut plain = parse.clone();
        plain.set_encode_special_tokens(true);
        let blob = import(directory.path(), 4096 + kinds.len() as u32).unwrap().unwrap().blob;
        Self { name: "added", ours: Tokenizer::parse(blob).unwrap(), parse, plain }
    }

    /// Checks ids against the library, and that the ids decode to the text, byte for byte.
    fn check(&self, text: &str) {
        self.check_ids(text);
        for options in [PARSE, PLAIN] {
            let ids = self.ours.encode(text, options).unwrap();
            let mut bytes = Vec::new();
            self.ours.table().decode_into(&ids, &mut bytes);
            assert_eq!(bytes, text.as_bytes(), "{}, {options:?}: {text:?}", self.name);
        }
    }

    /// Checks ids against the library.
    fn check_ids(&self, text: &str) {
        for (options, library) in [(PARSE, &self.parse), (PLAIN, &self.plain)] {
            let ids = self.ours.encode(text, options).unwrap();
            let expected = library.encode(text, false).unwrap();
            assert_eq!(ids, expected.get_ids(), "{}, {options:?}: {text:?}", self.name);
        }
    }
}

/// Texts at which tokenizers differ from one another.
fn nasty_texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "a",
        "\0",
        "\0\u{1}\u{7f}\u{80}\u{9f}\u{ad}",
        "Hello, world! It's o'clock; they'll've won't I'M WE'RE",
        "one  two   three    four\n\n\nfive\r\n\tsix\t \t seven   ",
        "\u{a0}\u{2003}\u{3000}\u{200b}\u{feff}x\u{85}\u{2028}y",
        "0123456789 12 345 6,789.01 ٣٤٥ ½ Ⅷ ²",
        "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷🇩🇪 1️⃣",
        "e\u{301} n\u{303} Z\u{335}\u{321}\u{353}\u{353}a\u{300}\u{301}\u{302}l",
        "日本語のテキスト、中文文本。한국어 텍스트 ไทย",
        "שלום עולם مرحبا بالعالم \u{202e}rtl\u{202c}",
        "ĠĊ the byte-level alphabet itself: Ġthe ĉ Ń",
        "\u{fffd}\u{ffff}\u{10ffff}\u{e000}\u{d7ff}",
        "<|endoftext|>",
        "a<|endoftext|>b <|endoftext|> <|endoftext|><|endoftext|>",
        "<|endoftext<|endoftext|>|> <|ENDOFTEXT|> <|endoftext |>",
        "def f(x):\n    return {'a': x[0]}  # `code`\n\n\tif x != y && z >= 1: pass",
        "https://example.org/a?b=c&d=%20#e user@host.tld",
        "''s''t're''ve'LL",
    ]
    .map(String::from)
    .into();
    for unit in [" ", "\n", "a", "é", "🦀", "\0", "9", "<|endoftext|>", "' ", "\u{301}"] {
        texts.extend([7, 8, 9, 1000].map(|n| unit.repeat(n)));
    }
    texts.push((0..=0x2ff).filter_map(char::from_u32).collect());
    texts
}

#[test]
fn encodes_as_the_library_does() {
    for pair in [Pair::demo(), Pair::gpt2()] {
        for text in nasty_texts() {
            pair.check(&text);
        }
    }
}

#[test]
fn encodes_random_text_as_the_library_does() {
    let (demo, gpt2) = (Pair::demo(), Pair::gpt2());
    let piece = prop_oneof![
        any::<String>(),
        "[a-zA-Z' ]{0,12}",
        "[ \t\n\r\u{a0}]{0,6}",
        "[0-9.,]{0,8}",
        Just("<|endoftext|>".to_string()),
    ];
    let text = proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    proptest!(ProptestConfig::with_cases(400), |(text in text)| {
        demo.check(&text);
        gpt2.check(&text);
    });
}

/// Bytes behind which a text is cut into pieces that are encoded one after the other.
const PIECE: usize = 4096;

/// The text so that the first cut is looked for at each of its first bytes in turn.
fn across_the_cut(text: &str, mut check: impl FnMut(&str)) {
    let before = "the ".repeat(PIECE / 4);
    for into in (0..text.len().min(30)).step_by(5) {
        check(&(before[into..].to_owned() + text + " " + text));
    }
}

#[test]
fn pieces_give_the_tokens_of_the_whole() {
    let pairs = [Pair::demo(), Pair::gpt2()];
    for text in nasty_texts().iter().filter(|text| text.len() < 200) {
        across_the_cut(text, |text| pairs.iter().for_each(|pair| pair.check(text)));
    }
    let minified = r#"{"a":1,"b":[2,"it's",3.5e-7],"c":"日本、語。"}"#.repeat(400);
    pairs.iter().for_each(|pair| pair.check(&minified));
}

#[test]
fn pieces_of_random_text_give_the_tokens_of_the_whole() {
    let pairs = [Pair::gpt2(), Pair::with_added_tokens(false), Pair::with_added_tokens(true)];
    let piece = prop_oneof![
        "[a-z1-3' ,.\n!]{1,6}",
        "[ \t\n]{1,3}",
        prop::sample::select(
            &["<left>", "[r1!]", "word", "a b", "1a", "!x 2", "'ll", "語。語", "<|endoftext|>"][..]
        )
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    let text = proptest::collection::vec(piece, 1..40).prop_map(|pieces| pieces.concat());
    proptest!(ProptestConfig::with_cases(60), |(text in text, before in 0_usize..80)| {
        let text = "the ".repeat(PIECE / 4)[before..].to_owned() + &text;
        pairs.iter().for_each(|pair| pair.check_ids(&text));
    });
}

#[test]
fn added_tokens_are_not_cut() {
    for pair in [Pair::with_added_tokens(false), Pair::with_added_tokens(true)] {
        for token in ["<left>", "[r1!]", "word", "a b", "1a", "!x 2", "<|endoftext|>"] {
            for (before, behind) in
                [("b", "c"), ("b ", "  c"), ("b  ", " 1"), ("!", "!"), ("7", "\n")]
            {
                across_the_cut(&format!("{before}{token}{behind}"), |text| pair.check_ids(text));
            }
        }
    }
}

#[test]
fn a_text_that_cannot_fit_is_refused_before_it_is_encoded() {
    let pair = Pair::gpt2();
    let fit = |text: &str, context| pair.ours.encode_within(text, PLAIN, context);
    let text = "The king went to the wood. ".repeat(10_000);
    let tokens = pair.ours.encode(&text, PLAIN).unwrap();
    assert_eq!(fit(&text, tokens.len()).unwrap(), tokens);
    for context in [0, 10, 1000, 8000] {
        match fit(&text, context).unwrap_err() {
            cerebellum::Error::TextTooLong { bytes, tokens: at_least, position, context: of } => {
                assert_eq!((bytes, position, of), (text.len(), 0, context));
                assert!(context < at_least && at_least <= tokens.len(), "{at_least}");
            }
            error => panic!("{error}"),
        }
    }
    // A text of one piece is encoded to its end, and the evaluation says what it has too many.
    assert_eq!(fit("The king", 1).unwrap().len(), 2);
    // The longest token of this vocabulary has 128 bytes.
    let spaces = " ".repeat(1 << 26);
    let error = fit(&spaces, 1024).unwrap_err().to_string();
    assert!(error.contains("67108864 bytes has at least 524288 tokens"), "{error}");
}

/// `CEREBELLUM_CORPUS=DIR cargo test --test text -- --ignored` compares whole files and reports.
#[test]
#[ignore = "needs a directory of texts in CEREBELLUM_CORPUS"]
fn encodes_a_corpus_as_the_library_does() {
    let dir = std::env::var_os("CEREBELLUM_CORPUS").expect("set CEREBELLUM_CORPUS to a directory");
    for pair in [Pair::demo(), Pair::gpt2()] {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            pair.check(&text);
            text.lines().for_each(|line| pair.check(line));
            let tokens = pair.ours.encode(&text, PARSE).unwrap().len();
            let (bytes, lines) = (text.len(), text.lines().count());
            let (name, file) = (pair.name, path.display());
            println!("{name}: {file}: 0 mismatches, {bytes} bytes, {lines} lines, {tokens} tokens");
        }
    }
}

#[test]
fn special_tokens_are_text_by_default() {
    let pair = Pair::gpt2();
    let table = pair.ours.table();
    assert_eq!(table.added_token_id("<|endoftext|>"), Some(50256));
    assert!(table.is_special(50256) && !table.is_special(50255) && !table.is_special(u32::MAX));
    let ids = pair.ours.encode("<|endoftext|>", EncodeOptions::default()).unwrap();
    assert!(!ids.contains(&50256));
    assert_eq!(pair.ours.encode("<|endoftext|>", PARSE).unwrap(), [50256]);
}

#[test]
fn streams_a_character_that_spans_tokens() {
    let pair = Pair::demo();
    let text = "👩‍👩‍👧‍👦 e\u{301}日本語";
    let ids = pair.ours.encode(text, PLAIN).unwrap();
    assert!(ids.len() > text.chars().count(), "characters must span tokens here");
    let (mut stream, mut out) = (Utf8Stream::new(), String::new());
    for id in ids {
        stream.push(pair.ours.table().token_bytes(id).unwrap(), &mut out);
        assert!(text.starts_with(&out));
    }
    assert_eq!((stream.pending(), out.as_str()), (0, text));
}

#[test]
fn a_tokenizer_can_be_shared_between_threads() {
    let pair = Pair::demo();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| pair.check("Once upon a time, there was a little cerebellum."));
        }
    });
}

/// All bytes but `0xC0` and above, four merges, a control token and a stripping one.
fn small_blob() -> Vec<u8> {
    let spell = |byte: u8| cerebellum::text::byte_level::byte_to_char(byte).to_string();
    let mut tokens: Vec<String> = (0..0xC0).map(spell).collect();
    let merges = ["a b", "ab c", "Ġ a", "Ġa b"].map(String::from);
    tokens.extend(["ab", "abc", "Ġa", "Ġab", "<end>", "<mask>", "[PAD196]"].map(String::from));
    let mut types = vec![TokenType::Normal; tokens.len()];
    types[196..].copy_from_slice(&[TokenType::Control, TokenType::UserDefined, TokenType::Unused]);
    let source = Path::new("small");
    let mut vocabulary = Vocabulary::from_lists(&tokens, &types, &merges, source).unwrap();
    vocabulary.added[1].lstrip = true;
    from_vocabulary(vocabulary, source, 200).unwrap().blob
}

/// Where each section of `small_blob` begins: tokens of bytes, added tokens, their order, offsets, text, merges,
/// end. There is no index by bytes.
const SMALL_SECTIONS: [usize; 7] = {
    let added = 48 + 4 * 256;
    let offsets = added + 2 * (12 + 4);
    let text = offsets + 4 * 199;
    [48, added, added + 2 * 12, offsets, text, text + 213, text + 213 + 12 * (5 + 128)]
};

/// Uses everything a table offers, whatever it holds.
fn use_blob(blob: &[u8]) -> Result<(), TextError> {
    let table = TokenTable::parse(blob)?;
    for id in (0..table.len() as u32 + 2).chain([u32::MAX - 1, u32::MAX]) {
        let bytes = table.token_bytes(id).unwrap_or_default();
        assert!(bytes.len() <= blob.len());
        let _ = (table.is_special(id), table.added_token(id));
    }
    let _ = (table.added_token_id("<end>"), table.begin_of_text(), table.add_prefix_space());
    let encoder = Encoder::new(&table);
    for options in [PARSE, PLAIN] {
        for text in ["abc ab <end>  <mask> cab\0", "", "  <mask>", "\u{ff}"] {
            let Ok(ids) = encoder.encode(text, options) else { continue };
            assert!(ids.iter().all(|&id| (id as usize) < table.len()));
        }
    }
    Ok(())
}

#[test]
fn a_small_table_has_the_documented_layout_and_meaning() {
    let blob = small_blob();
    assert_eq!(blob.len(), SMALL_SECTIONS[6]);
    assert_eq!(&blob[..8], b"CBTK\x02\x00\x01\x01");
    let fields: Vec<_> =
        blob[8..48].chunks(4).map(|c| i32::from_le_bytes(c.try_into().unwrap())).collect();
    assert_eq!(fields, [0, 198, 0, 2, 0, 213, 0, 133, -1, 0]);
    let tokenizer = Tokenizer::parse(blob).unwrap();
    let encode = |text, options| tokenizer.encode(text, options);
    assert_eq!(encode(" abc<end>  <mask> a", PARSE), Ok(vec![32, 193, 196, 197, 194]));
    assert_eq!(encode("<end>", PLAIN).unwrap().len(), 5);
    assert_eq!(encode("ñ", PLAIN), Err(TextError::NoTokenForByte { byte: 0xC3 }));
    assert_eq!(tokenizer.table().token_bytes(198), None);
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let blob = small_blob();
    for len in 0..blob.len() {
        let error = TokenTable::parse(&blob[..len]).unwrap_err();
        assert!(matches!(error, TextError::Length { .. }), "{len}: {error}");
    }
    for extra in [1, 4, 8, 4096] {
        let longer = [blob.as_slice(), &vec![0; extra]].concat();
        let error = TokenTable::parse(longer).unwrap_err();
        assert!(matches!(error, TextError::Length { .. }), "{error}");
    }
}

#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    let mut blob = small_blob();
    let mut refused = 0;
    for at in 0..blob.len() {
        for flip in (0..8).map(|bit| 1 << bit).chain([0xFF]) {
            blob[at] ^= flip;
            refused += usize::from(use_blob(&blob).is_err());
            blob[at] ^= flip;
        }
    }
    assert!(refused > 1000, "only {refused} flips were noticed");
    assert_eq!(use_blob(&blob), Ok(()));
}

#[test]
fn extreme_header_counts_are_refused() {
    let extremes = [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, u32::MAX - 1, u32::MAX];
    for field in [12, 20, 28, 36] {
        for value in extremes {
            for other in [12, 20, 28, 36] {
                for other_value in extremes {
                    let mut blob = small_blob();
                    blob[other..other + 4].copy_from_slice(&other_value.to_le_bytes());
                    blob[field..field + 4].copy_from_slice(&value.to_le_bytes());
                    assert!(TokenTable::parse(blob).is_err(), "{field}={value}, {other}");
                }
            }
        }
    }
}

#[test]
fn damage_is_named() {
    let patched = |at: usize, bytes: &[u8]| {
        let mut blob = small_blob();
        blob[at..at + bytes.len()].copy_from_slice(bytes);
        use_blob(&blob).unwrap_err()
    };
    let [_, added, _, offsets, text, ..] = SMALL_SECTIONS;
    assert_eq!(patched(0, b"X"), TextError::Magic);
    assert_eq!(patched(4, &[1]), TextError::OldVersion { found: 1, supported: 2 });
    assert_eq!(patched(4, &[3]), TextError::Version { found: 3, supported: 2 });
    assert_eq!(patched(6, &[9]), TextError::Kind { found: 9 });
    assert_eq!(patched(7, &[9]), TextError::Rule { found: 9 });
    assert_eq!(patched(8, &[0x82]), TextError::Flags { found: 0x82 });
    // An added token that does not exist, that is out of order, with an unknown flag, without a text.
    assert_eq!(patched(added, &[198]), TextError::AddedToken { index: 0 });
    assert_eq!(patched(added + 12, &[196]), TextError::AddedToken { index: 1 });
    assert_eq!(patched(added + 8, &[0x41]), TextError::AddedToken { index: 0 });
    assert_eq!(patched(added + 4, &[198]), TextError::AddedToken { index: 0 });
    assert_eq!(patched(24, &[3]), TextError::AddedToken { index: 2 });
    // Offsets that do not start at 0, that decrease, that leave the text, that end early.
    assert_eq!(patched(offsets, &[1]), TextError::Offset { id: 0 });
    assert_eq!(patched(offsets + 4 * 5, &[3]), TextError::Offset { id: 5 });
    assert_eq!(patched(text - 4, &[214]), TextError::Offset { id: 198 });
    assert_eq!(patched(text - 4, &[212]), TextError::Offset { id: 198 });
}

/// Wrong merges and a wrong index give wrong tokens, in time that the text and not the table bounds.
#[test]
fn merges_that_lead_nowhere_are_harmless() {
    let blob = small_blob();
    let [.., merges, end] = SMALL_SECTIONS;
    for fill in [
        [0; 12],
        [0xFF; 12],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    ] {
        let mut blob = blob.clone();
        for slot in blob[merges..end].chunks_mut(12) {
            slot.copy_from_slice(&fill);
        }
        use_blob(&blob).unwrap();
        let tokenizer = Tokenizer::parse(blob).unwrap();
        tokenizer.encode(&"abc ".repeat(10_000), PLAIN).unwrap();
        tokenizer.encode(&"\0".repeat(40_000), PLAIN).unwrap();
    }
}

#[test]
fn long_words_take_time_linear_in_their_length() {
    for pair in [Pair::demo(), Pair::gpt2()] {
        for unit in
            ["a", " ", "1", "\n", "é", "日本", "ab", "!", "\0", "<|endoftext|>", " a", "the"]
        {
            // As many as the library does in little time.
            pair.check_ids(&unit.repeat(20_000 / unit.len()));
            let text = unit.repeat(400_000 / unit.len());
            let ids = pair.ours.encode(&text, PARSE).unwrap();
            let mut bytes = Vec::new();
            pair.ours.table().decode_into(&ids, &mut bytes);
            assert!(bytes == text.as_bytes(), "{unit:?}");
        }
    }
}

#[test]
fn long_words_of_random_letters_are_those_of_the_library() {
    let pairs = [Pair::demo(), Pair::gpt2()];
    let word = prop_oneof![
        "[a-e]{900,4000}",
        "[a-zA-Z]{900,4000}",
        "(a{1,9}|b{1,9}|ab){300,900}",
        "(the|ing|s|q){400,900}"
    ];
    proptest!(ProptestConfig::with_cases(30), |(word in word)| {
        pairs.iter().for_each(|pair| pair.check_ids(&word));
    });
}

/// A vocabulary in which the last letter of a word decides about the first: of each two neighbours the right
/// ones join first, so that the pairs begin at the end.
#[test]
fn a_merge_chain_decides_from_a_words_end() {
    let letters: Vec<String> = ('a'..='z').chain('A'..='Z').map(String::from).collect();
    let letter = |at: usize| letters[at % letters.len()].clone();
    let merges: Vec<String> =
        (0..51).rev().map(|at| format!("{} {}", letter(at), letter(at + 1))).collect();
    let pairs = merges.iter().map(|merge| merge.replace(' ', ""));
    let tokens: Vec<String> = letters.iter().cloned().chain(pairs).collect();
    let types = vec![TokenType::Normal; tokens.len()];
    let source = Path::new("chain");
    let vocabulary = Vocabulary::from_lists(&tokens, &types, &merges, source).unwrap();
    let library = BPE::builder()
        .vocab_and_merges(
            tokens
                .iter()
                .cloned()
                .zip(0..)
                .collect::<std::collections::HashMap<_, _>>()
                .into_iter()
                .collect::<tokenizers::models::bpe::Vocab>(),
            merges
                .iter()
                .map(|merge| {
                    let (a, b) = merge.split_once(' ').unwrap();
                    (a.to_owned(), b.to_owned())
                })
                .collect(),
        )
        .build()
        .unwrap();
    let ours = Tokenizer::parse(from_vocabulary(vocabulary, source, 200).unwrap().blob).unwrap();
    let alphabet = letters.concat();
    for length in [1, 2, 51, 52, 63, 64, 65, 1023, 1024, 1025, 5000] {
        for skip in 0..3 {
            let word: String = alphabet.chars().cycle().skip(skip).take(length).collect();
            use tokenizers::Model;
            let expected: Vec<u32> =
                library.tokenize(&word).unwrap().iter().map(|token| token.id).collect();
            assert_eq!(ours.encode(&word, PLAIN).unwrap(), expected, "{length}");
        }
    }
}
