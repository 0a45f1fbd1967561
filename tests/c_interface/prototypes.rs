//! The functions that `include/cerebellum.h` declares.

use std::fs;
use std::path::Path;

/// A function of the header.
#[derive(Clone, Debug)]
pub struct Prototype {
    pub name: String,
    pub returns: String,
    pub parameters: Vec<Parameter>,
    /// The comment before it.
    pub documentation: String,
}

#[derive(Clone, Debug)]
pub struct Parameter {
    /// With one space between words, and stars at the end.
    pub kind: String,
    pub name: String,
}

impl Prototype {
    /// The declaration on one line.
    pub fn signature(&self) -> String {
        let list = |p: &Parameter| format!("{} {}", p.kind, p.name);
        let parameters: Vec<_> = self.parameters.iter().map(list).collect();
        format!("{} {}({})", self.returns, self.name, parameters.join(", "))
    }
}

impl Parameter {
    fn parse(text: &str) -> Self {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let at = text.rfind([' ', '*']).expect("a type and a name") + 1;
        let kind = text[..at].replace(" *", "*").trim().to_owned();
        Self { kind, name: text[at..].to_owned() }
    }

    pub fn is_pointer(&self) -> bool {
        self.kind.ends_with('*') || self.kind.ends_with("_callback")
    }
}

/// All functions, in the header's order. Each has a comment.
pub fn read(header: &Path) -> Vec<Prototype> {
    let text = fs::read_to_string(header).unwrap();
    let parts = text.split("/*").skip(1).map(|part| part.split_once("*/").unwrap());
    parts.filter_map(|(comment, code)| prototype(comment, code.split(';').next()?)).collect()
}

fn prototype(comment: &str, declaration: &str) -> Option<Prototype> {
    let declaration = declaration.trim();
    if declaration.starts_with("typedef") {
        return None;
    }
    let (before, parameters) = declaration.split_once('(')?;
    let parameters = parameters.strip_suffix(')')?;
    let Parameter { kind: returns, name } = Parameter::parse(before);
    let parameters = match parameters.trim() {
        "void" => Vec::new(),
        list => list.split(',').map(Parameter::parse).collect(),
    };
    let documentation = comment.to_owned();
    name.starts_with("cbl_").then_some(Prototype { name, returns, parameters, documentation })
}
