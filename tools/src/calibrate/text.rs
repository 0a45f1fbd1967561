//! The calibration text.

use cerebellum::format::Config;

/// Windows are as long as the model allows, but no longer than this.
const MAX_WINDOW: usize = 512;

/// A text's tokens, as windows of equal length that are spread evenly over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    tokens: Vec<u32>,
    window: usize,
}

/// Why a text cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text does not fill one window.
    #[error(
        "the calibration text has {tokens} tokens, less than one window of {window}: give a longer text of the kind that the model will see"
    )]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
    },
    /// No windows were asked for.
    #[error("calibration needs at least one window")]
    NoWindows,
    /// A token that the model does not have.
    #[error(
        "the calibration text's token {token} is not below the model's vocabulary size {vocab_size}: it comes from another model's tokenizer"
    )]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// The number of ids.
        vocab_size: usize,
    },
}

impl Calibration {
    /// Tokens of a window of this model.
    pub fn window_of(config: &Config) -> usize {
        config.n_positions.min(MAX_WINDOW)
    }

    /// At most `windows` windows of min(`n_positions`, 512) tokens out of `tokens`, as far apart as the
    /// text allows.
    ///
    /// # Errors
    /// [`Error`] if there is not one window, or a token is not the model's.
    pub fn new(tokens: &[u32], windows: usize, config: &Config) -> Result<Self, Error> {
        let (window, vocab_size) = (Self::window_of(config), config.vocab_size);
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { token, vocab_size });
        }
        let available = tokens.len() / window;
        match windows.min(available) {
            0 if windows == 0 => Err(Error::NoWindows),
            0 => Err(Error::TooShort { tokens: tokens.len(), window }),
            count => {
                let start = |i: usize| i * available / count * window;
                let tokens = (0..count).flat_map(|i| &tokens[start(i)..][..window]);
                Ok(Self { tokens: tokens.copied().collect(), window })
            }
        }
    }

    /// Lets every window begin with the token that the model wants before a text, if it wants one, in place of
    /// the window's own first token.
    #[must_use]
    pub fn beginning_with(mut self, token: Option<u32>) -> Self {
        if let Some(token) = token {
            self.tokens.chunks_exact_mut(self.window).for_each(|window| window[0] = token);
        }
        self
    }

    /// The windows of both, which must have the same length.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        assert_eq!(self.window, other.window, "windows of different models");
        self.tokens.extend(&other.tokens);
        self
    }

    /// Tokens of a window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Number of windows.
    pub fn windows(&self) -> usize {
        self.tokens.len() / self.window
    }

    /// The tokens of all windows, one window after the other.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Up to `windows` of these windows, spread over them.
    pub(crate) fn part(&self, windows: usize) -> Self {
        let tokens =
            self.spread(windows).flat_map(|i| &self.tokens[i * self.window..][..self.window]);
        Self { tokens: tokens.copied().collect(), window: self.window }
    }

    /// The indices of the windows of [`part`](Self::part).
    pub(crate) fn spread(&self, windows: usize) -> impl Iterator<Item = usize> + Clone {
        let (all, count) = (self.windows(), windows.min(self.windows()));
        (0..count).map(move |i| i * all / count)
    }

    /// A digest of what is used of the text, for the file's record.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.window as u64).to_le_bytes());
        self.tokens.iter().for_each(|token| {
            hasher.update(&token.to_le_bytes());
        });
        format!("blake3:{}", hasher.finalize().to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(n_positions: usize) -> Config {
        Config::gpt2(100, n_positions, 64, 4, 1)
    }

    #[test]
    fn windows_spread_over_the_text() {
        let tokens: Vec<u32> = (0..43).collect();
        let calibration = Calibration::new(&tokens, 3, &config(4)).unwrap();
        assert_eq!((calibration.windows(), calibration.window()), (3, 4));
        assert_eq!(calibration.tokens(), [0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27]);
        assert_eq!(Calibration::new(&tokens, 99, &config(4)).unwrap().windows(), 10);
        assert_eq!(calibration.part(1).tokens(), [0, 1, 2, 3]);
        let begun = calibration.beginning_with(Some(99));
        assert_eq!(begun.tokens(), [99, 1, 2, 3, 99, 13, 14, 15, 99, 25, 26, 27]);
    }

    #[test]
    fn what_cannot_serve_is_refused() {
        let new = |tokens: &[u32], windows| Calibration::new(tokens, windows, &config(8));
        assert!(matches!(new(&[1; 7], 5), Err(Error::TooShort { tokens: 7, window: 8 })));
        assert!(matches!(new(&[], 5), Err(Error::TooShort { tokens: 0, .. })));
        assert!(matches!(new(&[1; 8], 0), Err(Error::NoWindows)));
        assert!(matches!(new(&[4096; 8], 1), Err(Error::TokenOutOfRange { token: 4096, .. })));
    }
}
