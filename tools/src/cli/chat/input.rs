//! Where the lines of a chat come from.

use std::io::{self, BufReader, IsTerminal, Stdin, Write};
use std::path::{Path, PathBuf};

use cerebellum::output::{Existing, OutputError, OutputFile, Readers};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::super::context::Failure;
use super::super::text_file::{self, LineReader};

/// Lines kept for the next time.
const MAX_HISTORY: usize = 1000;

/// A line that was typed.
pub enum Line {
    /// It began with a slash, which is gone.
    Command(String),
    Text(String),
    /// It cannot be read: why.
    Unreadable(String),
}

impl From<String> for Line {
    fn from(line: String) -> Self {
        match line.strip_prefix('/') {
            Some(text) if text.starts_with('/') => Self::Text(text.to_owned()),
            Some(command) => Self::Command(command.to_owned()),
            None => Self::Text(line),
        }
    }
}

/// A terminal's line editor, or any other standard input.
pub enum Input {
    Terminal { editor: Box<Editor<(), FileHistory>>, history: Option<PathBuf> },
    Lines(LineReader<BufReader<Stdin>>),
}

impl Input {
    /// On a terminal an editor with the lines of last time, unless `forget`.
    pub fn new(history: Option<&Path>, forget: bool) -> Result<Self, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Lines(LineReader::new(BufReader::new(io::stdin()))));
        }
        let config = Config::builder()
            .max_history_size(MAX_HISTORY)?
            .history_ignore_space(true)
            .auto_add_history(true)
            .build();
        let mut editor =
            Box::new(Editor::with_history(config.clone(), FileHistory::with_config(&config))?);
        let path = if forget { None } else { history.map(Path::to_owned).or_else(default_history) };
        // Of a device, such as /dev/null, nothing is read, and nothing is written to it.
        let readable = path.as_ref().filter(|path| path.is_file() || path.is_dir());
        if let Some(path) = readable
            && let Err(e) = editor.load_history(path)
        {
            return Err(format!("cannot read {}: {e}", path.display()).into());
        }
        Ok(Self::Terminal { editor, history: path })
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next line that is not empty, joined with those that it goes on in; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Line>, Failure> {
        let mut text = String::new();
        loop {
            let Some(line) = self.read(if text.is_empty() { "> " } else { ". " })? else {
                return Ok((!text.is_empty()).then(|| text.into()));
            };
            let line = match line {
                Ok(line) => line,
                Err(why) => return Ok(Some(Line::Unreadable(why))),
            };
            match line.strip_suffix('\\') {
                Some(line) => {
                    text.push_str(line);
                    text.push('\n');
                }
                None if text.is_empty() && line.trim().is_empty() => {}
                None => return Ok(Some((text + &line).into())),
            }
        }
    }

    fn read(&mut self, prompt: &str) -> Result<Option<text_file::Line>, Failure> {
        match self {
            Self::Terminal { editor, .. } => match editor.readline(prompt) {
                Ok(line) => Ok(Some(Ok(line))),
                // Ctrl-C drops the line that is being typed.
                Err(ReadlineError::Interrupted) => Ok(Some(Ok(String::new()))),
                Err(ReadlineError::Eof) => Ok(None),
                Err(e) => Err(format!("cannot read from the terminal: {e}").into()),
            },
            Self::Lines(lines) => {
                let line = lines.next();
                Ok(line.map_err(|e| format!("cannot read from standard input: {e}"))?)
            }
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Self::Terminal { editor, history: Some(path) } = self {
            // Not to have the lines next time is no failure of this one.
            let directory = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let _ = directory.is_ok() && save(editor.history(), path).is_ok();
        }
    }
}

/// Writes lines as `load_history` reads them, to a file that only its owner may read.
fn save(history: &FileHistory, path: &Path) -> Result<(), OutputError> {
    let mut text = "#V2\n".to_owned();
    for line in history {
        text += &line.replace('\\', "\\\\").replace('\n', "\\n");
        text.push('\n');
    }
    let mut output = OutputFile::create(path, Existing::Replace, Readers::Owner)?;
    let written = output.file().write_all(text.as_bytes());
    written.map_err(|e| output.error("write", e))?;
    output.commit()
}

/// `$XDG_STATE_HOME/cerebellum/history`, by default under `~/.local/state`.
fn default_history() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("cerebellum/history"))
}

#[cfg(test)]
mod tests {
    use rustyline::history::History;

    use super::*;

    #[test]
    fn history_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let lines = ["one", "two\nlines", r"a\nb \ c", "#V2", "\u{20ac}"];
        let mut history = FileHistory::new();
        for line in lines {
            history.add(line).unwrap();
        }
        save(&history, &path).unwrap();
        let mut read = FileHistory::new();
        read.load(&path).unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), lines);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
