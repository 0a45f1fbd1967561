//! Orders that wait.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::order::Order;
use crate::serve::metrics::Metrics;

/// Orders that wait, first come, first served.
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    metrics: Arc<Metrics>,
    /// The most orders, followers included.
    most: usize,
}

#[derive(Default)]
struct State {
    orders: VecDeque<Order>,
    /// Orders with their followers.
    count: usize,
    /// Whether none will come any more.
    is_closed: bool,
}

impl Queue {
    /// An empty queue for at most `most` orders.
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), metrics, most }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked did not do so within a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds orders, all or none. False if there is no room for all.
    pub fn push(&self, orders: Vec<Order>) -> bool {
        let count: usize = orders.iter().map(Order::count).sum();
        let mut state = self.state();
        if count > self.most - state.count.min(self.most) {
            return false;
        }
        state.orders.extend(orders);
        self.set_count(&mut state, |sum| sum + count);
        self.changed.notify_one();
        true
    }

    /// The next order, if there is one now; or, if `may_wait`, as soon as there is one.
    ///
    /// # Errors
    /// There will be none any more.
    pub fn pop(&self, may_wait: bool) -> Result<Option<Order>, Closed> {
        let mut state = self.state();
        loop {
            if let Some(order) = state.orders.pop_front() {
                self.set_count(&mut state, |sum| sum - order.count());
                return Ok(Some(order));
            }
            if state.is_closed {
                return Err(Closed);
            }
            if !may_wait {
                return Ok(None);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drops the orders for which nobody waits any more.
    pub fn sweep(&self) {
        let mut state = self.state();
        let before = state.count;
        state.orders.retain(|order| !order.to.is_gone());
        let left = state.orders.iter().map(Order::count).sum();
        self.set_count(&mut state, |_| left);
        self.metrics.cancelled.fetch_add((before - left) as u64, Relaxed);
    }

    /// Lets no order come any more.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    fn set_count(&self, state: &mut State, change: impl Fn(usize) -> usize) {
        state.count = change(state.count);
        self.metrics.waiting.store(state.count, Relaxed);
    }
}

/// There will be no order any more.
#[derive(Debug)]
pub struct Closed;
