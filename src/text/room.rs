//! What a text is encoded for: the positions that are free, and the flag that stops the call.

use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Room for the tokens of a text.
pub(crate) struct Room {
    /// Tokens before the text.
    position: usize,
    /// Positions that there are.
    context: usize,
    cancel: Cancel,
}

impl Room {
    /// A whole context.
    pub fn in_context(context: usize, cancel: Cancel) -> Self {
        Self { position: 0, context, cancel }
    }

    /// What is left behind so many tokens.
    pub fn behind(self, position: usize) -> Self {
        Self { position, ..self }
    }

    /// Positions that there are.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Fails if a text with at least so many tokens does not fit, or somebody asked to stop.
    pub fn check(&self, text: &str, tokens: usize) -> Result<()> {
        self.check_cancel()?;
        let Self { position, context, .. } = *self;
        if tokens > context.saturating_sub(position) {
            return Err(Error::TextTooLong { bytes: text.len(), tokens, position, context });
        }
        Ok(())
    }

    /// Fails if somebody asked to stop.
    pub fn check_cancel(&self) -> Result<()> {
        self.cancel.check()
    }
}
