//! Texts that ask for much: encoding takes memory for a piece, not for the text.

use cerebellum::text::{EncodeOptions, Tokenizer};

use crate::allocations::peak_of;
use crate::base::tokenizer;

/// What encoding takes beside the tokens.
const MEMORY: usize = 128 << 10;

#[test]
fn memory_does_not_grow_with_the_text() {
    let tokenizer = Tokenizer::parse(tokenizer()).unwrap();
    let options = EncodeOptions::default();
    tokenizer.encode("ab", options).unwrap();
    let text = "ab abb cab ".repeat(60_000);
    let (tokens, memory) = peak_of(|| tokenizer.encode(&text, options).unwrap());
    // While the vector grows, there are two of them.
    assert!(memory < 3 * size_of_val(&tokens[..]) + MEMORY, "{memory} bytes");
    for context in [0, 100, 10_000] {
        let (refused, memory) = peak_of(|| tokenizer.encode_within(&text, options, context));
        assert!(refused.is_err());
        assert!(memory < MEMORY, "{memory} bytes for a context of {context}");
    }
    // A run of letters is one piece, but a length that cannot fit is seen before.
    let run = "a".repeat(2_000_000);
    let (refused, memory) = peak_of(|| tokenizer.encode_within(&run, options, 1000));
    assert!(refused.is_err() && memory < MEMORY, "{memory} bytes");
}
