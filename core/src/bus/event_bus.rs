//! The handle on a bus.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};

use serde::Serialize;
use tokio::runtime::Handle;

use super::{
    api::emit_and_subscribe,
    deliver,
    emit::{Emitted, Inner, Manner},
    handler::{HandlerFuture, HandlerOutput},
    json::{EmitJsonError, UnknownType},
    mailbox::{Mailbox, Stats},
    session::SessionBus,
    settle::Settled,
    stream::EventStream,
    subscription::{Subscription, SubscriptionBuilder, WaitError},
};
use crate::{
    Clock, SystemClock,
    event::{
        EventPayload, EventRegistry, EventType, FromEvent, Stamp, bus::ExceptionEvent, values::HandlerInfo,
    },
};

/// The bus of one host. Clones are handles on the same bus.
#[derive(Clone)]
pub struct EventBus {
    inner: Arc<Inner>,
}

impl EventBus {
    /// A bus on the current tokio runtime, with the machine's clock.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime; [`EventBus::with`] takes one.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Handle::current(), Arc::new(SystemClock::new()))
    }

    /// A bus whose handlers run on `runtime` and whose events are stamped by `clock`.
    #[must_use]
    pub fn with(runtime: Handle, clock: Arc<dyn Clock>) -> Self {
        Self { inner: Inner::new(runtime, clock) }
    }

    pub(super) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// A handle that does not keep the bus alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakEventBus {
        WeakEventBus(Arc::downgrade(&self.inner))
    }

    /// The event types that this host knows.
    #[must_use]
    pub fn registry(&self) -> &Arc<EventRegistry> {
        &self.inner.registry
    }

    /// The clock that stamps the events.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Opens a session with a fresh id. It ends when it is closed, or when its last handle is dropped; a handler that
    /// holds one keeps it open, and may rather hold what [`SessionBus::downgrade`] gives.
    #[must_use]
    pub fn open_session(&self) -> SessionBus {
        SessionBus { scope: self.inner.open_scope(), bus: self.clone() }
    }

    emit_and_subscribe!(this, this, &this.inner.host, None, "the host and of all sessions");

    /// Subscribes an async function or closure to what its argument says, one event type, a union, a base type, for the
    /// events of the host and of all sessions. The subscription ends when the returned guard is dropped.
    #[track_caller]
    pub fn subscribe<F, H, Fut>(&self, handler: H) -> Subscription
    where
        F: FromEvent,
        H: Fn(F) -> Fut + Send + Sync + 'static, // `async move` that captures: see `subscribe_with`
        Fut: HandlerFuture + Send + 'static,
        Fut::Output: HandlerOutput,
    {
        self.subscription().subscribe(handler)
    }

    /// Subscribes a handler that shares state, for closures that would capture (an `async move` closure that captures
    /// cannot be called twice at a time, so it is no handler).
    #[track_caller]
    pub fn subscribe_with<S, F, H, Fut>(&self, state: Arc<S>, handler: H) -> Subscription
    where
        S: Send + Sync + 'static,
        F: FromEvent,
        H: Fn(Arc<S>, F) -> Fut + Send + Sync + 'static,
        Fut: HandlerFuture + Send + 'static,
        Fut::Output: HandlerOutput,
    {
        self.subscription().subscribe_with(state, handler)
    }

    /// Subscribes a handler for one event, the first that comes; see [`SubscriptionBuilder::once`].
    #[track_caller]
    pub fn once<F, H, Fut>(&self, handler: H) -> Subscription
    where
        F: FromEvent,
        H: Fn(F) -> Fut + Send + Sync + 'static, // `async move` that captures: see `subscribe_with`
        Fut: HandlerFuture + Send + 'static,
        Fut::Output: HandlerOutput,
    {
        self.subscription().once(handler)
    }

    /// Whether any subscription of the host or of a session wants events of a type.
    #[must_use]
    pub fn is_wanted(&self, event: &EventType) -> bool {
        !self.inner.interest.is_unwanted(event)
    }

    /// Calls `watcher` whenever what is wanted may have changed, from the thread that changed it, until the guard is dropped.
    pub fn on_interest_change(&self, watcher: impl Fn() + Send + Sync + 'static) -> InterestWatch {
        InterestWatch { number: self.inner.interest.watch(watcher), bus: Arc::downgrade(&self.inner) }
    }

    /// No longer delivers the events that a pattern names: an exact type (with those that extend it), a prefix such as
    /// `tts.*`, or `*`. They are not numbered either; each subscription counts them as muted.
    pub fn mute(&self, pattern: impl Into<String>) {
        let pattern = pattern.into();
        self.inner.interest.change(|muted, _| muted.add_pattern(pattern));
    }

    /// Takes back what [`EventBus::mute`] said of this very pattern.
    pub fn unmute(&self, pattern: &str) {
        self.inner.interest.change(|muted, _| muted.remove_pattern(pattern));
    }

    /// Leaves the events that a pattern names out of the `tracing` spans of handlers. They are delivered all the same.
    pub fn silence(&self, pattern: impl Into<String>) {
        let pattern = pattern.into();
        self.inner.interest.change(|_, silent| silent.add_pattern(pattern));
    }

    /// Takes back what [`EventBus::silence`] said of this very pattern.
    pub fn unsilence(&self, pattern: &str) {
        self.inner.interest.change(|_, silent| silent.remove_pattern(pattern));
    }

    /// Who is subscribed, and how each is doing.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionReport> {
        let report = |mailbox: Arc<Mailbox>| SubscriptionReport {
            handler: mailbox.info(),
            receives: mailbox.options.filter.to_string(),
            stats: mailbox.stats(),
        };
        self.inner.mailboxes().into_iter().map(report).collect()
    }

    /// Waits until every queue is empty, every handler done, and what has ended is gone; `false` when `deadline` comes first. Inside a handler
    /// it does not wait for that handler; two handlers that both drain wait for each other until the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only gives up the wait.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let is_idle = |mailbox: &Arc<Mailbox>| mailbox.queue.is_idle() || super::current::is_own(mailbox);
        let settled = self.inner.shards.settled.until(|| self.inner.live().iter().all(is_idle));
        tokio::time::timeout(deadline, settled).await.is_ok()
    }

    /// Ends all subscriptions after they have handled what waits for them, and last those that hear of failures, so that
    /// what fails on the way out is told too; later ones end at once. May be called from inside a handler, which then is
    /// not waited for, nor are other handlers that are in here too.
    ///
    /// # Cancel safety
    ///
    /// The end begins at the first poll; dropping the future only gives up the wait.
    pub async fn shutdown(&self) {
        self.inner.shut();
        close(self.inner.live()).await;
    }
}

/// Closes subscriptions, and last those that hear of failures.
pub(super) async fn close(mailboxes: Vec<Arc<Mailbox>>) {
    let hears_of_failures =
        |mailbox: &Arc<Mailbox>| mailbox.options.filter.wants(ExceptionEvent::event_type());
    let (last, first): (Vec<_>, Vec<_>) = mailboxes.into_iter().partition(hears_of_failures);
    // Dropped also when the wait is given up.
    let closing_last = CloseOnDrop(&last);
    drop(CloseOnDrop(&first));
    deliver::wait_for_end(&first).await;
    drop(closing_last);
    deliver::wait_for_end(&last).await;
}

/// Mailboxes that take nothing any more from when this is dropped.
struct CloseOnDrop<'a>(&'a [Arc<Mailbox>]);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|mailbox| mailbox.close());
    }
}

/// A handle that does not keep its bus alive, for whatever the bus itself holds.
#[derive(Debug, Clone)]
pub struct WeakEventBus(Weak<Inner>);

impl WeakEventBus {
    /// The bus, while it lives.
    #[must_use]
    pub fn upgrade(&self) -> Option<EventBus> {
        self.0.upgrade().map(EventBus::from_inner)
    }
}

/// Watches what is wanted, until it is dropped.
#[derive(Debug)]
#[must_use = "the watch ends when this is dropped"]
pub struct InterestWatch {
    bus: Weak<Inner>,
    number: u64,
}

impl Drop for InterestWatch {
    fn drop(&mut self) {
        if let Some(bus) = self.bus.upgrade() {
            bus.interest.unwatch(self.number);
        }
    }
}

/// One subscription as [`EventBus::subscriptions`] lists it.
#[derive(Debug, Clone, Serialize)]
pub struct SubscriptionReport {
    /// Which it is.
    pub handler: HandlerInfo,
    /// What it receives: types, bases and patterns.
    pub receives: String,
    /// How it is doing.
    pub stats: Stats,
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus")
            .field("subscriptions", &self.inner.mailboxes().len())
            .finish_non_exhaustive()
    }
}
