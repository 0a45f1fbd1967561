//! A text to be made.

use std::time::Instant;

use cerebellum::batch::Request;
use cerebellum::generate::Constraint;

use super::event::{Event, EventSender};
use crate::serve::refusal::Refusal;

/// A text to be made.
pub struct Order {
    /// The prompt and how to go on from it.
    pub request: Request,
    /// What the text must be like, if that matters.
    pub constraint: Option<Box<dyn Constraint + Send>>,
    /// Whether to tell how probable each token was, and how many others.
    pub top: Option<usize>,
    /// Whether to digest the logits.
    pub digests: bool,
    /// Who is told.
    pub to: Recipient,
    /// When nobody wants it any more.
    pub deadline: Instant,
    /// Orders of the same prompt, which begin when this one's is evaluated.
    pub followers: Vec<Order>,
}

impl Order {
    /// An order, not yet in the queue.
    pub fn new(request: Request, to: Recipient, deadline: Instant) -> Self {
        Self {
            request,
            constraint: None,
            top: None,
            digests: false,
            to,
            deadline,
            followers: Vec::new(),
        }
    }

    /// How many orders it is, with its followers.
    pub(super) fn count(&self) -> usize {
        1 + self.followers.len()
    }

    /// Tells whoever waits for this order and its followers that there will be no text.
    pub(super) fn refuse(self, refusal: &Refusal) {
        self.to.tell(Event::End(Err(refusal.clone())));
        for follower in self.followers {
            follower.refuse(refusal);
        }
    }
}

/// Who is told of an order's events.
pub struct Recipient {
    /// The number of the order in its request.
    pub index: usize,
    /// The request's channel.
    pub sender: EventSender,
}

impl Recipient {
    /// Tells of an event. False if nobody listens.
    pub(super) fn tell(&self, event: Event) -> bool {
        self.sender.send((self.index, event)).is_ok()
    }

    /// Whether nobody listens.
    pub(super) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }
}
