//! Making a subscription, and the guard that holds it.

use std::{
    panic::Location,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    deliver::{self, Task},
    emit::{EventBus, Inner, Scope},
    handler::{HandlerFuture, HandlerOutput, erase},
    mailbox::{Mailbox, Options, Stats},
    stream::EventStream,
};
use crate::event::{BaseEvent, Event, Filter, FromEvent, Overflow};

/// Events that wait for one subscription before its overflow policy decides. Some seconds of a busy session.
const DEFAULT_CAPACITY: usize = 1024;

/// A subscription in the making. Without [`patterns`](Self::patterns), its handler's argument says what it receives.
#[derive(Debug)]
#[must_use = "a builder does nothing until `subscribe`, `subscribe_with` or `stream`"]
pub struct SubscriptionBuilder {
    bus: EventBus,
    scope: Option<Arc<Scope>>,
    options: Options,
}

impl SubscriptionBuilder {
    #[track_caller]
    pub(super) fn new(bus: EventBus, scope: Option<Arc<Scope>>) -> Self {
        let options = Options {
            name: String::new(),
            location: Location::caller(),
            filter: Filter::default(),
            capacity: DEFAULT_CAPACITY,
            overflow: None,
            timeout: None,
        };
        Self { bus, scope, options }
    }

    /// Names the subscription in listings and exceptions. Default: the Rust path of the handler.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Receives what one of the patterns names, also of types this program was not compiled with: an exact type, a
    /// prefix such as `tts.*`, or `*`. The handler takes `Event<BaseEvent>` and reads the event's JSON.
    pub fn patterns<P: Into<String>>(mut self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.options.filter = Filter::patterns(patterns);
        self
    }

    /// Events that may wait (at least 1). Default: 1,024.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.options.capacity = capacity.max(1);
        self
    }

    /// What a full queue does. Default: what the event type says, see [`Overflow`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.options.overflow = Some(overflow);
        self
    }

    /// Stops a call of the handler that takes longer; that is a failure. Default: none.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Starts the subscription.
    pub fn subscribe<F, H, Fut>(mut self, handler: H) -> Subscription
    where
        F: FromEvent,
        H: Fn(F) -> Fut + Send + Sync + 'static, // `async move` that captures: see `subscribe_with`
        Fut: HandlerFuture + Send + 'static,
        Fut::Output: HandlerOutput,
    {
        self.name_after::<H>();
        let runtime = self.bus.runtime().clone();
        let subscription = self.open::<F>(true);
        let Subscription { bus, mailbox, .. } = &subscription;
        runtime.spawn(Task::new(Weak::clone(bus), Arc::clone(mailbox), erase(handler)).run());
        subscription
    }

    /// Starts the subscription with state that the calls share.
    pub fn subscribe_with<S, F, H, Fut>(mut self, state: Arc<S>, handler: H) -> Subscription
    where
        S: Send + Sync + 'static,
        F: FromEvent,
        H: Fn(Arc<S>, F) -> Fut + Send + Sync + 'static,
        Fut: HandlerFuture + Send + 'static,
        Fut::Output: HandlerOutput,
    {
        self.name_after::<H>();
        self.subscribe(move |event: F| handler(Arc::clone(&state), event))
    }

    /// The events as a stream.
    #[must_use]
    pub fn stream<F: FromEvent>(mut self) -> EventStream<F> {
        self.name_after::<EventStream<F>>();
        EventStream::new(self.open::<F>(false))
    }

    fn open<F: FromEvent>(mut self, has_task: bool) -> Subscription {
        let mut taken = Filter::default();
        F::extend_filter(&mut taken);
        for info in taken.infos() {
            self.bus.registry().register(info);
        }
        if self.options.filter.is_empty() {
            self.options.filter = taken;
        }
        let mailbox = self.bus.open_mailbox(self.scope.as_ref(), self.options, has_task);
        Subscription { bus: self.bus.weak_inner(), mailbox, detached: false }
    }

    fn name_after<H>(&mut self) {
        if self.options.name.is_empty() {
            self.options.name = std::any::type_name::<H>().to_owned();
        }
    }
}

/// A running subscription; dropping it ends it after the call that is running.
///
/// It is no handle on the bus, nor on a session: when the last of those is
/// dropped, it ends too.
#[derive(Debug)]
#[must_use = "the subscription ends when this is dropped: keep it, or `detach()` it"]
pub struct Subscription {
    bus: Weak<Inner>,
    pub(super) mailbox: Arc<Mailbox>,
    detached: bool,
}

impl Subscription {
    /// Lets the subscription run until its session or its bus ends.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// Ends the subscription. Afterwards its handler does not run any more. Called from inside that handler, the current
    /// call is the last; and a handler that is itself waiting for the end of others is not waited for in a handler.
    ///
    /// # Cancel safety
    ///
    /// The end begins at the first poll; dropping the future only gives up the wait.
    pub async fn unsubscribe(self) {
        let mailbox = Arc::clone(&self.mailbox);
        drop(self);
        deliver::wait_for_end(&[mailbox]).await;
    }

    /// How it is doing.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.mailbox.stats()
    }

    /// An event was taken from the mailbox of a stream.
    pub(super) fn taken(&self) {
        deliver::report_lag(&self.bus, &self.mailbox);
        if self.mailbox.is_idle()
            && let Some(bus) = self.bus.upgrade()
        {
            bus.settled.notify_waiters();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        let forgotten = self.mailbox.cancel();
        if let Some(bus) = self.bus.upgrade() {
            // A task takes itself off the list of what a shutdown waits for.
            let unrouted =
                if self.mailbox.has_task() { bus.unroute(&self.mailbox) } else { bus.unlist(&self.mailbox) };
            bus.settled.notify_waiters();
            if unrouted {
                bus.interest_changed();
            }
        }
        drop(forgotten);
    }
}

/// Checked at compile time: a handler of everything is an ordinary handler.
const _: fn(&EventBus) -> Subscription = |bus| bus.subscribe(async |_: Event<BaseEvent>| ());
