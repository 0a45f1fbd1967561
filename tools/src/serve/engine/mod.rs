//! The model at work: one thread with the batch that makes all texts, another with the session that scores,
//! classifies and embeds.
//!
//! Nothing here knows of HTTP.

mod event;
mod order;
mod prefixes;
mod queue;
mod work;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{Builder, JoinHandle};

use axum::http::StatusCode;
use cerebellum::batch::{Batch, Service};
use cerebellum::constraint::{Form, Vocabulary};
use cerebellum::generate::Constraint;
use cerebellum::kernels::Kernels;
use cerebellum::text::Tokenizer;
use cerebellum::threads::{Executor, Team};
use cerebellum::{KvType, LogitsFor, MemoryPlan, Model, Session, SessionOptions, TokenizerBytes};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

pub use event::{Chance, End, Event, EventReceiver, EventSender};
pub use order::{Order, Recipient};

use self::queue::Queue;
use self::work::Work;
use super::metrics::Metrics;
use super::refusal::Refusal;

/// What the engine is made with.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Context, cache type, chunk and threads.
    pub session: SessionOptions,
    /// The most texts that are made at a time.
    pub parallel: usize,
    /// Memory of the cache of prompts.
    pub cache_bytes: usize,
    /// The most texts that wait.
    pub queue: usize,
}

/// What the engine will need, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct EnginePlan {
    /// Of the texts that are made.
    pub batch: MemoryPlan,
    /// Of scores, classes and embeddings.
    pub session: MemoryPlan,
    /// Of the cache of prompts, at most.
    pub cache_bytes: usize,
}

impl EnginePlan {
    /// Plans an engine.
    ///
    /// # Errors
    /// Those of [`Model::plan_batch`].
    pub fn new(model: &Model, options: &EngineOptions) -> cerebellum::Result<Self> {
        Ok(Self {
            batch: model.plan_batch(&options.session, options.parallel)?,
            session: model.plan(&for_session(&options.session))?,
            cache_bytes: options.cache_bytes,
        })
    }

    /// All of it but the weights.
    pub fn private_bytes(&self) -> usize {
        self.batch.total_private_bytes + self.session.total_private_bytes + self.cache_bytes
    }
}

fn for_session(options: &SessionOptions) -> SessionOptions {
    SessionOptions { logits: LogitsFor::All, draft: 0, ..options.clone() }
}

/// Something to do in the session.
type Task = Box<dyn FnOnce(&mut Session) + Send>;

/// The model at work.
pub struct Engine {
    model: Model,
    tokenizer: Arc<Tokenizer<TokenizerBytes>>,
    /// Made when it is first needed.
    vocabulary: OnceLock<Result<Vocabulary, Refusal>>,
    queue: Arc<Queue>,
    tasks: Mutex<Sender<Task>>,
    metrics: Arc<Metrics>,
    abandoned: Arc<AtomicBool>,
    options: EngineOptions,
    context: usize,
    threads: [JoinHandle<()>; 2],
}

impl Engine {
    /// Starts the engine's threads.
    ///
    /// # Errors
    /// Those of [`Model::tokenizer`] and [`Model::batch`]; if the system refuses a thread.
    pub fn start(
        model: Model,
        options: EngineOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let tokenizer = Arc::new(model.tokenizer()?);
        // Passes of the batch and of the session take turns on one team of threads, as far as they meet.
        let mut session = options.session.clone();
        let executor = crate::threads::with_fewer(&mut session, |options| {
            Ok(match options.threads {
                1 => Executor::Caller,
                threads => Executor::Team(Team::new(threads)?),
            })
        })?;
        let executor = Arc::new(executor);
        let batch = model.batch_on(&session, options.parallel, Arc::clone(&executor))?;
        let scorer = model.session_on(&for_session(&session), executor)?;
        let context = batch.context();
        let abandoned = Arc::new(AtomicBool::new(false));
        let queue = Arc::new(Queue::new(options.queue, Arc::clone(&metrics)));
        let (tasks, task_queue) = mpsc::channel::<Task>();
        let texts = {
            let state = (Arc::clone(&metrics), Arc::clone(&abandoned));
            let (tokenizer, cache_bytes) = (Arc::clone(&tokenizer), options.cache_bytes);
            let queue = Arc::clone(&queue);
            Builder::new()
                .name("texts".to_owned())
                .spawn(move || make_texts(batch, &tokenizer, queue, state, cache_bytes))?
        };
        let scores = Builder::new()
            .name("scores".to_owned())
            .spawn(move || do_tasks(scorer, &task_queue))?;
        Ok(Self {
            model,
            tokenizer,
            vocabulary: OnceLock::new(),
            queue,
            tasks: Mutex::new(tasks),
            metrics,
            abandoned,
            options,
            context,
            threads: [texts, scores],
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer<TokenizerBytes>> {
        &self.tokenizer
    }

    /// The type of its caches.
    pub fn kv(&self) -> KvType {
        self.options.session.kv
    }

    /// Positions of a request.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Whether its threads are there.
    pub fn is_alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Gives up all texts.
    pub fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
    }

    /// A constraint of this form. Takes some time: the first one prepares the vocabulary.
    ///
    /// # Errors
    /// If the form makes no sense, or is not supported.
    pub fn constrain(&self, form: &Form) -> Result<Box<dyn Constraint + Send>, Refusal> {
        let make = || Vocabulary::new(&self.model, Arc::clone(&self.tokenizer));
        let made = self.vocabulary.get_or_init(|| make().map_err(Refusal::from));
        let vocabulary = made.as_ref().map_err(Clone::clone)?;
        Ok(Box::new(vocabulary.constrain(form)?))
    }

    /// Where the events of orders go, and where they come from.
    pub fn channel(&self) -> (EventSender, EventReceiver) {
        let (sender, events) = unbounded_channel();
        (sender, EventReceiver::new(events, &self.queue))
    }

    /// Puts orders into the queue, all or none; of each with followers, those as well.
    ///
    /// # Errors
    /// If the queue has no place for all of them.
    pub fn order(&self, orders: Vec<Order>) -> Result<(), Refusal> {
        let count: usize = orders.iter().map(Order::count).sum();
        let most = self.options.queue;
        if count > most {
            return Err(Refusal::bad(format!(
                "the request asks for {count} texts, more than the {most} that may wait; ask for fewer"
            )));
        }
        if self.queue.push(orders) {
            return Ok(());
        }
        self.metrics.turned_away.fetch_add(1, Relaxed);
        let message = "the queue is full; try again later";
        let refusal = Refusal::with(StatusCode::TOO_MANY_REQUESTS, "queue_full", message);
        Err(Refusal { retry_after: Some(1), ..refusal })
    }

    /// Does something in the session, when what came before is done, unless nobody waits for it any more.
    ///
    /// # Errors
    /// Those of `task`; if the engine is gone.
    pub async fn look<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Session) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let task: Task = Box::new(move |session| {
            if !sender.is_closed() {
                let _ = sender.send(task(session));
            }
        });
        let sent = {
            let tasks = self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            tasks.send(task)
        };
        sent.map_err(|_| gone())?;
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The engine's threads have ended.
pub fn gone() -> Refusal {
    Refusal::internal("the engine has ended")
}

/// Makes texts as long as there is somebody who may order some.
fn make_texts(
    mut batch: Batch,
    tokenizer: &Tokenizer<TokenizerBytes>,
    queue: Arc<Queue>,
    state: (Arc<Metrics>, Arc<AtomicBool>),
    cache_bytes: usize,
) {
    let kernels = Kernels::new(batch.isa()).expect("the batch has them");
    let blocks = cache_bytes / batch.block_bytes();
    let mut work = Work::new(tokenizer, kernels, queue, state, blocks);
    loop {
        let done = Service::new(&batch).and_then(|mut service| {
            while service.round(&mut batch, &mut work)? {}
            Ok(())
        });
        match done {
            Ok(()) => return,
            Err(error) => {
                work.fail(error);
                (0..batch.sequences()).for_each(|sequence| batch.reset(sequence));
            }
        }
    }
}

/// Does one thing after the other in a session.
fn do_tasks(mut session: Session, tasks: &Receiver<Task>) {
    while let Ok(task) = tasks.recv() {
        task(&mut session);
    }
}
