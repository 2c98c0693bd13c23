//! Sessions that take commands one after the other.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{runtime::Handle, sync::mpsc};

use super::{Wakers, guarded_until, shielded};
use crate::{
    PluginError, SessionContext,
    abi::{Outcome, Status, WakerBox},
};

/// Commands that may wait for a session: five seconds of 20 ms chunks.
const COMMAND_CAPACITY: usize = 256;

/// The host's end of a session; dropping it closes the session.
pub(crate) struct Commands<C> {
    sender: mpsc::Sender<C>,
    context: SessionContext,
    wakers: Arc<Wakers>,
}

impl<C> Commands<C> {
    pub(crate) fn push(&self, command: C) -> Status {
        shielded(Status::CLOSED, || {
            if self.context.gate().is_closed() {
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
        shielded((), || {
            self.context.close(token);
        });
    }

    pub(crate) fn wake_when_ready(&self, waker: WakerBox) {
        shielded((), || self.wakers.add(waker));
    }
}

impl<C> Drop for Commands<C> {
    fn drop(&mut self) {
        self.close(0);
    }
}

/// A session that takes commands one after the other.
pub(crate) trait Serial: Send + Sized + 'static {
    type Command: Send + 'static;

    /// The token to finish after the command, or 0.
    fn token(command: &Self::Command) -> u64;

    fn handle(&mut self, command: Self::Command) -> impl Future<Output = Result<(), PluginError>> + Send;

    /// Tells the host of an error, as an event; `session` is none when it could not be opened.
    fn report(
        session: Option<&mut Self>,
        context: &SessionContext,
        error: &PluginError,
    ) -> impl Future<Output = ()> + Send;

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
    let wakers = Arc::new(Wakers::default());
    runtime.spawn(run_serial::<S>(context.clone(), open, receiver, Arc::clone(&wakers)));
    Commands { sender, context, wakers }
}

async fn run_serial<S: Serial>(
    context: SessionContext,
    open: impl Future<Output = Result<S, PluginError>> + Send,
    mut receiver: mpsc::Receiver<S::Command>,
    wakers: Arc<Wakers>,
) {
    let mut session = match guarded_until(context.gate(), open).await {
        Some(Ok(session)) => Some(session),
        Some(Err(error)) => {
            S::report(None, &context, &error).await;
            None
        }
        None => None,
    };
    loop {
        let command = tokio::select! {
            biased;
            () = context.gate().closed() => break,
            command = receiver.recv() => command,
        };
        // The object was dropped, which closed the session just now.
        let Some(command) = command else { break };
        wakers.wake();
        let token = S::token(&command);
        let outcome = match &mut session {
            Some(session) => handle(&context, session, command).await,
            None => Outcome::FAILED,
        };
        context.finished(token, outcome);
    }
    receiver.close();
    wakers.wake();
    // Until it is empty and nobody is about to send: what was accepted is answered.
    while let Some(command) = receiver.recv().await {
        context.finished(S::token(&command), Outcome::CANCELLED);
    }
    let opened = session.is_some();
    if catch_unwind(AssertUnwindSafe(|| drop(session))).is_err() {
        tracing::error!("a session panicked while it was dropped");
    }
    if opened {
        S::closed(&context).await;
    }
    context.ended();
}

async fn handle<S: Serial>(context: &SessionContext, session: &mut S, command: S::Command) -> Outcome {
    match guarded_until(context.gate(), session.handle(command)).await {
        Some(Ok(())) => Outcome::COMPLETED,
        Some(Err(error)) => {
            S::report(Some(session), context, &error).await;
            Outcome::FAILED
        }
        None => Outcome::CANCELLED,
    }
}
