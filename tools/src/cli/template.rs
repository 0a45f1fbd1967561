//! Templates from the command line, from files and from beside a checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cerebellum::Model;
use cerebellum::format::is_template_name;
use cerebellum::template::Template;

use super::context::Failure;
use super::text_file::{self, Source};
use super::values::unescape;

/// A template's text: the argument itself if it has a place for the text, with `\n` for a line break, `\t`
/// for a tab and `\\` for a backslash; the content of a file of that name; or what the model file or the library has under that name.
pub fn template_text(model: &Model, argument: &str) -> Result<String, Failure> {
    match own_text(argument)? {
        Some(text) => Ok(text),
        None => Ok(model.template_text(argument)?.to_owned()),
    }
}

/// The template that an argument means, as [`template_text`] finds it; an error says where it was.
pub fn template(model: &Model, file: &Path, argument: &str) -> Result<Template, Failure> {
    let Some(text) = own_text(argument)? else {
        let template = model.template(argument);
        return Ok(template.map_err(|error| format!("{}: {error}", file.display()))?);
    };
    Ok(text.parse::<Template>().map_err(|error| {
        let place = if argument.contains("{text}") { "--template" } else { argument };
        format!("{place}: {error}")
    })?)
}

/// The text, unless the argument is the name of a template.
fn own_text(argument: &str) -> Result<Option<String>, Failure> {
    if argument.contains("{text}") {
        return Ok(Some(unescape(argument)));
    }
    let path = Path::new(argument);
    if path.exists() && !path.is_dir() {
        return read(path).map(Some);
    }
    if !is_template_name(argument) {
        return Err(format!(
            "the template {argument:?} has no {{text}}, and no file has that name; write {{text}} where the \
             text belongs, or give a file or the name of a template"
        )
        .into());
    }
    Ok(None)
}

fn read(path: &Path) -> Result<String, Failure> {
    text_file::plain(Source::File(path))
}

/// The files of the templates that a model file is to hold, by name: those in the folder `templates` beside
/// the checkpoint, `NAME.txt` each, and those named on the command line as `NAME=FILE`. `NAME=` leaves one
/// out.
pub fn files(checkpoint: &Path, named: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut files = BTreeMap::new();
    let folder = checkpoint.join("templates");
    if folder.is_dir() {
        let cannot = |e| format!("cannot read {}: {e}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            if path.extension().is_some_and(|extension| extension == "txt") {
                check_name(name)?;
                files.insert(name.to_owned(), path);
            }
        }
    }
    for argument in named {
        let parts = argument.split_once('=');
        let (name, path) = parts.ok_or_else(|| {
            format!("--template {argument} has no \"=\"; write a name, \"=\" and a file")
        })?;
        match path {
            "" => drop(files.remove(name)),
            path => {
                check_name(name)?;
                files.insert(name.to_owned(), path.into());
            }
        }
    }
    Ok(files)
}

fn check_name(name: &str) -> Result<(), Failure> {
    if is_template_name(name) {
        return Ok(());
    }
    let detail = "a name has lower-case letters, digits and hyphens only";
    Err(format!("{name:?} cannot be the name of a template: {detail}").into())
}

/// The templates in [`files`]. One that cannot be used is found before the model is quantized.
pub fn for_file(files: BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, String>, Failure> {
    let templates = files.into_iter().map(|(name, path)| {
        let text = read(&path)?;
        text.parse::<Template>().map_err(|e| format!("{}: {e}", path.display()))?;
        Ok((name, text))
    });
    templates.collect()
}
