//! What is counted, in Prometheus' text form.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// Everything that is counted since the server started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests that were read, by what became of them.
    pub answered: AtomicU64,
    /// Requests that were wrong.
    pub refused: AtomicU64,
    /// Requests for which there was no place in the queue.
    pub turned_away: AtomicU64,
    /// Requests that the server failed to answer.
    pub failed: AtomicU64,
    /// Texts whose client went away, or whose time was over.
    pub cancelled: AtomicU64,
    /// Tokens of prompts.
    pub prompt_tokens: AtomicU64,
    /// Tokens of prompts that were not evaluated again.
    pub cached_tokens: AtomicU64,
    /// Tokens of texts.
    pub generated_tokens: AtomicU64,
    /// Texts in the queue.
    pub waiting: AtomicUsize,
    /// Texts that are being made.
    pub running: AtomicUsize,
    /// Bytes of the cache of prompts.
    pub cache_bytes: AtomicUsize,
    /// Open connections.
    pub connections: AtomicUsize,
}

impl Metrics {
    /// The text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = write!(
                text,
                "# HELP cerebellum_{name} {help}\n# TYPE cerebellum_{name} {kind}\ncerebellum_{name} {value}\n"
            );
        };
        for (name, help, count) in [
            ("requests_answered_total", "Requests that got an answer.", &self.answered),
            ("requests_refused_total", "Requests that were wrong.", &self.refused),
            (
                "requests_turned_away_total",
                "Requests for which the queue had no place.",
                &self.turned_away,
            ),
            ("requests_failed_total", "Requests that the server failed to answer.", &self.failed),
            ("texts_cancelled_total", "Texts that nobody wanted any more.", &self.cancelled),
            ("prompt_tokens_total", "Tokens of prompts.", &self.prompt_tokens),
            (
                "cached_tokens_total",
                "Tokens of prompts that were not evaluated again.",
                &self.cached_tokens,
            ),
            ("generated_tokens_total", "Tokens of texts.", &self.generated_tokens),
        ] {
            add(name, "counter", help, count.load(Relaxed));
        }
        for (name, help, value) in [
            ("texts_waiting", "Texts in the queue.", &self.waiting),
            ("texts_running", "Texts that are being made.", &self.running),
            ("cache_bytes", "Bytes of the cache of prompts.", &self.cache_bytes),
            ("connections", "Open connections.", &self.connections),
        ] {
            add(name, "gauge", help, value.load(Relaxed) as u64);
        }
        text
    }
}
