//! What SIGINT, SIGTERM and SIGHUP do: end the process without leftovers, or stop a generation.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cerebellum_tools::output::exit_without_leftovers;

use super::context::{Context, Failure};

/// The exit code of an interrupted process, as a shell reports SIGINT.
const INTERRUPTED: i32 = 130;

/// From here on an interruption removes unfinished outputs and ends the process. If the system refuses the
/// thread that this takes, says so: then it ends the process only.
pub fn handle(context: &Context) -> Result<(), Failure> {
    let handled = ctrlc::set_handler(|| match cancellable().as_ref() {
        // Somebody who interrupts twice means it.
        Some(Target { flag, then }) if !flag.swap(true, Relaxed) => then(),
        _ => exit_without_leftovers(INTERRUPTED),
    });
    match handled {
        Err(ctrlc::Error::System(refused)) => {
            end_as_usual();
            context.warn(format_args!(
                "cannot handle Ctrl-C ({refused}): Ctrl-C will leave an unfinished output behind until the next run"
            ));
            Ok(())
        }
        handled => Ok(handled?),
    }
}

/// Takes back handlers that nobody answers to.
fn end_as_usual() {
    #[cfg(unix)]
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `signal` may be called at any time, and the default runs no handler of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// While this lives, an interruption sets a flag instead, or calls a function.
pub struct Cancellable;

impl Cancellable {
    /// Lets the next interruption set `flag`, which is cleared first.
    pub fn by(flag: &Arc<AtomicBool>) -> Self {
        flag.store(false, Relaxed);
        *cancellable() = Some(Target { flag: Arc::clone(flag), then: Box::new(|| ()) });
        Self
    }

    /// Lets the next interruption call `then`.
    #[cfg(feature = "serve")]
    pub fn calling(then: impl Fn() + Send + 'static) -> Self {
        let flag = Arc::new(AtomicBool::new(false));
        *cancellable() = Some(Target { flag, then: Box::new(then) });
        Self
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        *cancellable() = None;
    }
}

/// What an interruption does.
struct Target {
    /// Set by the first one.
    flag: Arc<AtomicBool>,
    /// Called then.
    then: Box<dyn Fn() + Send>,
}

fn cancellable() -> MutexGuard<'static, Option<Target>> {
    static CANCELLABLE: Mutex<Option<Target>> = Mutex::new(None);
    // A target is valid at any time.
    CANCELLABLE.lock().unwrap_or_else(PoisonError::into_inner)
}
