//! The task of one subscription: takes events from the mailbox, calls the handler, reports its failures.

use std::{
    cell::Cell,
    collections::VecDeque,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt;
use uuid::Uuid;

use super::{
    emit::{EventBus, Inner},
    handler::{Call, Failure},
    mailbox::Mailbox,
};
use crate::{
    TurnId,
    event::{
        Envelope, EventView, Stamp,
        bus::{ExceptionEvent, SubscriberLaggedEvent},
        values::{ErrorInfo, panic_message},
    },
};

/// What is being handled, for whatever the handler emits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handling {
    pub(super) event_id: Uuid,
    pub(super) turn_id: Option<TurnId>,
}

/// Whose task this is, and what its handler is at.
struct Current {
    mailbox: Arc<Mailbox>,
    handling: Cell<Option<Handling>>,
}

tokio::task_local! {
    static CURRENT: Current;
}

/// What the running handler is handling, if this is a handler's task.
pub(super) fn handling() -> Option<Handling> {
    CURRENT.try_with(|current| current.handling.get()).ok().flatten()
}

/// Whether this is the task of that subscription.
pub(super) fn is_own(mailbox: &Arc<Mailbox>) -> bool {
    CURRENT.try_with(|current| Arc::ptr_eq(&current.mailbox, mailbox)).unwrap_or(false)
}

/// Waits until the tasks of subscriptions have ended. Inside a handler it does not wait for that handler itself, nor
/// for handlers that are waiting here too: they would wait for each other without end.
pub(super) async fn wait_for_end(mailboxes: &[Arc<Mailbox>]) {
    let own = CURRENT.try_with(|current| Arc::clone(&current.mailbox)).ok();
    let _stopping = own.as_ref().map(|own| own.stopping());
    for mailbox in mailboxes {
        if !is_own(mailbox) {
            mailbox.wait_for_end(own.is_some()).await;
        }
    }
}

/// What the task of a subscription owns. Dropped when the task has finished, or by a runtime that shuts down.
pub(super) struct Task {
    /// First, so that the state of the handler is gone before the end is announced.
    call: Call,
    end: End,
}

/// Takes the subscription off all lists when it is dropped. Holds no strong handle on the bus, so that a forgotten
/// bus ends.
struct End {
    bus: Weak<Inner>,
    mailbox: Arc<Mailbox>,
}

impl Task {
    pub(super) fn new(bus: Weak<Inner>, mailbox: Arc<Mailbox>, call: Call) -> Self {
        Self { call, end: End { bus, mailbox } }
    }

    /// Runs until the mailbox is closed and empty.
    pub(super) async fn run(self) {
        let current = Current { mailbox: Arc::clone(&self.end.mailbox), handling: Cell::new(None) };
        CURRENT.scope(current, self.work()).await;
    }

    async fn work(&self) {
        let mailbox = &self.end.mailbox;
        let mut hand = VecDeque::new();
        loop {
            let notified = mailbox.items.notified();
            let open = mailbox.take(&mut hand);
            if hand.is_empty() {
                if !open {
                    return;
                }
                notified.await;
                continue;
            }
            report_lag(&self.end.bus, mailbox);
            while let Some(envelope) = hand.pop_front() {
                if !mailbox.is_cancelled() {
                    self.handle(&envelope).await;
                }
                drop_quietly(envelope);
                mailbox.finished_one();
                // Handlers that never wait would keep the other tasks of this thread from running.
                tokio::task::consume_budget().await;
            }
            if let Some(bus) = self.end.bus.upgrade() {
                bus.settled.notify_waiters();
            }
        }
    }

    async fn handle(&self, envelope: &Arc<Envelope>) {
        let mailbox = &self.end.mailbox;
        let base = envelope.base();
        let handling = Handling { event_id: base.event_id, turn_id: base.turn_id };
        CURRENT.with(|current| current.handling.set(Some(handling)));
        let attempt = attempt(&self.call, envelope, mailbox.options.timeout);
        let outcome = AssertUnwindSafe(attempt).catch_unwind().await;
        CURRENT.with(|current| current.handling.set(None));
        let error = match outcome {
            Ok(None) => return,
            Ok(Some(outcome)) => outcome.err(),
            Err(panic) => {
                let error = ErrorInfo::panic(panic_message(&*panic));
                drop_quietly(panic);
                Some(error)
            }
        };
        mailbox.delivered.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = error {
            mailbox.failures.fetch_add(1, Ordering::Relaxed);
            report_failure(&self.end.bus, mailbox, envelope, error);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let bus = self.bus.upgrade();
        let unlisted = bus.as_ref().is_some_and(|bus| bus.unlist(&self.mailbox));
        // Something is left only if the runtime dropped the task.
        let forgotten = self.mailbox.cancel();
        self.mailbox.task_ended();
        if let Some(bus) = bus {
            bus.settled.notify_waiters();
            if unlisted {
                bus.interest_changed();
            }
        }
        drop(forgotten);
    }
}

/// Calls the handler; `None` when the event is not of a type that it takes. Everything of the user's that may panic,
/// down to the destructor of the error, runs in here.
async fn attempt(
    call: &Call,
    envelope: &Arc<Envelope>,
    timeout: Option<Duration>,
) -> Option<Result<(), ErrorInfo>> {
    let running = call(envelope)?;
    let outcome = with_timeout(timeout, running).await;
    Some(outcome.map_err(|failure| {
        let mut error = ErrorInfo::from_error(&*failure, true);
        if failure.is::<TimedOut>() {
            error.kind = "timeout".to_owned();
        }
        error
    }))
}

/// The handler ran longer than its subscription allows.
#[derive(Debug, thiserror::Error)]
#[error("the handler was stopped after {} ms, its timeout", .0.as_millis())]
struct TimedOut(Duration);

async fn with_timeout(
    timeout: Option<Duration>,
    running: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let Some(timeout) = timeout else { return running.await };
    let mut running = std::pin::pin!(running);
    // Most handlers are done at the first poll; a timer would cost more than they do.
    let first = std::future::poll_fn(|context| Poll::Ready(running.as_mut().poll(context))).await;
    if let Poll::Ready(outcome) = first {
        return outcome;
    }
    match tokio::time::timeout(timeout, running).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TimedOut(timeout).into()),
    }
}

/// Drops something of the user's whose destructor may panic; the task must survive that.
fn drop_quietly<T>(value: T) {
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(value))) {
        tracing::error!(panic = panic_message(&*panic), "the destructor of an event or a panic panicked");
        std::mem::forget(panic);
    }
}

fn report_failure(bus: &Weak<Inner>, mailbox: &Mailbox, envelope: &Envelope, exc: ErrorInfo) {
    let handler = mailbox.info();
    tracing::warn!(
        handler = handler.name,
        location = handler.location,
        event = envelope.event_type(),
        error = exc.message,
        "an event handler failed"
    );
    // A failing handler of exceptions would answer itself for ever.
    if envelope.event_type() == ExceptionEvent::NAME {
        return;
    }
    let base = envelope.base();
    let event = ExceptionEvent {
        exc,
        handler,
        source_type: base.event_type.to_string(),
        source_event_id: base.event_id,
    };
    let stamp = Stamp { turn_id: base.turn_id, causation_id: Some(base.event_id), ..Stamp::default() };
    if let Some(inner) = bus.upgrade() {
        EventBus::from_inner(inner).emit_in(base.session_id, event, stamp);
    }
}

/// Tells of events that the subscription lost since the last call.
pub(super) fn report_lag(bus: &Weak<Inner>, mailbox: &Mailbox) {
    let dropped = mailbox.take_unreported();
    if dropped == 0 {
        return;
    }
    let handler = mailbox.info();
    tracing::warn!(
        handler = handler.name,
        location = handler.location,
        dropped,
        "a subscription lost events"
    );
    if let Some(inner) = bus.upgrade() {
        let event = SubscriberLaggedEvent { handler, dropped, event_type: None };
        EventBus::from_inner(inner).emit_in(mailbox.session_id(), event, Stamp::default());
    }
}
