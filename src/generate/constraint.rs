//! The form that a text must have.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::error::Result;

/// The form that a text must have. Before each token, a constraint decides which tokens may come next.
///
/// The feature `constraints` makes constraints from choices, regular expressions and JSON schemas.
pub trait Constraint {
    /// Appends to `tokens` the tokens that must come next, and accepts them. They are not chosen, and
    /// they are evaluated together.
    ///
    /// # Errors
    /// [`Error::Constraint`](crate::Error::Constraint).
    fn force(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        let _ = tokens;
        Ok(())
    }

    /// Computes the result of [`allowed`](Self::allowed) in advance. It is called before `allowed`,
    /// perhaps several times, while the model evaluates the tokens so far. `allowed` returns its
    /// errors.
    fn prepare(&mut self) {}

    /// The tokens that may come next: one bit for each token of the vocabulary, as
    /// [`sample_within`](crate::Session::sample_within) takes them. The end-of-text token is one of
    /// them where the text may end.
    ///
    /// # Errors
    /// [`Error::Constraint`](crate::Error::Constraint).
    fn allowed(&mut self) -> Result<&[u32]>;

    /// Accepts the token that was chosen, which is one of the allowed tokens.
    ///
    /// # Errors
    /// [`Error::Constraint`](crate::Error::Constraint).
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Whether the text may end here.
    ///
    /// # Errors
    /// [`Error::Constraint`](crate::Error::Constraint).
    fn is_complete(&mut self) -> Result<bool>;

    /// Whether it must end here.
    fn is_over(&self) -> bool;
}

impl<C: Constraint + ?Sized> Constraint for &mut C {
    fn force(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        (**self).force(tokens)
    }

    fn prepare(&mut self) {
        (**self).prepare();
    }

    fn allowed(&mut self) -> Result<&[u32]> {
        (**self).allowed()
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        (**self).accept(token)
    }

    fn is_complete(&mut self) -> Result<bool> {
        (**self).is_complete()
    }

    fn is_over(&self) -> bool {
        (**self).is_over()
    }
}

/// A constraint as [`Progress`](super::Progress) takes it, which is compiled once for all constraints.
pub(super) fn boxed<'a>(constraint: &'a mut dyn Constraint) -> Box<dyn Constraint + 'a> {
    Box::new(constraint)
}
