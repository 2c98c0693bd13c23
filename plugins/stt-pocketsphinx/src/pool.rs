//! Many sessions, few decoders: lends each utterance a decoder until it ends.
//!
//! Decoders live on threads of their own, which are started when they are first needed. An asynchronous caller hands
//! samples over through a queue with a bound and reads what was understood from another; it never waits for a
//! decoder in a way that blocks its thread.
//!
//! Who comes first is served first. An utterance that has to wait keeps its samples in its queue, so that a caller
//! sees either nothing of it, or a full queue.
//!
//! Not here: what a decoder does ([`decoder`](crate::decoder)), and time: an utterance that gets neither samples nor
//! an end keeps its decoder until it is dropped.

use crate::decoder::{self, Decoder, Hypothesis, Library, Settings};
use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};
use tokio::sync::mpsc;

/// What is heard of an utterance. The last one is [`Final`](Update::Final) or [`Failed`](Update::Failed).
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// What was understood so far, when that changed. A caller that is slow gets fewer.
    Partial(String),
    /// What was understood, after [`Utterance::finish`].
    Final(Hypothesis),
    /// Nothing more will be understood.
    Failed(PoolError),
}

/// Why an utterance came to no end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The decoder could not be made, or failed.
    #[error(transparent)]
    Decoder(#[from] decoder::Error),
    /// The decoder panicked, which is a bug, and was replaced.
    #[error("the decoder panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// Too many utterances were waiting for a decoder.
    #[error("{MOST_WAITING} utterances are waiting for a decoder already")]
    Busy,
    /// The pool ended.
    #[error("the speech recognition was stopped")]
    Closed,
    /// The system gave no thread for a decoder.
    #[error("cannot start a thread for a decoder")]
    Thread(#[source] std::io::Error),
}

impl PoolError {
    /// Whether the next utterance may fare better without anybody's doing.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            PoolError::Decoder(decoder::Error::Search)
            | PoolError::Panicked { .. }
            | PoolError::Busy
            | PoolError::Thread(_) => true,
            PoolError::Decoder(_) | PoolError::Closed => false,
        }
    }
}

/// The samples came to nobody: see the last [`Update`] for the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the utterance has ended")]
pub struct Ended;

/// The samples came to nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Decoding is behind, or has not begun as there is no free decoder. Gives the samples back.
    #[error("the decoder is {QUEUE} chunks behind")]
    Full(Vec<i16>),
    /// See [`Ended`].
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Decoders for the utterances of any number of sessions.
///
/// Dropping the pool ends it without waiting: threads end on their own, once the call that they are in has returned.
pub struct Pool {
    shared: Arc<Shared>,
}

/// The way in: takes the samples of one utterance. Dropping it cancels the utterance and frees the decoder.
#[derive(Debug)]
pub struct Utterance {
    samples: mpsc::Sender<Message>,
    end: Arc<End>,
}

/// The way out: tells what is understood of one utterance. Dropping it cancels the utterance too.
#[derive(Debug)]
pub struct Updates {
    updates: mpsc::Receiver<Update>,
    wake: mpsc::WeakSender<Message>,
}

/// Chunks that may wait for a decoder, per utterance: 5 s of 20 ms each, longer than any call of a decoder takes.
pub const QUEUE: usize = 256;

/// Utterances that may wait for a decoder.
pub const MOST_WAITING: usize = 256;

/// Updates that wait for their reader. Partial ones are dropped before the last place is taken.
const UPDATES: usize = 16;

/// Stack of a decoder's thread. PocketSphinx recurses along the words of an utterance in `ps_lattice.c`.
const STACK_BYTES: usize = 8 << 20;

impl Pool {
    /// Makes a pool of at most `threads` decoders, and at least one; none is made before the first utterance.
    #[must_use]
    pub fn new(library: Library, settings: Settings, threads: usize) -> Pool {
        Pool::with(threads, move || {
            let decoder = Decoder::new(library, &settings)?;
            Ok(Box::new(decoder))
        })
    }

    fn with(
        threads: usize,
        make: impl Fn() -> Result<Box<dyn Engine>, PoolError> + Send + Sync + 'static,
    ) -> Pool {
        let shared = Shared {
            make: Box::new(make),
            threads: threads.max(1),
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        };
        Pool { shared: Arc::new(shared) }
    }

    /// Starts an utterance. Never waits: if no decoder is free, the samples do.
    #[must_use]
    pub fn begin(&self) -> (Utterance, Updates) {
        let (samples, queue) = mpsc::channel(QUEUE);
        let (sender, updates) = mpsc::channel(UPDATES);
        let end = Arc::new(End(AtomicU8::new(End::OPEN)));
        let wake = samples.downgrade();
        let job = Job {
            queue,
            wake: wake.clone(),
            end: Arc::clone(&end),
            updates: Reporter { sender, last: String::new() },
        };
        self.shared.submit(job);
        (Utterance { samples, end }, Updates { updates, wake })
    }

    /// Makes the first decoder now rather than with the first utterance. Never waits; does nothing if there is one.
    pub fn warm_up(&self) {
        let mut state = self.shared.lock();
        if state.workers.is_empty() {
            // When this fails, it will be tried again for the first utterance, which then reports it.
            let _ = self.shared.add_worker(&mut state);
        }
    }

    /// Ends the pool and waits for its threads, each of which may be in a call of up to a second. Blocks.
    pub fn close(self) {
        let workers = self.shared.close();
        for worker in workers {
            // A thread that panicked has ended as well.
            let _ = worker.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.shared.threads).finish_non_exhaustive()
    }
}

impl Utterance {
    /// Hands samples over, 16 kHz and mono, and waits while the queue is full.
    ///
    /// # Errors
    ///
    /// [`Ended`] when the utterance failed, or nobody reads its updates any more.
    ///
    /// # Cancel safety
    ///
    /// When it is cancelled the samples are lost.
    pub async fn push(&self, samples: Vec<i16>) -> Result<(), Ended> {
        self.samples.send(Message::Samples(samples)).await.map_err(|_| Ended)
    }

    /// Hands samples over if the queue has room.
    ///
    /// # Errors
    ///
    /// [`PushError`].
    pub fn try_push(&self, samples: Vec<i16>) -> Result<(), PushError> {
        self.samples.try_send(Message::Samples(samples)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(Message::Samples(samples)) => PushError::Full(samples),
            mpsc::error::TrySendError::Full(Message::Wake) | mpsc::error::TrySendError::Closed(_) => {
                PushError::Ended(Ended)
            }
        })
    }

    /// Says that these were all samples. The last update follows when they are decoded.
    pub fn finish(self) {
        self.end.set(End::FINISHED);
    }
}

impl Drop for Utterance {
    fn drop(&mut self) {
        // After `finish` this changes nothing.
        self.end.set(End::CANCELLED);
    }
}

impl Updates {
    /// Waits for the next update; `None` after the last one, and at once if the utterance was dropped unfinished.
    ///
    /// # Cancel safety
    ///
    /// When it is cancelled nothing is lost.
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }

    /// Waits for the next update, on a thread that may block.
    ///
    /// # Panics
    ///
    /// On a thread that runs asynchronous tasks.
    pub fn blocking_next(&mut self) -> Option<Update> {
        self.updates.blocking_recv()
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.updates.close();
        wake(&self.wake);
    }
}

/// What a thread of the pool runs; only the tests have another one than [`Decoder`].
trait Engine {
    fn start(&mut self) -> Result<(), PoolError>;
    fn process(&mut self, samples: &[i16]) -> Result<(), PoolError>;
    fn partial(&mut self) -> Option<String>;
    fn finish(&mut self) -> Result<Hypothesis, PoolError>;
    fn abandon(&mut self);
}

impl Engine for Decoder {
    fn start(&mut self) -> Result<(), PoolError> {
        Ok(self.start_utterance()?)
    }

    fn process(&mut self, samples: &[i16]) -> Result<(), PoolError> {
        Ok(self.process(samples)?)
    }

    fn partial(&mut self) -> Option<String> {
        self.partial()
    }

    fn finish(&mut self) -> Result<Hypothesis, PoolError> {
        Ok(self.finish()?)
    }

    fn abandon(&mut self) {
        self.abandon();
    }
}

/// What goes through the queue of an utterance. Its end is the end of the queue, which is never too full for it.
#[derive(Debug)]
enum Message {
    Samples(Vec<i16>),
    /// Nothing but a reason to look whether the utterance is still wanted.
    Wake,
}

fn wake(queue: &mpsc::WeakSender<Message>) {
    // If the sender is gone, the queue has an end; if the queue is full, nobody sleeps at it.
    if let Some(queue) = queue.upgrade() {
        let _ = queue.try_send(Message::Wake);
    }
}

/// How an utterance ended, on its way in. Set once.
#[derive(Debug)]
struct End(AtomicU8);

impl End {
    const OPEN: u8 = 0;
    const FINISHED: u8 = 1;
    const CANCELLED: u8 = 2;

    fn set(&self, end: u8) {
        let _ = self.0.compare_exchange(End::OPEN, end, Ordering::AcqRel, Ordering::Acquire);
    }

    fn is(&self, end: u8) -> bool {
        self.0.load(Ordering::Acquire) == end
    }
}

/// An utterance as the threads see it.
struct Job {
    queue: mpsc::Receiver<Message>,
    wake: mpsc::WeakSender<Message>,
    end: Arc<End>,
    updates: Reporter,
}

impl Job {
    fn is_unwanted(&self) -> bool {
        self.end.is(End::CANCELLED) || self.updates.sender.is_closed()
    }
}

struct Reporter {
    sender: mpsc::Sender<Update>,
    /// The partial text that was sent last.
    last: String,
}

impl Reporter {
    fn partial(&mut self, text: String) {
        // One place stays free for the last update.
        if text != self.last && self.sender.capacity() > 1 {
            self.last.clone_from(&text);
            let _ = self.sender.try_send(Update::Partial(text));
        }
    }

    fn last(self, update: Update) {
        // Fails only when nobody wants to know.
        let _ = self.sender.try_send(update);
    }
}

struct Shared {
    make: Box<dyn Fn() -> Result<Box<dyn Engine>, PoolError> + Send + Sync>,
    threads: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// In the order of arrival.
    waiting: VecDeque<Job>,
    workers: Vec<thread::JoinHandle<()>>,
    /// For each worker that has one, the utterance that it works on.
    running: Vec<Option<mpsc::WeakSender<Message>>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        state.waiting.retain(|job| !job.is_unwanted());
        if state.waiting.len() >= MOST_WAITING {
            return job.updates.last(Update::Failed(PoolError::Busy));
        }
        state.waiting.push_back(job);
        let free = state.running.iter().filter(|running| running.is_none()).count();
        if state.waiting.len() > free
            && state.workers.len() < self.threads
            && let Err(error) = self.add_worker(&mut state)
            && state.workers.is_empty()
            && let Some(job) = state.waiting.pop_back()
        {
            return job.updates.last(Update::Failed(PoolError::Thread(error)));
        }
        drop(state);
        self.changed.notify_one();
    }

    fn add_worker(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let index = state.workers.len();
        let shared = Arc::clone(self);
        let worker = thread::Builder::new()
            .name(format!("pocketsphinx-{index}"))
            .stack_size(STACK_BYTES)
            .spawn(move || shared.work(index))?;
        state.workers.push(worker);
        state.running.push(None);
        Ok(())
    }

    fn close(&self) -> Vec<thread::JoinHandle<()>> {
        let mut state = self.lock();
        state.is_closed = true;
        for job in state.waiting.drain(..) {
            job.updates.last(Update::Failed(PoolError::Closed));
        }
        state.running.iter().flatten().for_each(wake);
        let workers = std::mem::take(&mut state.workers);
        drop(state);
        self.changed.notify_all();
        workers
    }

    /// Serves one utterance after the other until the pool ends. `[worker thread]`
    fn work(&self, index: usize) {
        // Already now, so that it is there when the first utterance comes. If it fails, that one tries again and
        // reports it.
        let mut engine = catch_unwind(AssertUnwindSafe(|| (self.make)().ok())).unwrap_or(None);
        while let Some(Job { queue, end, mut updates, .. }) = self.next_job(index) {
            // A panic leaves no engine behind, whatever state it was in.
            let serve = || {
                let mut lent = engine.take().map_or_else(|| (self.make)(), Ok)?;
                let outcome = self.serve(&mut *lent, queue, &end, &mut updates);
                engine = Some(lent);
                outcome
            };
            let outcome = catch_unwind(AssertUnwindSafe(serve))
                .unwrap_or_else(|panic| Err(PoolError::Panicked { message: message_of(&*panic) }));
            self.lock().running[index] = None;
            match outcome {
                Ok(None) => {}
                Ok(Some(hypothesis)) => updates.last(Update::Final(hypothesis)),
                Err(error) => updates.last(Update::Failed(error)),
            }
        }
    }

    fn next_job(&self, index: usize) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            match state.waiting.pop_front() {
                Some(job) if job.is_unwanted() => {}
                Some(job) => {
                    state.running[index] = Some(job.wake.clone());
                    return Some(job);
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Serves one utterance; gives nothing for one that was cancelled.
    fn serve(
        &self,
        engine: &mut dyn Engine,
        mut queue: mpsc::Receiver<Message>,
        end: &End,
        updates: &mut Reporter,
    ) -> Result<Option<Hypothesis>, PoolError> {
        engine.start()?;
        loop {
            if self.lock().is_closed {
                engine.abandon();
                return Err(PoolError::Closed);
            }
            if end.is(End::CANCELLED) || updates.sender.is_closed() {
                engine.abandon();
                return Ok(None);
            }
            match queue.blocking_recv() {
                Some(Message::Samples(samples)) => {
                    engine.process(&samples)?;
                    if queue.is_empty()
                        && let Some(text) = engine.partial()
                    {
                        updates.partial(text);
                    }
                }
                Some(Message::Wake) => {}
                None if end.is(End::FINISHED) => return engine.finish().map(Some),
                // The way in is gone, so the next turn finds the utterance cancelled.
                None => {}
            }
        }
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
