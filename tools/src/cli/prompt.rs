//! Prompts, and the spaces at their ends.

use cerebellum::constraint::Form;

use super::context::{Context, Failure};
use super::text_file;

/// A prompt that an argument is, or standard input's if it is `-`.
pub fn read_prompt(prompt: &str, context: &Context) -> Result<String, Failure> {
    match prompt {
        "-" => text_file::exact_prompt(context),
        prompt => Ok(prompt.to_owned()),
    }
}

/// What is wrong with a prompt of which [`ends_in_space`] is true.
pub const SPACE_AT_THE_END: &str = "ends in a space, which the model has mostly seen as the beginning of the \
     next word: leave it out for a better text";

/// Whether a space comes last that belongs to the next word. A regular expression may ask for a text that
/// begins without one.
pub fn ends_in_space(prompt: &str, has_regex: bool) -> bool {
    !has_regex && prompt.ends_with(' ') && !prompt.trim().is_empty()
}

/// The form of a text after a prompt: such a text mostly begins with a space.
pub fn after_space(form: Form) -> Form {
    Form::AfterSpace(Box::new(form))
}
