//! The text, cut into windows.

use super::{Error, Result};

/// A text's tokens as windows of equal length, one after another; the tokens that are left over
/// after the last whole window belong to none.
#[derive(Clone, Debug)]
pub struct Windows {
    tokens: Vec<u32>,
    length: usize,
}

impl Windows {
    /// Cuts `tokens` into windows of `length`.
    ///
    /// # Errors
    /// [`Error::WindowTooShort`] below 2 tokens a window, [`Error::TextTooShort`] if there is none.
    pub fn new(tokens: Vec<u32>, length: usize) -> Result<Self> {
        match length {
            0 | 1 => Err(Error::WindowTooShort(length)),
            window if tokens.len() < window => {
                Err(Error::TextTooShort { tokens: tokens.len(), window })
            }
            _ => Ok(Self { tokens, length }),
        }
    }

    /// Lets every window begin with the token that the model wants before a text, if it wants one, in place of
    /// the window's own first token, which gets no score in any case.
    #[must_use]
    pub fn beginning_with(mut self, token: Option<u32>) -> Self {
        if let Some(token) = token {
            self.tokens.chunks_exact_mut(self.length).for_each(|window| window[0] = token);
        }
        self
    }

    /// Tokens in a window.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Tokens of the text, those of no window included.
    pub fn text_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// How many windows there are: at least one.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.length
    }

    /// Window `index`.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn get(&self, index: usize) -> &[u32] {
        &self.tokens[index * self.length..][..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_window_is_dropped() {
        let windows = Windows::new((0..11).collect(), 4).unwrap();
        assert_eq!((windows.count(), windows.length()), (2, 4));
        assert_eq!(windows.get(1), [4, 5, 6, 7]);
        assert_eq!(Windows::new(vec![0; 8], 4).unwrap().count(), 2);
    }

    #[test]
    fn windows_begin_with_the_token_that_the_model_wants() {
        let windows = Windows::new((0..11).collect(), 4).unwrap().beginning_with(Some(99));
        assert_eq!((windows.get(0), windows.get(1)), (&[99, 1, 2, 3][..], &[99, 5, 6, 7][..]));
        let windows = Windows::new((0..11).collect(), 4).unwrap().beginning_with(None);
        assert_eq!(windows.get(1), [4, 5, 6, 7]);
    }

    #[test]
    fn what_scores_nothing_is_refused() {
        assert!(matches!(Windows::new(vec![0; 9], 1), Err(Error::WindowTooShort(1))));
        let short = Windows::new(vec![0; 9], 10);
        assert!(matches!(short, Err(Error::TextTooShort { tokens: 9, window: 10 })));
    }
}
