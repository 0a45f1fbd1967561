//! Texts from files and from standard input. Every command reads them here.
//!
//! What is in a format of the program's own (labels, choices, templates, examples, texts on lines) is read
//! [`plain`]: without a byte order mark and the carriage returns of line ends. What a model is to see as it is
//! (a prompt, a text to measure or to calibrate on) is read [`exact`], and the user is told of what looks like
//! an accident. [`LineReader`] reads lines one by one, none of them longer than [`MAX_LINE_BYTES`].

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

use cerebellum::text::plain_text;

use super::context::{Context, Failure};

/// The most bytes of a line.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// Where a text comes from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    File(&'a Path),
    StandardInput,
}

impl<'a> Source<'a> {
    /// The file of that path; `-` is standard input.
    pub fn of(path: &'a Path) -> Self {
        if path == Path::new("-") { Self::StandardInput } else { Self::File(path) }
    }

    pub fn name(self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::StandardInput => "standard input".to_owned(),
        }
    }

    fn read(self) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        let read = match self {
            Self::File(path) => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
            Self::StandardInput => io::stdin().lock().read_to_end(&mut bytes),
        };
        let name = self.name();
        read.map_err(|e| format!("cannot read {name}: {e}"))?;
        Ok(utf8(bytes).map_err(|detail| format!("{name} is {detail}"))?)
    }
}

/// A text in a format of the program's own.
pub fn plain(source: Source) -> Result<String, Failure> {
    let text = source.read()?;
    if is_utf16(text.as_bytes()) {
        return Err(format!("{} is {UTF16}", source.name()).into());
    }
    let plain = plain_text(&text).map_err(cerebellum::Error::from)?;
    Ok(plain.into_owned())
}

/// A text as it is; says what in it looks like an accident.
pub fn exact(source: Source, context: &Context) -> Result<String, Failure> {
    let text = source.read()?;
    for accident in accidents(&text) {
        context.warn(format_args!("{} {accident}", source.name()));
    }
    Ok(text)
}

/// A prompt from standard input, unchanged except for the line end that the shell adds.
pub fn exact_prompt(context: &Context) -> Result<String, Failure> {
    Ok(without_last_newline(exact(Source::StandardInput, context)?))
}

/// A text that an argument is, or standard input's if it is `-`.
pub fn argument(text: &str) -> Result<String, Failure> {
    match text {
        "-" => Ok(without_last_newline(plain(Source::StandardInput)?)),
        text => Ok(text.to_owned()),
    }
}

fn without_last_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

const UTF16: &str = "UTF-16, and only UTF-8 is read; convert it: iconv -f UTF-16 -t UTF-8";

/// The bytes as text, or what they are instead.
fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        if is_utf16(error.as_bytes()) {
            return UTF16.to_owned();
        }
        let offset = error.utf8_error().valid_up_to();
        format!("not UTF-8 text: byte {offset} begins no character; convert it first")
    })
}

/// Whether bytes have the mark of UTF-16, or zeros in the places where western text has them in UTF-16.
fn is_utf16(bytes: &[u8]) -> bool {
    const LOOKED_AT: usize = 1 << 12;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return true;
    }
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    let zeros = |odd: usize| start.iter().skip(odd).step_by(2).filter(|&&byte| byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    start.len() >= 8 && even.max(odd) * 4 > start.len() && even.min(odd) * 8 < start.len()
}

/// What in a text looks as if it were not meant, and how to mend it.
fn accidents(text: &str) -> Vec<String> {
    if is_utf16(text.as_bytes()) {
        return vec![
            "seems to be UTF-16, and is read as UTF-8; convert it: iconv -f UTF-16 -t UTF-8".into(),
        ];
    }
    let times = |count: usize, one: &str, many: &str| match count {
        1 => one.to_owned(),
        _ => many.replace("{}", &count.to_string()),
    };
    let mut found = Vec::new();
    if text.starts_with('\u{feff}') {
        found.push(
            "begins with a byte order mark, which the model reads as text; take it out: \
             sed -i '1s/^\\xef\\xbb\\xbf//' FILE"
                .to_owned(),
        );
    }
    let returns = text.matches("\r\n").count();
    if returns > 0 {
        let lines = times(returns, "has a line that ends", "has {} lines that end");
        found.push(format!(
            "{lines} in CR LF, and the model reads the CR as text; take it out: \
             sed -i 's/\\r$//' FILE"
        ));
    }
    let zeros = text.matches('\0').count();
    if zeros > 0 {
        let zeros = times(zeros, "has a NUL character", "has {} NUL characters");
        found.push(format!("{zeros}: the file may be no text, or only a part may be text"));
    }
    let lost = text.matches('\u{fffd}').count();
    if lost > 0 {
        let lost = times(lost, "has a replacement character", "has {} replacement characters");
        found.push(format!(
            "{lost} (U+FFFD), where characters were lost when it was converted; convert the original again"
        ));
    }
    found
}

/// Lines one by one, without their ends, the first without a byte order mark.
pub struct LineReader<R> {
    reader: R,
    is_first: bool,
}

/// A line, or what is wrong with it.
pub type Line = Result<String, String>;

impl<R: BufRead> LineReader<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, is_first: true }
    }

    /// The next line. Of one that is too long nothing is kept.
    pub fn next(&mut self) -> io::Result<Option<Line>> {
        let Some(line) = self.bytes()? else { return Ok(None) };
        let is_first = std::mem::replace(&mut self.is_first, false);
        Ok(Some(line.and_then(|mut line| {
            line.pop_if(|byte| *byte == b'\r');
            let mut line = utf8(line)?;
            if is_first && line.starts_with('\u{feff}') {
                line.remove(0);
            }
            Ok(line)
        })))
    }

    fn bytes(&mut self) -> io::Result<Option<Result<Vec<u8>, String>>> {
        let (mut line, mut length) = (Vec::new(), 0);
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() && length == 0 {
                return Ok(None);
            }
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            if line.len() + part.len() <= MAX_LINE_BYTES && line.len() == length {
                line.extend_from_slice(part);
            } else {
                line = Vec::new();
            }
            let (is_over, read) = (end.is_some() || buffer.is_empty(), part.len());
            self.reader.consume(read + usize::from(end.is_some()));
            length += read;
            if is_over {
                return Ok(Some(match line.len() == length {
                    true => Ok(line),
                    false => Err(format!(
                        "the line has {length} bytes, and {MAX_LINE_BYTES} are the most; split it"
                    )),
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8], buffer: usize) -> Vec<Line> {
        let mut reader = LineReader::new(io::BufReader::with_capacity(buffer, bytes));
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    #[test]
    fn lines_have_no_marks_and_no_ends() {
        for buffer in [1, 2, 3, 100] {
            let read = lines("\u{feff}a\r\n\nb\u{feff}\r\r\n\nlast".as_bytes(), buffer);
            let want = ["a", "", "b\u{feff}\r", "", "last"].map(|line| Ok(line.to_owned()));
            assert_eq!(read, want);
            assert_eq!(lines(b"", buffer), []);
            assert_eq!(lines(b"\n", buffer), [Ok(String::new())]);
            assert_eq!(lines(b"a", buffer), [Ok("a".to_owned())]);
        }
        let read = lines(b"a\n\xff\nb", 100);
        assert!(read[1].as_ref().unwrap_err().contains("not UTF-8"), "{read:?}");
        assert_eq!((&read[0], &read[2]), (&Ok("a".to_owned()), &Ok("b".to_owned())));
        let read = lines(b"\xff\xfea\0\n\0", 100);
        assert!(read[0].as_ref().unwrap_err().contains("UTF-16"), "{read:?}");
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out() {
        let long = vec![b'x'; 3 * MAX_LINE_BYTES];
        let fits = vec![b'y'; MAX_LINE_BYTES];
        let read = lines(&[&b"a\n"[..], &long, b"\n", &fits, b"\nb\n"].concat(), 1 << 16);
        assert_eq!(read.len(), 4);
        let error = read[1].as_ref().unwrap_err();
        assert!(error.contains("50331648 bytes, and 16777216 are the most"), "{error}");
        assert_eq!(read[2].as_ref().unwrap().len(), MAX_LINE_BYTES);
        assert_eq!(read[3], Ok("b".to_owned()));
    }

    #[test]
    fn accidents_are_told() {
        let utf16 = String::from_utf8("a text".bytes().flat_map(|b| [b, 0]).collect()).unwrap();
        for (text, parts) in [
            ("a text\nof lines", &[][..]),
            ("\u{feff}a\r\nb\r\n", &["byte order mark", "2 lines that end in CR LF"]),
            ("a\r\n", &["a line that ends in CR LF"]),
            ("a\0b", &["a NUL character"]),
            ("\u{fffd}\u{fffd}", &["2 replacement characters"]),
            (&utf16, &["UTF-16"]),
        ] {
            let found = accidents(text);
            assert_eq!(found.len(), parts.len(), "{found:?}");
            assert!(found.iter().zip(parts).all(|(found, part)| found.contains(part)), "{found:?}");
        }
    }
}
