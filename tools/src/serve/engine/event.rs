//! What becomes of an order, step by step.

use cerebellum::generate::StopReason;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::serve::refusal::Refusal;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The prompt is about to be evaluated.
    Begun {
        /// How many of its tokens were there already.
        cached_tokens: usize,
    },
    /// A token.
    Step {
        /// The token.
        token: u32,
        /// The text that has become certain with it, perhaps none.
        text: String,
        /// How probable it was, if that was asked for and it was chosen, not forced.
        chance: Option<Chance>,
    },
    /// Nothing follows.
    End(Result<End, Refusal>),
}

/// How a text ended.
#[derive(Debug)]
pub struct End {
    /// The text that was held back.
    pub text: String,
    /// Why it ended.
    pub reason: StopReason,
    /// How many tokens the text has.
    pub tokens: usize,
}

/// How probable a token was, and what else was: natural logarithms of the model's own probabilities.
#[derive(Clone, Debug)]
pub struct Chance {
    /// That of the token.
    pub log_probability: f64,
    /// The most probable ones.
    pub top: Vec<(u32, f64)>,
}

/// Where the events of several orders of a request go, each with the number of its order.
pub type EventSender = UnboundedSender<(usize, Event)>;
/// Where they come from.
pub type EventReceiver = UnboundedReceiver<(usize, Event)>;
