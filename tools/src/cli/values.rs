//! Values of options: one rule for all commands, and errors that say what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use cerebellum::Error;
use cerebellum::number;
use cerebellum::sampler::SamplerOptions;

/// Parses a whole number in a range.
pub fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: TryFrom<i128> + PartialOrd + Display + Clone,
{
    move |word| number::whole("", word, range.clone()).map_err(detail)
}

/// Parses a value of the sampler's option of that name.
pub fn sampling<T: FromStr>(name: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |word| {
        SamplerOptions::default().set(name, word).map_err(detail)?;
        word.parse().map_err(|_| format!("{word:?} is not a number"))
    }
}

/// What clap, which names the option itself, is to say.
fn detail(error: Error) -> String {
    match error {
        Error::Option { detail, .. } => detail,
        error => error.to_string(),
    }
}

/// A string that ends a text.
pub fn stop(argument: &str) -> Result<String, String> {
    match unescape(argument) {
        stop if stop.is_empty() => {
            Err("it is empty and would end every text before its first token; leave it out"
                .to_owned())
        }
        stop => Ok(stop),
    }
}

/// What an argument means in which `\n` stands for a line break, `\t` for a tab and `\\` for a backslash:
/// those are hard to type in a shell. Before any other character a backslash is one.
pub fn unescape(argument: &str) -> String {
    let mut text = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let meant = match after.chars().next() {
            Some('n') => Some('\n'),
            Some('t') => Some('\t'),
            Some('\\') => Some('\\'),
            _ => None,
        };
        text.push(meant.unwrap_or('\\'));
        rest = &after[usize::from(meant.is_some())..];
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_few() {
        for (argument, text) in [
            ("", ""),
            (r"a\nb\tc\\", "a\nb\tc\\"),
            (r"\\n", r"\n"),
            (r"\frac\", r"\frac\"),
            (r"\\\n\é", "\\\n\\é"),
        ] {
            assert_eq!(unescape(argument), text, "{argument}");
        }
        assert_eq!(stop(r"\n"), Ok("\n".to_owned()));
        assert!(stop("").is_err());
    }

    #[test]
    fn numbers_out_of_range_say_the_range() {
        assert_eq!(whole(1..=64usize)("64"), Ok(64));
        assert_eq!(whole(1..=64usize)("65"), Err("65 is not in 1..=64".to_owned()));
        let words = whole(0..=u64::MAX)("-1").unwrap_err();
        assert_eq!(words, "-1 is not in 0..=18446744073709551615");
        let words = whole(1..=64usize)("many").unwrap_err();
        assert_eq!(words, "\"many\" is not a whole number in 1..=64");
        assert_eq!(sampling::<f32>("min-p")("0.5"), Ok(0.5));
        assert_eq!(sampling::<f32>("min-p")("2"), Err("2 is not in 0..=1".to_owned()));
    }
}
