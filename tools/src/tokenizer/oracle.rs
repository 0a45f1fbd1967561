//! The converted table against the `tokenizers` library reading the same file.

use std::path::Path;

use cerebellum::terminal::quoted;
use cerebellum::text::{EncodeOptions, Encoder, TokenTable};

use super::error::{TokenizerError, invalid};

/// What differs between tokenizers, in a few lines.
const TEXT: &str = "Hello, world! It's o'clock; they'll've won't I'M WE'RE 'S 'LL\n\n\nfive\r\n\tsix\t \t seven   \
    0123456789 12 345 6,789.01 ٣٤٥ ½ Ⅷ ² \u{a0}\u{2003}\u{3000}\u{200b}\u{feff}x\u{85}\u{2028}y ĠĊ Ġthe ▁▁a ▁b \
    👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷🇩🇪 e\u{301} n\u{303} A\u{30a} \u{212b} 한\u{1112}\u{1161}\u{11ab} 日本語のテキスト、中文文本。한국어 ไทย हिन्दी שלום مرحبا \
    Zażółć naïve café — “quotes” \0\u{1}\u{7f}\u{ad}\u{fffd}\u{10ffff} aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \
    def f(x):\n    return {'a': x[0]}  # `code`\n\n\tif x != y && z >= 1: pass  > </b> https://example.org/a?b=c&d=%20#e ";

/// Compares the tokens that a table and the library make of a text, and of the built-in one.
///
/// # Errors
/// [`TokenizerError::Invalid`], with the line that they disagree about. A file that the library cannot read is not
/// compared.
pub fn compare(json: &[u8], path: &Path, table: &[u8], text: &str) -> Result<(), TokenizerError> {
    let Ok(library) = tokenizers::Tokenizer::from_bytes(json) else { return Ok(()) };
    let table = TokenTable::parse(table)
        .map_err(|source| TokenizerError::Table { path: path.into(), source })?;
    let encoder = Encoder::new(&table);
    let mut plain = library.clone();
    plain.set_encode_special_tokens(true);
    for (parse_special, library) in [(true, &library), (false, &plain)] {
        for text in TEXT.lines().chain([TEXT]).chain(text.lines()) {
            let ours = encoder.encode(text, EncodeOptions { parse_special, ..Default::default() });
            let theirs = library.encode_fast(text, false);
            let same = match (&ours, &theirs) {
                (Ok(ours), Ok(theirs)) => ours == theirs.get_ids(),
                // Where the vocabulary has no token for a byte, the library leaves it out.
                (Err(_), _) => true,
                (_, Err(_)) => false,
            };
            if !same {
                let text = quoted(text);
                let what = format!(
                    "the converted tokenizer makes other tokens of {text} than the tokenizers library"
                );
                return Err(invalid(path, what));
            }
        }
    }
    Ok(())
}
