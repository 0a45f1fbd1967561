//! What was said in a chat, and how much of it the session holds.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use cerebellum::Session;
use cerebellum::generate::{GenerateOptions, Generation};
use cerebellum::text::EncodeOptions;
use cerebellum_tools::output::Output;

use super::super::context::Failure;
use super::super::generate::{Stream, Tokenizer};

/// An answer that was given.
pub struct Answered {
    pub generation: Generation,
    /// Tokens before it that were evaluated for earlier answers.
    pub reused_tokens: usize,
    /// What did not fit, to be shown.
    pub remark: Option<String>,
}

/// One text that user and model write in turn.
///
/// Before an answer the whole text is encoded again and the session keeps the tokens that it has in
/// common with it. So what an answer was cut by, a stop string or Ctrl-C, leaves no trace, and taking
/// something back needs no more than cutting the text.
pub struct Conversation {
    session: Session,
    tokenizer: Arc<Tokenizer>,
    text: String,
    /// Where the text ends that is there from the start.
    beginning: usize,
    turns: Vec<Turn>,
}

/// Where in the text a turn begins.
#[derive(Clone, Copy)]
struct Turn {
    line: usize,
    answer: usize,
}

impl Conversation {
    /// Begins with `prompt`.
    pub fn new(session: Session, tokenizer: Arc<Tokenizer>, prompt: &str) -> Self {
        let (text, beginning) = (prompt.to_owned(), prompt.len());
        Self { session, tokenizer, text, beginning, turns: Vec::new() }
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Forgets all but the beginning.
    pub fn clear(&mut self) {
        self.text.truncate(self.beginning);
        self.turns.clear();
    }

    /// Adds a line of the user's.
    pub fn say(&mut self, line: &str) {
        let turn = Turn { line: self.text.len(), answer: self.text.len() + line.len() };
        self.turns.push(turn);
        self.text.push_str(line);
    }

    /// Takes the last line and its answer back.
    pub fn undo(&mut self) -> Result<(), Failure> {
        let turn = self.turns.pop().ok_or("the conversation has no line yet")?;
        self.text.truncate(turn.line);
        Ok(())
    }

    /// Takes the last answer back.
    pub fn take_back_answer(&mut self) -> Result<(), Failure> {
        let turn = self.turns.last().ok_or("the conversation has no line yet")?;
        self.text.truncate(turn.answer);
        Ok(())
    }

    /// Lets the model go on.
    pub fn answer(
        &mut self,
        options: &GenerateOptions,
        stream: &mut Stream,
    ) -> Result<Answered, Failure> {
        let tokens =
            self.tokenizer.encode(&self.text, EncodeOptions::default().at_the_beginning())?;
        let forgotten = forgotten(tokens.len(), self.session.context(), options.max_tokens);
        let tokens = &tokens[forgotten..];
        let kept = common_prefix(self.session.tokens(), tokens);
        self.session.rewind(kept)?;
        let result = stream.run(&mut self.session, &self.tokenizer, &tokens[kept..], options);
        self.text.push_str(&stream.text);
        let remark = "tokens at the beginning no longer fit; the model has read the rest again";
        Ok(Answered {
            generation: result?,
            reused_tokens: kept,
            remark: (forgotten > 0).then(|| format!("({forgotten} {remark})")),
        })
    }
}

/// Writes what was said to a new file, which is none of `inputs`.
pub fn save(text: &str, path: &Path, inputs: &[&Path]) -> Result<(), Failure> {
    let mut output = Output::create(path, false, inputs)?;
    let written = output.file().write_all(text.as_bytes());
    written.map_err(|e| output.error("write", e))?;
    Ok(output.commit()?)
}

/// How many of `tokens` to drop from the beginning: none as long as all of them and an answer fit. Otherwise
/// enough that a quarter of the context is free besides the answer, because evaluating the rest again is as
/// slow as the first time.
fn forgotten(tokens: usize, context: usize, answer: usize) -> usize {
    let answer = answer.min(context / 2);
    if tokens + answer <= context {
        return 0;
    }
    tokens - (context - answer - context / 4).min(tokens)
}

/// Tokens at the beginning that need not be evaluated again; the last one always is, for its logits.
fn common_prefix(evaluated: &[u32], tokens: &[u32]) -> usize {
    let common = evaluated.iter().zip(tokens).take_while(|(a, b)| a == b).count();
    common.min(tokens.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_left_out_when_the_context_is_full() {
        assert_eq!(forgotten(10, 512, 128), 0);
        assert_eq!(forgotten(384, 512, 128), 0);
        assert_eq!(forgotten(385, 512, 128), 385 - 256);
        // An answer may take no more than half.
        assert_eq!(forgotten(256, 512, 100_000), 0);
        assert_eq!(forgotten(257, 512, 100_000), 257 - 128);
        assert_eq!(forgotten(5000, 512, 0), 5000 - 384);
        assert_eq!(forgotten(2, 1, 1), 1);
    }

    #[test]
    fn the_last_token_is_evaluated_for_its_logits() {
        assert_eq!(common_prefix(&[1, 2, 3], &[1, 2, 3]), 2);
        assert_eq!(common_prefix(&[1, 2, 3, 4], &[1, 2, 9, 4]), 2);
        assert_eq!(common_prefix(&[], &[1]), 0);
        assert_eq!(common_prefix(&[1], &[]), 0);
    }
}
