//! The progress bar.

use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use cerebellum_tools::quantize::Observer;
use cerebellum_tools::threads;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::color;
use super::context::Context;

/// How often the bar moves while nothing advances.
const TICK: Duration = Duration::from_millis(200);

/// Who waits for less need not be told.
const WORTH_TELLING: Duration = Duration::from_secs(60);

/// A bar on standard error, drawn only if that is a terminal; gone when dropped.
pub struct Progress {
    bar: ProgressBar,
    /// Ends the thread that moves the bar, when dropped.
    ticks: OnceLock<Sender<()>>,
    quiet: bool,
}

impl Progress {
    /// A counter of `things`, whose total is not known.
    pub fn without_end(context: &Context, things: &str) -> Self {
        let progress = Self::styled(context, "{spinner} {human_pos} {msg}, {per_sec}");
        progress.bar.unset_length();
        progress.turn_to(things);
        progress.tick();
        progress
    }

    /// A share of work whose amount will be told.
    pub fn new(context: &Context) -> Self {
        Self::styled(context, "{wide_bar} {percent:>3} %  {eta:>4} left  {msg}")
    }

    /// A number of bytes that will be told.
    #[cfg(feature = "hub")]
    pub fn of_bytes(context: &Context) -> Self {
        Self::styled(context, "{wide_bar} {bytes} of {total_bytes}  {eta:>4} left  {msg}")
    }

    fn styled(context: &Context, template: &str) -> Self {
        let bar = ProgressBar::new(0);
        // A terminal that cannot move its cursor would show every state of the bar.
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if context.quiet || is_dumb {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
        Self { bar, ticks: OnceLock::new(), quiet: context.quiet }
    }

    /// Moves the bar from now on. Not by its own `enable_steady_tick`, which panics if the system refuses a
    /// thread: without one, the bar moves when something advances.
    fn tick(&self) {
        if self.bar.is_hidden() {
            return;
        }
        self.ticks.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            let bar = self.bar.clone();
            threads::start(move || {
                while receiver.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    bar.tick();
                }
            });
            sender
        });
    }
}

impl Observer for Progress {
    fn begin(&self, weights: u64) {
        // The next task's, if there was one before.
        self.bar.reset();
        self.bar.set_length(weights);
        self.tick();
    }

    fn turn_to(&self, task: &str) {
        self.bar.set_message(task.to_owned());
    }

    fn advance(&self, weights: u64) {
        self.bar.inc(weights);
    }

    fn expect(&self, left: Duration) {
        if !self.quiet && left > WORTH_TELLING {
            let minutes = left.as_secs().div_ceil(60);
            self.bar.suspend(|| {
                color::print_to_stderr(
                    None,
                    format_args!(
                        "calibrating takes about {minutes} min more; --no-calibration takes seconds"
                    ),
                );
            });
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.ticks.take());
        self.bar.finish_and_clear();
    }
}
