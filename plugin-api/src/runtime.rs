//! The plugin's own runtime, and what runs on it: sessions that take commands one after the other, and jobs that run
//! side by side.
//!
//! Nothing here blocks the calling thread, which is the host's, and no panic of author code passes it.

use std::{
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use abi_stable::erased_types::TD_Opaque;
use antiphon_core::event::values::panic_message;
use futures_util::FutureExt;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Notify, mpsc},
};

use crate::{
    PluginError, SessionContext,
    abi::{Outcome, Status, WakerBox, WakerV1},
};

/// Commands that may wait for a session: five seconds of 20 ms chunks.
const COMMAND_CAPACITY: usize = 256;

/// Jobs of one session that may run at a time.
const MAX_JOBS: usize = 64;

/// The runtime of this library; made at first use, never ended, because the library is never unloaded.
pub(crate) fn handle(name: &str) -> Result<&'static Handle, PluginError> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if RUNTIME.get().is_none() {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        // Whoever comes second drops its runtime; that may not happen on a runtime thread, and this is none.
        let _ = RUNTIME.set(runtime);
    }
    Ok(RUNTIME.get().expect("set above").handle())
}

/// Runs author code so that a panic becomes an error.
pub(crate) async fn guarded<T>(work: impl Future<Output = Result<T, PluginError>>) -> Result<T, PluginError> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(PluginError::panic(panic_message(&*panic))),
    }
}

/// Runs code that was called from the other side of the ABI; a panic, which is a bug of this crate, becomes `otherwise`.
pub(crate) fn shielded<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

struct NotifyWaker(Arc<Notify>);

impl WakerV1 for NotifyWaker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// A waker for the other side to ring.
#[must_use]
pub fn waker(notify: &Arc<Notify>) -> WakerBox {
    WakerBox::from_value(NotifyWaker(Arc::clone(notify)), TD_Opaque)
}

/// Repeats an attempt until it is not answered by [`Status::FULL`].
///
/// # Cancel safety
///
/// Nothing was sent while the future is pending.
pub async fn when_ready(mut attempt: impl FnMut() -> Status, register: impl Fn(WakerBox)) -> Status {
    loop {
        match attempt() {
            Status::FULL => {}
            status => return status,
        }
        let room = Arc::new(Notify::new());
        register(waker(&room));
        // Room that came before the waker was registered would not ring it.
        match attempt() {
            Status::FULL => room.notified().await,
            status => return status,
        }
    }
}

#[derive(Default)]
struct Wakers(Mutex<Vec<WakerBox>>);

impl Wakers {
    fn add(&self, waker: WakerBox) {
        lock(&self.0).push(waker);
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut *lock(&self.0));
        for waker in wakers {
            waker.wake();
        }
    }
}

/// The host's end of a session that takes commands one after the other.
pub(crate) struct Commands<C> {
    sender: mpsc::Sender<C>,
    closing: Arc<Closing>,
    wakers: Arc<Wakers>,
}

#[derive(Default)]
struct Closing {
    token: OnceLock<u64>,
    ring: Notify,
}

impl<C> Commands<C> {
    pub(crate) fn push(&self, command: C) -> Status {
        shielded(Status::CLOSED, || {
            if self.closing.token.get().is_some() {
                return Status::CLOSED;
            }
            match self.sender.try_send(command) {
                Ok(()) => Status::ACCEPTED,
                Err(mpsc::error::TrySendError::Full(_)) => Status::FULL,
                Err(mpsc::error::TrySendError::Closed(_)) => Status::CLOSED,
            }
        })
    }

    pub(crate) fn close(&self, token: u64) {
        // A second close has nothing to answer.
        let _ = self.closing.token.set(token);
        self.closing.ring.notify_one();
    }

    pub(crate) fn wake_when_ready(&self, waker: WakerBox) {
        shielded((), || self.wakers.add(waker));
    }
}

/// A session that takes commands one after the other.
pub(crate) trait Serial: Send + Sized + 'static {
    type Command: Send + 'static;

    /// The token to finish after the command, or 0.
    fn token(command: &Self::Command) -> u64;

    fn handle(&mut self, command: Self::Command) -> impl Future<Output = Result<(), PluginError>> + Send;

    /// Tells the host of an error, as an event.
    fn report(context: &SessionContext, error: &PluginError) -> impl Future<Output = ()> + Send;

    /// The session is over.
    fn closed(context: &SessionContext) -> impl Future<Output = ()> + Send;
}

/// Starts a serial session.
pub(crate) fn spawn_serial<S: Serial>(
    runtime: &Handle,
    context: SessionContext,
    open: impl Future<Output = Result<S, PluginError>> + Send + 'static,
) -> Commands<S::Command> {
    let (sender, receiver) = mpsc::channel(COMMAND_CAPACITY);
    let (closing, wakers) = (Arc::new(Closing::default()), Arc::new(Wakers::default()));
    runtime.spawn(run_serial::<S>(context, open, receiver, Arc::clone(&closing), Arc::clone(&wakers)));
    Commands { sender, closing, wakers }
}

async fn run_serial<S: Serial>(
    context: SessionContext,
    open: impl Future<Output = Result<S, PluginError>> + Send,
    mut receiver: mpsc::Receiver<S::Command>,
    closing: Arc<Closing>,
    wakers: Arc<Wakers>,
) {
    let mut session = tokio::select! {
        biased;
        () = closing.ring.notified() => None,
        opened = guarded(open) => match opened {
            Ok(session) => Some(session),
            Err(error) => {
                S::report(&context, &error).await;
                None
            }
        }
    };
    while closing.token.get().is_none() {
        let command = tokio::select! {
            biased;
            () = closing.ring.notified() => break,
            command = receiver.recv() => command,
        };
        wakers.wake();
        let Some(command) = command else { break };
        let token = S::token(&command);
        let Some(open) = &mut session else {
            context.finished(token, Outcome::FAILED);
            continue;
        };
        let result = tokio::select! {
            biased;
            () = closing.ring.notified() => {
                context.finished(token, Outcome::CANCELLED);
                break;
            }
            result = guarded(open.handle(command)) => result,
        };
        match result {
            Ok(()) => context.finished(token, Outcome::COMPLETED),
            Err(error) => {
                S::report(&context, &error).await;
                context.finished(token, Outcome::FAILED);
            }
        }
    }
    receiver.close();
    wakers.wake();
    while let Ok(command) = receiver.try_recv() {
        context.finished(S::token(&command), Outcome::CANCELLED);
    }
    let opened = session.is_some();
    if std::panic::catch_unwind(AssertUnwindSafe(|| drop(session))).is_err() {
        tracing::error!("a session panicked while it was dropped");
    }
    if opened {
        S::closed(&context).await;
    }
    context.finished(closing.token.get().copied().unwrap_or_default(), Outcome::COMPLETED);
}

/// Jobs of one session that run side by side.
pub(crate) struct Jobs {
    running: Mutex<Running>,
    ended: Notify,
    wakers: Wakers,
}

#[derive(Default)]
struct Running {
    jobs: HashMap<u64, Arc<Notify>>,
    closed: bool,
}

impl Jobs {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), ended: Notify::new(), wakers: Wakers::default() })
    }

    /// Starts a job, unless too many run. `job` gets a [`Notify`] that rings when it is cancelled, and always returns
    /// how it ended.
    pub(crate) fn start<F: Future<Output = Outcome> + Send + 'static>(
        self: &Arc<Self>,
        runtime: &Handle,
        context: &SessionContext,
        token: u64,
        job: impl FnOnce(Arc<Notify>) -> F,
    ) -> Status {
        let cancel = Arc::new(Notify::new());
        {
            let mut running = lock(&self.running);
            if running.closed {
                return Status::CLOSED;
            }
            if running.jobs.len() >= MAX_JOBS {
                return Status::FULL;
            }
            if running.jobs.contains_key(&token) {
                return Status::REFUSED;
            }
            running.jobs.insert(token, Arc::clone(&cancel));
        }
        let (jobs, context, job) = (Arc::clone(self), context.clone(), job(cancel));
        runtime.spawn(async move {
            let outcome = AssertUnwindSafe(job).catch_unwind().await.unwrap_or(Outcome::FAILED);
            lock(&jobs.running).jobs.remove(&token);
            context.finished(token, outcome);
            jobs.wakers.wake();
            jobs.ended.notify_waiters();
        });
        Status::ACCEPTED
    }

    pub(crate) fn cancel(&self, token: u64) {
        if let Some(cancel) = lock(&self.running).jobs.get(&token) {
            cancel.notify_one();
        }
    }

    /// Cancels all jobs and refuses new ones; finishes the token when the last job has ended.
    pub(crate) fn close<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        runtime: &Handle,
        context: &SessionContext,
        token: u64,
        closed: F,
    ) {
        {
            let mut running = lock(&self.running);
            if std::mem::replace(&mut running.closed, true) {
                return;
            }
            running.jobs.values().for_each(|cancel| cancel.notify_one());
        }
        let (jobs, context) = (Arc::clone(self), context.clone());
        runtime.spawn(async move {
            loop {
                let mut ended = std::pin::pin!(jobs.ended.notified());
                ended.as_mut().enable();
                if lock(&jobs.running).jobs.is_empty() {
                    break;
                }
                ended.await;
            }
            jobs.wakers.wake();
            closed.await;
            context.finished(token, Outcome::COMPLETED);
        });
    }

    pub(crate) fn wake_when_ready(&self, waker: WakerBox) {
        shielded((), || self.wakers.add(waker));
    }
}

/// Runs author code until it ends or is cancelled; `None` when cancelled.
pub(crate) async fn until_cancelled<T>(
    cancel: &Notify,
    work: impl Future<Output = Result<T, PluginError>>,
) -> Option<Result<T, PluginError>> {
    tokio::select! {
        biased;
        () = cancel.notified() => None,
        result = guarded(work) => Some(result),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
