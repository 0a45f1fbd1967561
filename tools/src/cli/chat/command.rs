//! The commands of a chat: lines that begin with a slash.

use cerebellum::generate::GenerateOptions;
use cerebellum::number;

use super::super::context::Failure;

pub const HELP: &str = "\
/more            continue the last answer
/retry           replace the last answer by another one
/undo            remove the last line and its answer
/reset           forget the conversation
/show            show the conversation
/save FILE       write the conversation to a new file
/set             show the settings
/set NAME VALUE  change a setting
/stats           show speeds, and how much of the context is used
/quit            end the chat, as Ctrl-D does
A line that ends in \\ continues on the next line. To send a line that begins with /, type // in its place.";

/// A parsed command.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Help,
    Quit,
    Reset,
    Undo,
    Retry,
    More,
    Show,
    Save(&'a str),
    Statistics,
    Set { name: &'a str, value: &'a str },
    Settings,
}

impl<'a> Command<'a> {
    /// Parses a line without its slash.
    pub fn parse(line: &'a str) -> Result<Self, Failure> {
        let (name, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let rest = rest.trim();
        let command = match (name, rest) {
            ("set", "") => return Ok(Self::Settings),
            ("set", _) => {
                let (name, value) = rest
                    .split_once(char::is_whitespace)
                    .ok_or_else(|| format!("/set {rest} needs a value: /set {rest} VALUE"))?;
                return Ok(Self::Set { name, value: value.trim() });
            }
            ("save", "") => return Err("/save needs a file: /save FILE".into()),
            ("save", path) => return Ok(Self::Save(path)),
            ("help" | "?", "") => Self::Help,
            ("quit" | "exit" | "q", "") => Self::Quit,
            ("reset" | "clear", "") => Self::Reset,
            ("undo", "") => Self::Undo,
            ("retry", "") => Self::Retry,
            ("more", "") => Self::More,
            ("show", "") => Self::Show,
            ("stats", "") => Self::Statistics,
            _ => return Err(format!("there is no command /{}; see /help", line.trim()).into()),
        };
        Ok(command)
    }
}

/// Changes the setting `name`.
pub fn set(options: &mut GenerateOptions, name: &str, value: &str) -> Result<(), Failure> {
    match name {
        "max-tokens" | "n" => {
            options.max_tokens = number::whole("max_tokens", value, 0..=usize::MAX)?;
        }
        name if options.sampler.set(name, value)? => {}
        _ => return Err(format!("there is no setting {name}; /set shows them").into()),
    }
    Ok(())
}

/// All settings, as [`set`] takes them.
pub fn settings(options: &GenerateOptions) -> String {
    let s = &options.sampler;
    format!(
        "max-tokens {}\ntemperature {}\ntop-k {}\ntop-p {}\nmin-p {}\nrepetition-penalty {}\n\
         repetition-window {}\nseed {}",
        options.max_tokens,
        s.temperature,
        s.top_k,
        s.top_p,
        s.min_p,
        s.repetition_penalty,
        s.repetition_window,
        s.seed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed() {
        let parse = |line| Command::parse(line).map_err(|e| e.to_string());
        assert_eq!(parse("quit"), Ok(Command::Quit));
        assert_eq!(parse(" set  top-k   40 "), Ok(Command::Set { name: "top-k", value: "40" }));
        assert_eq!(parse("set"), Ok(Command::Settings));
        assert_eq!(parse("save a b.txt"), Ok(Command::Save("a b.txt")));
        for line in ["", "hello", "undo 2", "save", "set top-k"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn settings_are_those_that_can_be_set() {
        let mut options = GenerateOptions::default();
        for line in settings(&options.clone()).lines() {
            let (name, _) = line.split_once(' ').unwrap();
            set(&mut options, name, "1").unwrap();
        }
        assert!(settings(&options).lines().all(|line| line.ends_with(" 1")));
        for (name, value) in [("top-p", "2"), ("temperature", "hot"), ("top-k", "-1"), ("no", "1")]
        {
            assert!(set(&mut options, name, value).is_err(), "{name} {value}");
        }
    }
}
