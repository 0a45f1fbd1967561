//! What the libraries below say, for whoever wrote the form.

/// Phrases that speak of the library's inside, and what they mean.
const PHRASES: [(&str, &str); 11] = [
    (
        "NoExtensionBias",
        "the model has no token that goes on with this text; allow other characters",
    ),
    ("LexerTooComplex", "it is too complex; make it simpler, or bound its repetitions"),
    ("ParserTooComplex", "it is too complex; make it simpler, or bound its repetitions"),
    (
        "lookarounds not supported yet;",
        "anchors within the text and look-around are not supported:",
    ),
    ("Enable 'coerce_one_of' option to approximate oneOf with anyOf", "use anyOf"),
    (
        "Only absolute $ref's (#/...) are supported without 'referencing' feature; ref",
        "only references into the schema itself (#/...) are supported, not",
    ),
    ("Unimplemented keys:", "not supported are"),
    ("Expected f64 for", "there must be a number at"),
    ("Unsatisfiable schema:", "nothing can follow it:"),
    ("Failed to generate regex for integer range:", "no integers lie in"),
    ("Failed to generate regex for float range:", "no numbers lie in"),
];

/// A message as one line: all that it says, without pictures and markup.
pub(super) fn reason(message: &str) -> String {
    if let Some(reason) = syntax_error(message) {
        return reason;
    }
    // What is in angle brackets is for those who debug the library.
    let lines =
        message.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('<'));
    let line = lines.collect::<Vec<_>>().join("; ");
    PHRASES.iter().fold(line, |line, (phrase, meaning)| line.replace(phrase, meaning))
}

/// The sentence in the picture that a parser of regular expressions draws:
///
/// ```text
/// regex parse error:
///     a{2,1}
///      ^^^^^
/// error: invalid repetition count range, the start must be <= the end
/// ```
fn syntax_error(message: &str) -> Option<String> {
    const INDENT: usize = 4;
    let (_, picture) = message.split_once("regex parse error:")?;
    let lines: Vec<&str> = picture.lines().filter(|line| !line.trim().is_empty()).collect();
    let error = lines.iter().find_map(|line| line.strip_prefix("error: "))?;
    // An expression of several lines has another picture, where numbers stand for lines.
    let [regex, arrows, _] = lines[..] else { return Some(error.to_owned()) };
    let at = arrows.find('^').and_then(|at| at.checked_sub(INDENT))?;
    Some(format!("{error}, at character {} of {:?}", at + 1, regex.get(INDENT..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_become_sentences() {
        let picture =
            "at 2(8): invalid regex: regex parse error:\n    a{2,1}\n     ^^^^^\nerror: bad range";
        assert_eq!(reason(picture), "bad range, at character 2 of \"a{2,1}\"");
        let lines = "regex parse error:\n~~~~\n1: a\n2: (b\n   ^\n~~~~\nerror: unclosed group";
        assert_eq!(reason(lines), "unclosed group");
        assert_eq!(
            reason("not this\n  while processing #/a\n<state>"),
            "not this; while processing #/a"
        );
        assert_eq!(reason("Unimplemented keys: [\"not\"]"), "not supported are [\"not\"]");
    }
}
