//! Making a subscription, and the guard that holds it.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    panic::Location,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    deliver,
    emit::Inner,
    event_bus::EventBus,
    handler::{Handler, HandlerFuture, HandlerOutput, Look, erase},
    lock,
    mailbox::{Mailbox, Stats},
    options::{Answers, Options},
    scope::Scope,
    stream::EventStream,
};
use crate::event::{BaseEvent, Event, EventView, Filter, FromEvent, Overflow, values::HandlerInfo};

/// Events that wait for one subscription before its overflow policy decides. Some seconds of a busy session.
const DEFAULT_CAPACITY: usize = 1024;

/// What is done with the events of a subscription.
pub(super) enum Work {
    Handler(Handler),
    Tap(Look),
    Stream,
}

/// A subscription in the making. Without [`patterns`](Self::patterns), its handler's argument says what it receives.
#[must_use = "a builder does nothing until `subscribe`, `subscribe_with`, `once`, `observe`, `wait_for` or `stream`"]
pub struct SubscriptionBuilder {
    bus: EventBus,
    scope: Option<Arc<Scope>>,
    options: Options,
}

/// Why no event came that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The time is over.
    #[error("no such event came within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The session or the bus has ended.
    #[error("the session or the bus ended before such an event came")]
    Closed,
}

impl SubscriptionBuilder {
    #[track_caller]
    pub(super) fn new(bus: EventBus, scope: Option<Arc<Scope>>) -> Self {
        let options = Options {
            name: Cow::Borrowed(""),
            location: Location::caller(),
            filter: Filter::default(),
            capacity: DEFAULT_CAPACITY,
            overflow: None,
            key: None,
            timeout: None,
            concurrency: 1,
            suspend_after: None,
            once: false,
            unique: false,
            answers: Answers::default(),
        };
        Self { bus, scope, options }
    }

    /// Names the subscription in listings and exceptions. Default: the Rust path of the handler.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Names the subscription, and ends the one that has this name on the same bus or session, so that subscribing twice
    /// leaves one.
    pub fn unique(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.options.unique = true;
        self.name(name)
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

    /// Lets a full queue keep only the newest event of each key: [`Overflow::Coalesce`], with a key of one's own. An event of
    /// another type than `T` stands for those of its type and session.
    pub fn coalesce_by<T: EventView, K: Hash>(
        mut self,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> Self {
        self.options.overflow = Some(Overflow::Coalesce);
        self.options.key = Some(Arc::new(move |envelope| {
            let mut hasher = DefaultHasher::new();
            key(T::view(envelope)?).hash(&mut hasher);
            Some(hasher.finish())
        }));
        self
    }

    /// Stops a call of the handler that takes longer; that is a failure. Default: none.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Lets up to `calls` calls of the handler wait at a time (at least 1). Calls still begin in the order of the events, but
    /// end in any. Default: 1.
    pub fn concurrent(mut self, calls: u32) -> Self {
        self.options.concurrency = calls.max(1);
        self
    }

    /// Mutes the subscription when this many calls (at least 1) fail in a row, and tells so with
    /// [`SubscriptionSuspendedEvent`](crate::event::bus::SubscriptionSuspendedEvent), until [`Subscription::unmute`].
    /// Default: never.
    pub fn suspend_after(mut self, failures: u32) -> Self {
        self.options.suspend_after = Some(failures.max(1));
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
        let handler = erase(handler, self.options.concurrency);
        self.open::<F>(Work::Handler(handler))
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

    /// Starts the subscription, which ends by itself after its first call.
    pub fn once<F, H, Fut>(mut self, handler: H) -> Subscription
    where
        F: FromEvent,
        H: Fn(F) -> Fut + Send + Sync + 'static, // `async move` that captures: see `subscribe_with`
        Fut: HandlerFuture + Send + 'static,
        Fut::Output: HandlerOutput,
    {
        self.options.once = true;
        self.options.concurrency = 1;
        self.subscribe(handler)
    }

    /// Calls a function at once, on the thread that emits, before `emit` returns: for counters and logs that must cost next to
    /// nothing. It has no queue, so capacity, overflow, timeout and the like say nothing to it. It must not block; where
    /// several threads emit into one session, it may see their events in another order than that of `seq`.
    pub fn observe<F: FromEvent>(mut self, tap: impl Fn(F) + Send + Sync + 'static) -> Subscription {
        self.name_after_value(&tap);
        self.open::<F>(Work::Tap(Box::new(move |envelope| match F::from_envelope(envelope) {
            Ok(event) => {
                tap(event);
                true
            }
            Err(_) => false,
        })))
    }

    /// Waits for the first event, from this call on, for which `predicate` holds.
    ///
    /// The predicate runs on the thread that emits, so it must not block, and no event is missed however fast they come.
    ///
    /// # Errors
    ///
    /// [`WaitError::Timeout`] after `timeout`, [`WaitError::Closed`] when the session or the bus ends before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait.
    pub fn wait_for<F: FromEvent, P: Fn(&F) -> bool + Send + Sync + 'static>(
        self,
        predicate: P,
        timeout: Duration,
    ) -> impl Future<Output = Result<F, WaitError>> + Send + use<F, P> {
        let (sender, receiver) = oneshot::channel();
        let sender = Mutex::new(Some(sender));
        let guard = self.observe(move |event: F| {
            if predicate(&event) {
                // Sending wakes the waiter, and wakers do not run under a lock.
                let sender = lock(&sender).take();
                let _ = sender.map(|sender| sender.send(event));
            }
        });
        async move {
            let closed = guard.closed();
            let first = async {
                tokio::select! {
                    biased;
                    event = receiver => event.map_err(|_| WaitError::Closed),
                    () = closed => Err(WaitError::Closed),
                }
            };
            tokio::time::timeout(timeout, first).await.unwrap_or(Err(WaitError::Timeout(timeout)))
        }
    }

    /// The events as a stream.
    #[must_use]
    pub fn stream<F: FromEvent>(mut self) -> EventStream<F> {
        self.name_after::<EventStream<F>>();
        EventStream::new(self.open::<F>(Work::Stream))
    }

    fn open<F: FromEvent>(mut self, work: Work) -> Subscription {
        let mut taken = Filter::default();
        F::extend_filter(&mut taken);
        for info in taken.infos() {
            self.bus.registry().register(info);
        }
        if self.options.filter.is_empty() {
            self.options.filter = taken;
        }
        let inner = self.bus.inner();
        let mailbox = inner.open_mailbox(self.scope.as_ref(), self.options, work);
        Subscription { bus: Arc::downgrade(inner), mailbox, detached: false }
    }

    fn name_after<H>(&mut self) {
        if self.options.name.is_empty() {
            self.options.name = Cow::Borrowed(std::any::type_name::<H>());
        }
    }

    fn name_after_value<H>(&mut self, _: &H) {
        self.name_after::<H>();
    }
}

impl fmt::Debug for SubscriptionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder").field("options", &self.options).finish_non_exhaustive()
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

    /// From now on, events are counted as muted instead of being delivered. What waits is still handled.
    pub fn mute(&self) {
        self.mailbox.mute(true);
    }

    /// Events are delivered again; also those of a subscription that was suspended.
    pub fn unmute(&self) {
        self.mailbox.mute(false);
    }

    /// Which it is, as exceptions name it.
    #[must_use]
    pub fn handler(&self) -> HandlerInfo {
        self.mailbox.info()
    }

    /// How it is doing.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.mailbox.stats()
    }

    /// Resolves when nothing will come any more.
    fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mailbox = Arc::clone(&self.mailbox);
        async move { mailbox.until(|| mailbox.queue.is_closed()).await }
    }

    /// An event was taken from the mailbox of a stream.
    pub(super) fn taken(&self) {
        deliver::report_lag(&self.mailbox);
        self.mailbox.shards.settled.ring();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        match self.bus.upgrade() {
            Some(bus) => bus.end_subscription(&self.mailbox),
            None => drop(self.mailbox.cancel()),
        }
    }
}

/// Checked at compile time: a handler of everything is an ordinary handler.
const _: fn(&EventBus) -> Subscription = |bus| bus.subscribe(async |_: Event<BaseEvent>| ());
