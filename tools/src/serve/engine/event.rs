//! What becomes of an order, step by step.

use std::sync::Arc;
use std::task::{Context, Poll};

use cerebellum::generate::StopReason;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::queue::Queue;
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
    /// The digest of the logits that its tokens were chosen from, if that was asked for.
    pub logits: Option<String>,
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

/// Where they come from. Who drops it wants the rest of the texts no more.
pub struct EventReceiver {
    events: UnboundedReceiver<(usize, Event)>,
    // Dropped behind the receiver, by whose end it knows what to sweep.
    _sweep: Sweep,
}

impl EventReceiver {
    pub(super) fn new(events: UnboundedReceiver<(usize, Event)>, queue: &Arc<Queue>) -> Self {
        Self { events, _sweep: Sweep(Arc::clone(queue)) }
    }

    /// The next event; `None` if there will be none.
    pub async fn recv(&mut self) -> Option<(usize, Event)> {
        self.events.recv().await
    }

    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, Event)>> {
        self.events.poll_recv(context)
    }
}

/// Takes orders out of the queue that were given up.
struct Sweep(Arc<Queue>);

impl Drop for Sweep {
    fn drop(&mut self) {
        self.0.sweep();
    }
}
