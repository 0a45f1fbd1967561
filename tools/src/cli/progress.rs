//! The progress bar.

use std::time::Duration;

use cerebellum_tools::quantize::Observer;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Context;

/// A bar on standard error, drawn only if that is a terminal; gone when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// A count of so many of `things`, of which nobody knows how many there will be.
    pub fn without_end(context: &Context, things: &str) -> Self {
        let progress = Self::styled(context, "{spinner} {human_pos} {msg}, {per_sec}");
        progress.0.unset_length();
        progress.turn_to(things);
        progress.0.enable_steady_tick(Duration::from_millis(200));
        progress
    }

    /// A share of work whose amount will be told.
    pub fn new(context: &Context) -> Self {
        Self::styled(context, "{wide_bar} {percent:>3} %  {eta:>4} left  {msg}")
    }

    fn styled(context: &Context, template: &str) -> Self {
        let bar = ProgressBar::new(0);
        // A terminal that cannot move its cursor would show every state of the bar.
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if context.quiet || is_dumb {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
        Self(bar)
    }
}

impl Observer for Progress {
    fn begin(&self, weights: u64) {
        self.0.set_length(weights);
        self.0.enable_steady_tick(Duration::from_millis(200));
    }

    fn turn_to(&self, task: &str) {
        self.0.set_message(task.to_owned());
    }

    fn advance(&self, weights: u64) {
        self.0.inc(weights);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
