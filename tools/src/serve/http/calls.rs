//! Answers that call tools.

use cerebellum::chat::{AnswerPiece, CallNotation, CallReader};
use cerebellum::constraint::Form;
use serde::Serialize;

use super::Server;
use crate::serve::refusal::Refusal;
use crate::serve::wire::tools::Tools;

/// A call of a tool, or a piece of one.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: Function,
}

#[derive(Clone, Debug, Serialize)]
struct Function {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// What an answer says, or a piece of it.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// To the user.
    pub text: String,
    /// The call.
    pub call: Option<Call>,
}

/// What answers may call, and how they do.
pub struct Calls {
    notation: CallNotation,
    tools: Tools,
}

impl Calls {
    /// Calls of these tools. `None` if an answer may call none.
    pub fn new(notation: CallNotation, tools: Tools) -> Option<Self> {
        (!tools.callable.is_empty()).then_some(Self { notation, tools })
    }

    /// The form of an answer.
    pub fn form(&self) -> Form {
        self.notation.form(&self.tools.callable, self.tools.must_call)
    }

    /// A reader of an answer.
    pub fn reader(&self, server: &Server) -> Reader {
        let names = self.tools.callable.iter().map(|(name, _)| name.as_str());
        Reader {
            reader: CallReader::new(&self.notation, names),
            id: server.call_id(),
            must_call: self.tools.must_call,
        }
    }
}

/// Reads an answer.
pub struct Reader {
    reader: CallReader,
    id: String,
    must_call: bool,
}

impl Reader {
    /// Takes a piece of text, the last one if `is_last`. What is certain with it.
    pub fn read(&mut self, text: &str, is_last: bool) -> Said {
        let mut said = Said::default();
        let mut take = |piece: AnswerPiece| match piece {
            // An answer that has to call says nothing else.
            AnswerPiece::Text(text) if !self.must_call => said.text.push_str(text),
            AnswerPiece::Call(name) => {
                said.call = Some(Call {
                    index: Some(0),
                    id: Some(self.id.clone()),
                    r#type: Some("function"),
                    function: Function { name: Some(name.to_owned()), arguments: String::new() },
                });
            }
            AnswerPiece::Arguments(text) => {
                let function = Function { name: None, arguments: String::new() };
                let more = Call { index: Some(0), id: None, r#type: None, function };
                said.call.get_or_insert(more).function.arguments.push_str(text);
            }
            _ => {}
        };
        self.reader.push(text, &mut take);
        if is_last {
            self.reader.finish(&mut take);
        }
        said
    }

    /// Reads a whole answer.
    pub fn read_all(&mut self, text: &str) -> Said {
        let Said { mut text, call } = self.read(text, true);
        if call.is_some() {
            text.truncate(text.trim_end().len());
        }
        Said { text, call: call.map(|call| Call { index: None, ..call }) }
    }

    /// Whether the answer has a whole call.
    pub fn has_called(&self) -> bool {
        self.reader.has_called()
    }
}

/// The model's template knows no tools, which a parameter asks for.
pub fn no_tools(param: &'static str) -> Refusal {
    let message = format!(
        "{param}: the chat template of this model knows no tools, or writes calls in a notation that this server does \
         not know; ask for an answer of a JSON schema by response_format"
    );
    Refusal { code: Some("unsupported_parameter"), ..Refusal::param(param, message) }
}
