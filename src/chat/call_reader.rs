//! Finds a call of a tool in an answer.

use core::mem::take;

use super::calls::{CallMark, CallNotation};

/// A piece of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerPiece<'a> {
    /// What the model says to the user.
    Text(&'a str),
    /// It calls the tool with this name.
    Call(&'a str),
    /// A part of the arguments of the call, which together are a JSON object.
    Arguments(&'a str),
}

/// Reads an answer piece by piece, and tells calls from text.
#[derive(Debug)]
pub struct CallReader {
    mark: String,
    is_at_beginning: bool,
    /// What stands between the mark and the arguments, for each tool, with the tool's name.
    heads: Vec<(String, String)>,
    /// Text of which it is not certain yet what it is.
    held: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// No call so far.
    Text,
    /// Behind the mark.
    Head,
    Arguments(Object),
    /// Behind the arguments.
    After,
    /// No call will follow.
    Rest,
}

impl CallReader {
    /// For answers with calls of these tools.
    pub fn new<'n>(notation: &CallNotation, names: impl IntoIterator<Item = &'n str>) -> Self {
        let before: String = notation.before.iter().map(|part| part.text()).collect();
        let head = |name: &str| (format!("{before}{name}{}", notation.between), name.to_owned());
        let (mark, is_at_beginning) = match &notation.mark {
            CallMark::Part(mark) => (mark.text().to_owned(), false),
            CallMark::Beginning(mark) => (mark.clone(), true),
        };
        let heads = names.into_iter().map(head).collect();
        Self { mark, is_at_beginning, heads, held: String::new(), place: Place::Text }
    }

    /// Takes a piece of the answer's text, and passes on what has become certain.
    pub fn push(&mut self, text: &str, on_piece: &mut impl FnMut(AnswerPiece)) {
        self.held.push_str(text);
        while self.step(on_piece) {}
    }

    /// Passes on what was held back, at the end of the answer.
    pub fn finish(&mut self, on_piece: &mut impl FnMut(AnswerPiece)) {
        if matches!(self.place, Place::Text | Place::Rest) {
            self.pass(self.held.len(), on_piece);
        }
    }

    /// Whether the answer has a call whose arguments are complete.
    pub fn has_called(&self) -> bool {
        matches!(self.place, Place::After)
    }

    /// Whether there may be more to be done with what is held.
    fn step(&mut self, on_piece: &mut impl FnMut(AnswerPiece)) -> bool {
        match &mut self.place {
            Place::Text if self.is_at_beginning => {
                if self.held.starts_with(&self.mark) {
                    self.held.drain(..self.mark.len());
                    self.place = Place::Head;
                } else if !self.mark.starts_with(&self.held) {
                    self.place = Place::Rest;
                } else {
                    return false;
                }
                true
            }
            Place::Text => match self.held.find(&self.mark) {
                Some(at) => {
                    self.pass(at, on_piece);
                    self.held.drain(..self.mark.len());
                    self.place = Place::Head;
                    true
                }
                None => {
                    let is_begun = |at: &usize| self.mark.starts_with(&self.held[*at..]);
                    let starts = self.held.char_indices().map(|(at, _)| at);
                    let certain = starts.into_iter().find(is_begun);
                    self.pass(certain.unwrap_or(self.held.len()), on_piece);
                    false
                }
            },
            Place::Head => {
                let is_here = |(head, _): &&(String, String)| self.held.starts_with(head);
                if let Some((head, name)) = self.heads.iter().find(is_here) {
                    on_piece(AnswerPiece::Call(name));
                    self.held.drain(..head.len());
                    self.place = Place::Arguments(Object::default());
                    return true;
                }
                if self.heads.iter().any(|(head, _)| head.starts_with(&self.held)) {
                    return false;
                }
                // Not under a constraint: then it is text.
                self.held.insert_str(0, &self.mark);
                self.place = Place::Rest;
                true
            }
            Place::Arguments(object) => {
                let text = take(&mut self.held);
                let end = object.follow(&text);
                let (arguments, rest) = text.split_at(end.unwrap_or(text.len()));
                if !arguments.is_empty() {
                    on_piece(AnswerPiece::Arguments(arguments));
                }
                if end.is_some() {
                    self.held.push_str(rest);
                    self.place = Place::After;
                }
                false
            }
            Place::After => false,
            Place::Rest => {
                self.pass(self.held.len(), on_piece);
                false
            }
        }
    }

    /// Passes on so many bytes of text.
    fn pass(&mut self, bytes: usize, on_piece: &mut impl FnMut(AnswerPiece)) {
        if bytes > 0 {
            on_piece(AnswerPiece::Text(&self.held[..bytes]));
            self.held.drain(..bytes);
        }
    }
}

/// Follows a JSON object to its end.
#[derive(Debug, Default)]
struct Object {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Object {
    /// Takes text. Where the object ends in it, if it does.
    fn follow(&mut self, text: &str) -> Option<usize> {
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if take(&mut self.is_escaped) => {}
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' if !self.in_string => self.depth += 1,
                b'}' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::CallPart;
    use super::*;

    fn notation(mark: CallMark) -> CallNotation {
        CallNotation {
            opening: Vec::new(),
            mark,
            before: vec![CallPart::Text("\n{\"name\": \"".into())],
            between: "\", \"arguments\": ".into(),
            after: "}\n</tool_call>".into(),
        }
    }

    fn read(reader: &mut CallReader, text: &str, at_once: usize) -> (String, String, String) {
        let (mut said, mut called, mut arguments) = Default::default();
        let mut take = |piece: AnswerPiece| match piece {
            AnswerPiece::Text(text) => String::push_str(&mut said, text),
            AnswerPiece::Call(name) => String::push_str(&mut called, name),
            AnswerPiece::Arguments(text) => String::push_str(&mut arguments, text),
        };
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(at_once) {
            reader.push(&piece.iter().collect::<String>(), &mut take);
        }
        reader.finish(&mut take);
        (said, called, arguments)
    }

    #[test]
    fn calls_are_told_from_text_however_it_comes() {
        let notation = notation(CallMark::Part(CallPart::Text("<tool_call>".into())));
        let arguments = r#"{"city": "}\"{", "n": {"a": [1]}}"#;
        let call = format!(
            "<tool_call>\n{{\"name\": \"weather\", \"arguments\": {arguments}}}\n</tool_call>"
        );
        for at_once in [1, 2, 3, 7, 1000] {
            let read = |text: &str| {
                let mut reader = CallReader::new(&notation, ["weather_at", "weather"]);
                let (said, called, arguments) = read(&mut reader, text, at_once);
                (said, called, arguments, reader.has_called())
            };
            let told = |said: &str, called: &str, arguments: &str, done| {
                (said.to_owned(), called.to_owned(), arguments.to_owned(), done)
            };
            let spoken = "A <b> and é <tool_";
            assert_eq!(read(spoken), told(spoken, "", "", false));
            let both = format!("Let me see. <{call}");
            assert_eq!(read(&both), told("Let me see. <", "weather", arguments, true));
            let cut = &call[..call.len() - 20];
            assert_eq!(read(cut), told("", "weather", &arguments[..arguments.len() - 6], false));
            assert_eq!(read(&call[..20]), told("", "", "", false));
            let other = "<tool_call>\n{\"name\": \"other\"}";
            assert_eq!(read(other), told(other, "", "", false));
        }
    }

    #[test]
    fn a_mark_at_the_beginning_counts_only_there() {
        let mut notation = notation(CallMark::Beginning("{\"name\": \"".into()));
        notation.before.clear();
        for at_once in [1, 4, 1000] {
            let read = |text: &str| {
                let mut reader = CallReader::new(&notation, ["f"]);
                read(&mut reader, text, at_once)
            };
            let call = "{\"name\": \"f\", \"arguments\": {}}";
            assert_eq!(read(call), (String::new(), "f".into(), "{}".into()));
            let text = format!("It is {call}");
            assert_eq!(read(&text), (text.clone(), String::new(), String::new()));
            assert_eq!(read("{\"na").0, "{\"na");
        }
    }
}
