//! What templates may ask for besides the messages.

use super::date::Date;

/// What the caller says of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatOptions {
    /// The date, for templates that write it; `None`: today by the system's clock, in UTC.
    pub date: Option<Date>,
    /// Whether a model that can think before it answers shall do so; `None` leaves it to the template.
    pub thinking: Option<bool>,
}

/// All of it.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    /// Whether the text ends in what asks for an answer.
    pub prompt_answer: bool,
    /// The text of the token that begins a text.
    pub beginning_token: &'a str,
    /// The text of the token that ends one.
    pub end_token: &'a str,
    /// The date, for templates that write it.
    pub date: Date,
    /// Whether a model that can think before it answers shall do so; `None` leaves it to the template.
    pub thinking: Option<bool>,
}
