//! Threads, as many as the system gives.
//!
//! A system may refuse to start a thread: the user has too many processes (`RLIMIT_NPROC`), a container has, or
//! there is no memory for a stack. Then fewer threads do the work, in the end the calling one alone, and
//! whoever [listens](on_shortage) is told.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;

use cerebellum::threads::TeamError;
use cerebellum::{Error, SessionOptions};

/// Fewer threads than were asked for.
#[derive(Debug)]
pub struct Shortage {
    /// How many were asked for.
    pub asked: usize,
    /// How many do the work, at least 1.
    pub started: usize,
    /// What the system said.
    pub reason: String,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, started, reason } = self;
        write!(
            f,
            "the system refused to start a thread ({reason}): {started} instead of {asked} do the work"
        )
    }
}

type Listener = Box<dyn Fn(&Shortage) + Send + Sync>;
static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Lets `listener` be told of every shortage in this process, once if the same follows. Only the first
/// listener is.
pub fn on_shortage(listener: impl Fn(&Shortage) + Send + Sync + 'static) {
    let _ = LISTENER.set(Box::new(listener));
}

fn tell(asked: usize, started: usize, reason: &dyn fmt::Display) {
    static TOLD: Mutex<Option<(usize, usize)>> = Mutex::new(None);
    let told = TOLD.lock().unwrap_or_else(PoisonError::into_inner).replace((asked, started));
    if let Some(listener) = LISTENER.get().filter(|_| told != Some((asked, started))) {
        listener(&Shortage { asked, started, reason: reason.to_string() });
    }
}

/// The threads of one [`run`].
#[derive(Debug)]
pub struct Started(OnceLock<usize>);

impl Started {
    /// How many there are, the calling one included. Waits until all have been started.
    pub fn count(&self) -> usize {
        *self.0.wait()
    }
}

/// Calls `work` with each of the workers: with the first on this thread, with the others on a thread each.
/// Workers for whom there is no thread are left out, so they must share one pile of work. Results come in
/// the order of the workers.
///
/// # Panics
/// If `work` does.
pub fn run<W: Send, T: Send>(workers: Vec<W>, work: impl Fn(W, &Started) -> T + Sync) -> Vec<T> {
    let asked = workers.len();
    let mut workers = workers.into_iter();
    let Some(first) = workers.next() else { return Vec::new() };
    let (work, started) = (&work, &Started(OnceLock::new()));
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for worker in workers {
            match Builder::new().spawn_scoped(scope, move || work(worker, started)) {
                Ok(thread) => threads.push(thread),
                Err(refused) => {
                    tell(asked, threads.len() + 1, &refused);
                    break;
                }
            }
        }
        let _ = started.0.set(threads.len() + 1);
        let mut results = vec![work(first, started)];
        for thread in threads {
            match thread.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

/// Starts a thread that nobody waits for; `false` if the system refuses it.
pub fn start(work: impl FnOnce() + Send + 'static) -> bool {
    Builder::new().spawn(work).is_ok()
}

/// A session, a batch or what else has threads of its own. If the system refuses some, `options` asks for as
/// many as are to be had.
///
/// # Errors
/// Those of `make`, but [`TeamError::Spawn`].
pub fn with_fewer<T>(
    options: &mut SessionOptions,
    make: impl Fn(&SessionOptions) -> cerebellum::Result<T>,
) -> cerebellum::Result<T> {
    let asked = options.threads;
    loop {
        match make(options) {
            Err(Error::Threads(TeamError::Spawn { index, source })) if index < options.threads => {
                options.threads = index;
                tell(asked, index, &source);
            }
            made => return made,
        }
    }
}

/// A rayon pool of `asked` threads or, if the system refuses some, of fewer: in the end of the calling thread
/// alone, which must then be in no other pool and stays in this one.
///
/// # Errors
/// If not even that can be.
pub fn pool(asked: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    /// The threads of a failed attempt take their time to end.
    const PAUSE: Duration = Duration::from_millis(20);
    let (mut threads, mut refused) = (asked, None);
    while threads > 0 {
        match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) => {
                if let Some(refused) = refused {
                    tell(asked, threads, &refused);
                }
                return Ok(pool);
            }
            Err(error) => {
                refused = Some(error);
                threads = threads * 3 / 4;
                thread::sleep(PAUSE);
            }
        }
    }
    if let Some(refused) = refused {
        tell(asked, 1, &refused);
    }
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_works_and_knows_how_many_there_are() {
        let results = run(vec![10, 20, 30], |worker, started| worker + started.count());
        assert_eq!(results, [13, 23, 33]);
        assert!(run(Vec::<usize>::new(), |worker, _| worker).is_empty());
    }

    #[test]
    fn fewer_threads_are_asked_for_when_some_are_refused() {
        let mut options = SessionOptions { threads: 8, ..SessionOptions::default() };
        let refuse = |from: usize| {
            move |options: &SessionOptions| match options.threads {
                threads if threads <= from => Ok(threads),
                _ => Err(TeamError::Spawn {
                    index: from,
                    source: std::io::ErrorKind::WouldBlock.into(),
                }
                .into()),
            }
        };
        assert_eq!(with_fewer(&mut options, refuse(3)).unwrap(), 3);
        assert_eq!(options.threads, 3);
        assert_eq!(with_fewer(&mut options, refuse(1)).unwrap(), 1);
    }
}
