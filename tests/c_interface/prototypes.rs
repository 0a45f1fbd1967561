//! The functions that `include/cerebellum.h` declares.

use std::fs;
use std::path::Path;

/// A function of the header.
#[derive(Clone, Debug)]
pub struct Prototype {
    pub name: String,
    pub returns: String,
    pub parameters: Vec<Parameter>,
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

/// All functions, in the header's order.
pub fn read(header: &Path) -> Vec<Prototype> {
    let text = fs::read_to_string(header).unwrap();
    let code = without_comments(&text);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with('#'));
    let code = lines.collect::<Vec<_>>().join(" ");
    code.split([';', '{', '}']).filter_map(prototype).collect()
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in text.split("/*").enumerate() {
        out.push_str(if i == 0 { part } else { part.split_once("*/").unwrap().1 });
    }
    out
}

fn prototype(declaration: &str) -> Option<Prototype> {
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
    name.starts_with("cbl_").then_some(Prototype { name, returns, parameters })
}
