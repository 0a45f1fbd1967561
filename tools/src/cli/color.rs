//! Whether to use colours, and where.

use std::fmt::{self, Display};
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use cerebellum::terminal::text;
use clap::ValueEnum;

/// A value of `--color`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum When {
    /// On a terminal, if NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM allow it
    Auto,
    Always,
    Never,
}

impl From<When> for anstream::ColorChoice {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}

/// Follows `--color`, for clap's own messages too: it needs to be known before they are parsed.
pub fn choose() {
    let mut arguments = std::env::args_os().skip(1).take_while(|argument| argument != "--");
    while let Some(argument) = arguments.next() {
        let value = match argument.to_str() {
            Some("--color") => arguments.next(),
            Some(argument) => argument.strip_prefix("--color=").map(Into::into),
            None => None,
        };
        // A value that is not one is an error that clap reports.
        let when = value.and_then(|value| When::from_str(value.to_str()?, true).ok());
        if let Some(when) = when {
            anstream::ColorChoice::from(when).write_global();
        }
    }
}

/// Prints a message on standard error, after a `label` that is without its style if there are to be no
/// colours; in one write, so that lines do not mix.
///
/// What a terminal would obey in the message is escaped, always: messages are for people, and a log of
/// them is read on a terminal sooner or later.
pub fn print_to_stderr(label: Option<Styled>, message: impl Display) {
    let (message, space) = (message.to_string(), if label.is_some() { " " } else { "" });
    let mut label = label.map_or(String::new(), |label| label.to_string());
    if anstream::AutoStream::choice(&io::stderr()) == anstream::ColorChoice::Never {
        label = anstream::adapter::strip_str(&label).to_string();
    }
    let line = format!("{label}{space}{}\n", text(&message));
    // Nobody may be there to read it, which is no failure.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// A word in a style, for [`print_to_stderr`].
pub struct Styled(Style, &'static str);

pub const ERROR: Styled = Styled(AnsiColor::Red.on_default().bold(), "error:");
pub const WARNING: Styled = Styled(AnsiColor::Yellow.on_default().bold(), "warning:");

impl Display for Styled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(style, word) = self;
        write!(f, "{style}{word}{style:#}")
    }
}
