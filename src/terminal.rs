//! What files and models say, made safe to show.
//!
//! A terminal obeys some characters: they move its cursor, write over earlier lines, change its title,
//! or reorder what is read. Whoever wrote a model file chooses the names in it, and a model may make any
//! text. So whatever comes from one of them goes through here before it is shown: text by [`text`] or
//! [`write`](fn@write), names in messages by [`name`] or [`quoted`].
//!
//! A character that a terminal obeys becomes `\u` and four hexadecimal digits, as in JSON, so that JSON
//! stays JSON. Each is judged alone: text may come in pieces.

use core::fmt::{self, Display, Formatter, Write as _};
#[cfg(feature = "std")]
use std::io::{self, IsTerminal, Write};

/// Characters of a longer name that are shown from its beginning and from its end.
const HEAD: usize = 120;
const TAIL: usize = 40;

/// Whether a terminal may obey `c` instead of showing it: controls (C0, DEL, C1), and the controls of the
/// writing direction, which let a text read otherwise than it is.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text that may go to a terminal: line breaks and tabs stay.
///
/// ```
/// use cerebellum::terminal::text;
/// assert_eq!(text("a\tb\n\u{1b}[2J").to_string(), "a\tb\n\\u001b[2J");
/// ```
pub fn text(text: &str) -> impl Display {
    Text(text)
}

/// A name in a message: it stays on its line, and the middle of a long one is left out.
///
/// ```
/// use cerebellum::terminal::name;
/// assert_eq!(name("wte\n\u{202e}weight").to_string(), "wte\\u000a\\u202eweight");
/// ```
pub fn name(name: &str) -> impl Display {
    Name { name, is_quoted: false }
}

/// A [`name`] in quotation marks, for names that may be empty or have blanks; quotation marks and
/// backslashes in it are escaped.
pub fn quoted(name: &str) -> impl Display {
    Name { name, is_quoted: true }
}

struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\n' | '\t' => f.write_char(c),
            c => write_char(f, c),
        })
    }
}

struct Name<'a> {
    name: &'a str,
    is_quoted: bool,
}

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let mark = if self.is_quoted { "\"" } else { "" };
        let (head, tail) = head_and_tail(self.name);
        f.write_str(mark)?;
        self.write(head, f)?;
        if let Some(tail) = tail {
            f.write_char('…')?;
            self.write(tail, f)?;
        }
        f.write_str(mark)
    }
}

impl Name<'_> {
    fn write(&self, part: &str, f: &mut Formatter) -> fmt::Result {
        part.chars().try_for_each(|c| match c {
            '"' | '\\' if self.is_quoted => write!(f, "\\{c}"),
            c => write_char(f, c),
        })
    }
}

fn write_char(f: &mut Formatter, c: char) -> fmt::Result {
    if is_obeyed(c) { write!(f, "\\u{:04x}", u32::from(c)) } else { f.write_char(c) }
}

/// What is shown of a name: all of it, or its two ends.
fn head_and_tail(name: &str) -> (&str, Option<&str>) {
    let head = name.char_indices().nth(HEAD).map(|(at, _)| at);
    let tail = name.char_indices().nth_back(TAIL - 1).map(|(at, _)| at);
    match head.zip(tail) {
        Some((head, tail)) if head < tail => (&name[..head], Some(&name[tail..])),
        _ => (name, None),
    }
}

/// Writes a text from a file or a model: through [`text`] if `out` is a terminal, else as it is.
///
/// # Errors
/// What writing gives.
#[cfg(feature = "std")]
pub fn write(out: &mut (impl Write + IsTerminal), text: &str) -> io::Result<()> {
    match out.is_terminal() {
        // In one piece, so that lines of several threads do not mix.
        true => out.write_all(Text(text).to_string().as_bytes()),
        false => out.write_all(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last character of each range, and their neighbours.
    #[test]
    fn exactly_what_a_terminal_obeys_is_escaped() {
        let obeyed =
            "\0\u{8}\u{b}\r\u{1b}\u{1f}\u{7f}\u{80}\u{9b}\u{9f}\u{202a}\u{202e}\u{2066}\u{2069}";
        let shown = " ~\u{a0}\u{ad}\u{2029}\u{202f}\u{2065}\u{206a}é日\u{1f600}\u{fffd}";
        for c in obeyed.chars() {
            let escaped = format!("\\u{:04x}", u32::from(c));
            assert_eq!(text(&c.to_string()).to_string(), escaped);
            assert_eq!(name(&c.to_string()).to_string(), escaped);
        }
        assert_eq!(text(shown).to_string(), shown);
        assert_eq!(name(shown).to_string(), shown);
        assert_eq!(text("\n\t").to_string(), "\n\t");
        assert_eq!(name("\n\t").to_string(), "\\u000a\\u0009");
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let whole = "a\u{1b}[31m\u{1b}]0;title\u{7}\n\u{9b}1m\u{202e}é";
        let pieces: String = whole.chars().map(|c| text(&c.to_string()).to_string()).collect();
        assert_eq!(pieces, text(whole).to_string());
        assert_eq!(pieces, "a\\u001b[31m\\u001b]0;title\\u0007\n\\u009b1m\\u202eé");
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({ "a\u{9b}": "\u{7f}\u{202e}\u{1b}\n" });
        let shown = text(&value.to_string()).to_string();
        assert!(shown.is_ascii());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn long_names_lose_their_middle() {
        for (length, cut) in [(0, false), (160, false), (161, true), (5000, true)] {
            let long: String = (0..length).map(|i| ['é', 'ö'][i / 3 % 2]).collect();
            let shown = name(&long).to_string();
            assert_eq!(shown.contains('…'), cut, "{length}");
            assert_eq!(shown.chars().count(), length.min(HEAD + 1 + TAIL), "{length}");
            let (head, tail) = shown.split_once('…').unwrap_or((&shown, ""));
            assert!(long.starts_with(head) && long.ends_with(tail));
        }
        assert_eq!(quoted("a \"b\"\\\n").to_string(), r#""a \"b\"\\\u000a""#);
    }
}
