//! Jobs of one session that run side by side.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{runtime::Handle, sync::Notify};

use super::{Wakers, guarded, guarded_until, lock, shielded};
use crate::{
    PluginError, SessionContext,
    abi::{Outcome, Status, WakerBox},
    gate::Gate,
};

/// Jobs of one session that may run at a time.
const MAX_JOBS: usize = 64;

/// The host's end of a session whose commands run side by side; dropping it closes the session.
pub(crate) struct Jobs {
    session: Arc<Session>,
}

struct Session {
    runtime: &'static Handle,
    context: SessionContext,
    running: Mutex<HashMap<u64, Arc<Gate>>>,
    ended: Notify,
    wakers: Wakers,
    /// What author code does when the session is over.
    closed: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Jobs {
    pub(crate) fn new(
        runtime: &'static Handle,
        context: SessionContext,
        closed: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let session = Session {
            runtime,
            context,
            running: Mutex::default(),
            ended: Notify::new(),
            wakers: Wakers::default(),
            closed: Mutex::new(Some(closed.boxed())),
        };
        Self { session: Arc::new(session) }
    }

    pub(crate) fn context(&self) -> &SessionContext {
        &self.session.context
    }

    /// Starts a job, unless too many run. Its gate is closed when it is cancelled, and when it has ended. It always
    /// returns how it ended.
    pub(crate) fn start<F: Future<Output = Outcome> + Send + 'static>(
        &self,
        token: u64,
        job: impl FnOnce(Arc<Gate>) -> F,
    ) -> Status {
        let session = Arc::clone(&self.session);
        let gate = Arc::new(Gate::new());
        {
            let mut running = lock(&session.running);
            // Whoever closes the session does so before it takes this lock to cancel the jobs.
            if session.context.gate().is_closed() {
                return Status::CLOSED;
            }
            let full = running.len() >= MAX_JOBS;
            match running.entry(token) {
                Entry::Occupied(_) => return Status::REFUSED,
                Entry::Vacant(_) if full => return Status::FULL,
                Entry::Vacant(entry) => entry.insert(Arc::clone(&gate)),
            };
        }
        let job = job(Arc::clone(&gate));
        self.session.runtime.spawn(async move {
            let outcome = AssertUnwindSafe(job).catch_unwind().await.unwrap_or(Outcome::FAILED);
            gate.settle();
            session.context.finished(token, outcome);
            // After that, because the session ends with its last job.
            lock(&session.running).remove(&token);
            session.wakers.wake();
            session.ended.notify_waiters();
        });
        Status::ACCEPTED
    }

    pub(crate) fn cancel(&self, token: u64) {
        shielded((), || {
            if let Some(gate) = lock(&self.session.running).get(&token) {
                gate.close();
            }
        });
    }

    /// Cancels all jobs and refuses new ones; finishes the token when the last job has ended.
    pub(crate) fn close(&self, token: u64) {
        shielded((), || {
            let session = Arc::clone(&self.session);
            if session.context.close(token) {
                lock(&session.running).values().for_each(|gate| gate.close());
                self.session.runtime.spawn(async move { session.end().await });
            }
        });
    }

    pub(crate) fn wake_when_ready(&self, waker: WakerBox) {
        shielded((), || self.session.wakers.add(waker));
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.close(0);
    }
}

impl Session {
    async fn end(&self) {
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if lock(&self.running).is_empty() {
                break;
            }
            ended.await;
        }
        self.wakers.wake();
        let closed = lock(&self.closed).take();
        if let Some(closed) = closed
            && let Err(error) = guarded(closed.map(Ok::<(), PluginError>)).await
        {
            tracing::error!("the plugin failed while a session was closed: {error}");
        }
        self.context.ended();
    }
}

/// Runs author code until it ends or is cancelled; `None` when cancelled. Its output is over then, also what clones in
/// tasks of its own have to say.
pub(crate) async fn until_cancelled<T>(
    gate: &Gate,
    work: impl Future<Output = Result<T, PluginError>>,
) -> Option<Result<T, PluginError>> {
    let result = guarded_until(gate, work).await;
    let cancelled = gate.is_closed();
    gate.settle();
    result.filter(|_| !cancelled)
}
