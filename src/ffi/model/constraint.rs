//! Constraints, which keep generated texts to the form in the options.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::shared::Shared;
use crate::error::Result;
use crate::ffi::options::Form;
use crate::generate::Constraint;

impl Shared {
    /// A constraint for one text, if it must have a form.
    #[cfg(feature = "constraints")]
    pub fn constraint(&self, wanted: &Form) -> Result<Option<Box<dyn Constraint + Send>>> {
        let Some(form) = wanted.form() else { return Ok(None) };
        Ok(Some(Box::new(self.vocabulary()?.constrain(form)?)))
    }

    /// None: this build has no forms.
    #[cfg(not(feature = "constraints"))]
    pub fn constraint(&self, _: &Form) -> Result<Option<Box<dyn Constraint + Send>>> {
        Ok(None)
    }

    /// A constraint for each of `n` texts. The list is empty if the texts may have any form.
    pub fn constraints(&self, wanted: &Form, n: usize) -> Result<Vec<Option<Box<dyn Constraint>>>> {
        let n = if wanted.name().is_some() { n } else { 0 };
        let one = |_| Ok(self.constraint(wanted)?.map(|it| it as Box<dyn Constraint>));
        (0..n).map(one).collect()
    }

    #[cfg(feature = "constraints")]
    fn vocabulary(&self) -> Result<&crate::constraint::Vocabulary> {
        let tokenizer = self.tokenizer()?;
        if let Some(prepared) = self.vocabulary.get() {
            return Ok(prepared);
        }
        let tokenizer = alloc::sync::Arc::clone(tokenizer);
        let prepared = crate::constraint::Vocabulary::new(&self.model, tokenizer)?;
        // If two threads come here at the same time, one result is dropped.
        Ok(self.vocabulary.get_or_init(|| prepared))
    }
}
