//! What a text must be like.

use crate::error::Result;

/// What a text must be like: decides before each token which ones may come next.
///
/// The feature `constraints` makes such of choices, regular expressions and JSON schemas.
pub trait Constraint {
    /// Appends the tokens that must come next to `tokens`, and takes them as accepted. They are not
    /// chosen, and are evaluated together.
    ///
    /// # Errors
    /// [`Error::Constraint`](crate::Error::Constraint).
    fn force(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        let _ = tokens;
        Ok(())
    }

    /// Called, possibly several times, before [`allowed`](Self::allowed) while the model evaluates the
    /// tokens so far: the time to compute what that returns. What goes wrong is for `allowed` to tell.
    fn prepare(&mut self) {}

    /// The tokens that may come next, a bit for each as
    /// [`sample_within`](crate::Session::sample_within) takes them. The end-of-text token is among them where
    /// the text may end.
    ///
    /// # Errors
    /// [`Error::Constraint`](crate::Error::Constraint).
    fn allowed(&mut self) -> Result<&[u32]>;

    /// Takes the token that was chosen, which is one of the allowed.
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

/// A constraint as all loops take it, which are compiled once.
pub(super) fn boxed<'a>(constraint: &'a mut dyn Constraint) -> Box<dyn Constraint + 'a> {
    Box::new(constraint)
}
