//! A text to be made.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use cerebellum::batch::Request;
use cerebellum::generate::Constraint;

use super::event::{Event, EventSender};
use crate::serve::metrics::Metrics;
use crate::serve::refusal::Refusal;

/// A text to be made.
pub struct Order {
    /// The prompt and how to go on from it.
    pub request: Request,
    /// What the text must be like, if that matters.
    pub constraint: Option<Box<dyn Constraint + Send>>,
    /// Whether to tell how probable each token was, and how many others.
    pub top: Option<usize>,
    /// Who is told.
    pub to: Recipient,
    /// When nobody wants it any more.
    pub deadline: Instant,
    /// Orders of the same prompt, which begin when this one's is evaluated.
    pub followers: Vec<Order>,
    /// Its place in the queue.
    pub(super) ticket: Option<Ticket>,
}

impl Order {
    /// An order, not yet in the queue.
    pub fn new(request: Request, to: Recipient, deadline: Instant) -> Self {
        Self {
            request,
            constraint: None,
            top: None,
            to,
            deadline,
            followers: Vec::new(),
            ticket: None,
        }
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

/// A place in the queue, free again when this is dropped.
pub(super) struct Ticket(Arc<Metrics>);

impl Ticket {
    /// `count` places, or none of them if fewer than that are free of `most`.
    pub fn take(metrics: &Arc<Metrics>, count: usize, most: usize) -> Option<Vec<Self>> {
        let add = |waiting: usize| waiting.checked_add(count).filter(|&sum| sum <= most);
        metrics.waiting.fetch_update(Relaxed, Relaxed, add).ok()?;
        Some((0..count).map(|_| Self(Arc::clone(metrics))).collect())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
