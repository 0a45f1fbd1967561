//! Texts in formats of our own, as text files hold them.

use alloc::borrow::Cow;
use alloc::string::String;

use super::TextError;

/// A text in one of the library's own formats (a template, a label, an example, choices) without what
/// editors and systems put into files beside the text: a byte order mark at the beginning, and the carriage
/// return of each line's end.
///
/// Prompts and texts to be measured are not such formats: there every character counts.
///
/// # Errors
/// [`TextError::OutOfMemory`].
pub fn plain_text(text: &str) -> Result<Cow<'_, str>, TextError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The end of a text that was taken from a line is that line's.
    let text = text.strip_suffix('\r').unwrap_or(text);
    if !text.contains("\r\n") {
        return Ok(Cow::Borrowed(text));
    }
    let (mut plain, bytes) = (String::new(), text.len());
    plain.try_reserve(bytes).map_err(|_| TextError::OutOfMemory { bytes })?;
    for line in text.split_inclusive("\r\n") {
        match line.strip_suffix("\r\n") {
            Some(line) => plain.extend([line, "\n"]),
            None => plain.push_str(line),
        }
    }
    Ok(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_files_are_no_text() {
        for (text, plain) in [
            ("", ""),
            ("a b", "a b"),
            ("\u{feff}a\r\nb\r\n", "a\nb\n"),
            ("alarm\r", "alarm"),
            ("a\rb\n\r\nc", "a\rb\n\nc"),
            ("a\u{feff}", "a\u{feff}"),
        ] {
            assert_eq!(plain_text(text).unwrap(), plain, "{text:?}");
        }
    }
}
