//! The bus: accepting events, stamping them, and putting them into mailboxes.
//!
//! Not here: what a session adds (`session.rs`).

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    deliver,
    mailbox::{Mailbox, Options, Patience, Pushed, Stats, wait_until},
    session::SessionBus,
    stream::EventStream,
    subscription::{Subscription, SubscriptionBuilder},
    table::{Receivers, Table},
};
use crate::{
    Clock, SessionId, SystemClock,
    event::{
        CodecError, Envelope, EventPayload, EventRegistry, EventType, FromEvent, Payload, Stamp, Stamped,
        bus::ExceptionEvent, values::HandlerInfo,
    },
};

/// The bus of one host. Clones are handles on the same bus.
#[derive(Clone)]
pub struct EventBus {
    inner: Arc<Inner>,
}

type Watcher = Arc<dyn Fn() + Send + Sync>;

pub(super) struct Inner {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: Handle,
    registry: Arc<EventRegistry>,
    host: Scope,
    sessions: Mutex<HashMap<SessionId, Weak<Scope>>>,
    next_subscription: AtomicU64,
    live: Mutex<Live>,
    watchers: Mutex<Vec<Watcher>>,
    /// Rung whenever a subscription has worked off what it had in hand, or given up what it had.
    pub(super) settled: Notify,
}

/// The subscriptions whose task or stream still exists, also when they are on no table any more.
#[derive(Debug, Default)]
struct Live {
    mailboxes: BTreeMap<u64, Arc<Mailbox>>,
    /// The bus takes no subscriptions any more.
    shut: bool,
}

/// The host, or one session: its own order, and subscriptions that end with it.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) session_id: Option<SessionId>,
    /// Where the session is listed; nowhere for the host.
    bus: Weak<Inner>,
    seq: Mutex<u64>,
    pub(super) table: Table,
}

/// What became of an emitted event.
#[derive(Debug, Default)]
#[must_use = "the outcome tells whether a subscription lost the event; `let _ =` where that is of no interest"]
pub struct Emitted {
    /// The event as accepted; `None` when nobody wanted it, so that it was never built.
    pub envelope: Option<Arc<Envelope>>,
    /// Subscriptions that could not take it, or lost an older event for it.
    pub lost: usize,
}

/// Why an event was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryEmitError {
    /// A subscription that must not lose events is full; try again after [`SessionBus::wait_for_room`].
    #[error("a subscription that waits is full")]
    Full,
    /// The payload does not fit the event type.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

pub(super) struct Dispatched {
    pub(super) envelope: Arc<Envelope>,
    pub(super) lost: usize,
    crowded: Vec<Arc<Mailbox>>,
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
        let inner = Inner {
            clock,
            runtime,
            registry: Arc::new(EventRegistry::with_catalogue()),
            host: Scope::new(None, Weak::new()),
            sessions: Mutex::default(),
            next_subscription: AtomicU64::new(1),
            live: Mutex::default(),
            watchers: Mutex::default(),
            settled: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(super) fn weak_inner(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.inner.runtime
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
    /// holds one keeps it open.
    #[must_use]
    pub fn open_session(&self) -> SessionBus {
        let now = self.inner.clock.now();
        let session_id = SessionId(self.inner.clock.uuid(now));
        let scope = Arc::new(Scope::new(Some(session_id), Arc::downgrade(&self.inner)));
        lock(&self.inner.sessions).insert(session_id, Arc::downgrade(&scope));
        SessionBus { bus: self.clone(), scope }
    }

    /// Emits an event of the host itself with what the emitter knows beside it, and tells what became of it.
    pub fn emit_with<T: EventPayload>(&self, event: T, stamp: Stamp) -> Emitted {
        match self.emit_typed(&self.inner.host, event, stamp, Patience::None) {
            Some(dispatched) => Emitted { envelope: Some(dispatched.envelope), lost: dispatched.lost },
            None => Emitted::default(),
        }
    }

    /// Emits an event of the host itself. Never waits: a full subscription loses it, or an older event, and is told.
    pub fn emit<T: EventPayload>(&self, event: T) {
        let _ = self.emit_typed(&self.inner.host, event, Stamp::default(), Patience::None);
    }

    /// Emits an event of the host itself, and waits until the subscriptions that must not lose events have room again.
    /// Inside a handler it does not wait: handlers that wait for each other would never end.
    ///
    /// # Cancel safety
    ///
    /// The event is delivered at the first poll, unless more emitters wait than a queue has room for; then it is their
    /// turn first. Dropping the future afterwards only gives up the wait, before that the event.
    pub async fn emit_wait<T: EventPayload>(&self, event: T) {
        self.emit_patiently(&self.inner.host, event, Stamp::default()).await;
    }

    pub(super) async fn emit_patiently<T: EventPayload>(&self, scope: &Scope, event: T, stamp: Stamp) {
        if deliver::handling().is_some() {
            let _ = self.emit_typed(scope, event, stamp, Patience::Handler);
            return;
        }
        let event_type = T::event_type();
        let mut receivers = self.receivers(scope, event_type);
        while let Some(full) = receivers.find_full(event_type, Mailbox::is_overfull) {
            full.wait_for_room().await;
            receivers = self.receivers(scope, event_type);
        }
        let build = || Ok(Box::new(event) as Box<dyn Payload>);
        let dispatched =
            self.dispatch(scope, event_type, &receivers, false, None, stamp, Patience::Waits, build);
        for crowded in built(dispatched).map(|dispatched| dispatched.crowded).unwrap_or_default() {
            crowded.wait_for_room().await;
        }
    }

    pub(super) fn receivers(&self, scope: &Scope, event: &EventType) -> Receivers {
        Receivers {
            of_host: self.inner.host.table.route(event),
            of_session: scope.session_id.map(|_| scope.table.route(event)),
        }
    }

    /// Emits into a session by id; into the host's scope if the session has ended.
    pub(super) fn emit_in<T: EventPayload>(&self, session_id: Option<SessionId>, event: T, stamp: Stamp) {
        let scope = session_id.and_then(|id| lock(&self.inner.sessions).get(&id).and_then(Weak::upgrade));
        let _ = self.emit_typed(scope.as_deref().unwrap_or(&self.inner.host), event, stamp, Patience::None);
    }

    pub(super) fn emit_typed<T: EventPayload>(
        &self,
        scope: &Scope,
        event: T,
        stamp: Stamp,
        patience: Patience,
    ) -> Option<Dispatched> {
        let receivers = self.receivers(scope, T::event_type());
        let build = || Ok(Box::new(event) as Box<dyn Payload>);
        built(self.dispatch(scope, T::event_type(), &receivers, false, None, stamp, patience, build))
    }

    /// The one way of every event to its receivers: build, stamp, queue, and ring, in this order.
    #[expect(
        clippy::too_many_arguments,
        reason = "private, and each caller has its own values for all of them"
    )]
    pub(super) fn dispatch(
        &self,
        scope: &Scope,
        event: &EventType,
        receivers: &Receivers,
        always: bool,
        timestamp: Option<DateTime<Utc>>,
        mut stamp: Stamp,
        patience: Patience,
        payload: impl FnOnce() -> Result<Box<dyn Payload>, CodecError>,
    ) -> Result<Option<Dispatched>, CodecError> {
        if !always && receivers.is_empty() {
            return Ok(None);
        }
        let payload = payload()?;
        if let Some(handling) = deliver::handling() {
            stamp.causation_id = stamp.causation_id.or(Some(handling.event_id));
            stamp.turn_id = stamp.turn_id.or(handling.turn_id);
        }
        let now = self.inner.clock.now();
        let mut stamped = Stamped {
            event_type: event.event_name().clone(),
            event_id: self.inner.clock.uuid(now),
            timestamp: timestamp.map_or(now.utc, |time| time.min(now.utc)),
            session_id: scope.session_id,
            seq: 0,
            mono_ns: now.mono_ns,
        };
        let (mut crowded, mut losses) = (Vec::new(), Vec::new());
        // The lock makes the order of `seq` the order of every queue. Nothing under it runs user code.
        let mut seq = lock(&scope.seq);
        *seq += 1;
        stamped.seq = *seq;
        let envelope = Arc::new(Envelope::new(stamped, stamp, payload));
        for mailbox in receivers.iter() {
            match mailbox.push(&envelope, mailbox.overflow(event), patience) {
                Pushed::Queued | Pushed::Closed => {}
                Pushed::Crowded => crowded.push(Arc::clone(mailbox)),
                lost @ Pushed::Lost { .. } => losses.push(lost),
            }
        }
        drop(seq);
        for mailbox in receivers.iter() {
            mailbox.items.notify_one();
        }
        if !losses.is_empty() {
            for mailbox in receivers.iter() {
                // It may have been disconnected, which ends the wait for room.
                mailbox.room.notify_waiters();
                if mailbox.begins_to_lag() {
                    deliver::report_lag(&self.weak_inner(), mailbox);
                }
            }
        }
        Ok(Some(Dispatched { envelope, lost: losses.len(), crowded }))
    }

    /// Subscribes an async function or closure to what its argument says: one event type, a union, a base type.
    ///
    /// The subscription sees the events of all sessions and of the host. It ends when the returned guard is dropped.
    #[track_caller]
    pub fn subscribe<F, H, Fut>(&self, handler: H) -> Subscription
    where
        F: FromEvent,
        H: Fn(F) -> Fut + Send + Sync + 'static, // `async move` that captures: see `subscribe_with`
        Fut: super::HandlerFuture + Send + 'static,
        Fut::Output: super::HandlerOutput,
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
        Fut: super::HandlerFuture + Send + 'static,
        Fut::Output: super::HandlerOutput,
    {
        self.subscription().subscribe_with(state, handler)
    }

    /// Begins a subscription that is not all defaults: name, patterns, capacity, overflow, timeout.
    #[track_caller]
    pub fn subscription(&self) -> SubscriptionBuilder {
        SubscriptionBuilder::new(self.clone(), None)
    }

    /// The events as a stream, for code that would rather pull.
    #[track_caller]
    #[must_use]
    pub fn stream<F: FromEvent>(&self) -> EventStream<F> {
        self.subscription().stream()
    }

    /// Whether any subscription of the host or of a session wants events of a type.
    #[must_use]
    pub fn is_wanted(&self, event: &EventType) -> bool {
        self.inner.host.table.wants(event) || self.scopes().iter().any(|scope| scope.table.wants(event))
    }

    /// Calls `watcher` after each change of who is subscribed to what, from the thread that changed it.
    pub fn on_interest_change(&self, watcher: impl Fn() + Send + Sync + 'static) {
        lock(&self.inner.watchers).push(Arc::new(watcher));
    }

    /// Who is subscribed, and how each is doing.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionReport> {
        let report =
            |mailbox: Arc<Mailbox>| SubscriptionReport { handler: mailbox.info(), stats: mailbox.stats() };
        self.mailboxes().into_iter().map(report).collect()
    }

    /// Waits until every queue is empty and every handler done; `false` when `deadline` comes first. Inside a handler
    /// it does not wait for that handler.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only gives up the wait.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let is_idle = |mailbox: &Arc<Mailbox>| mailbox.is_idle() || deliver::is_own(mailbox);
        let settled = wait_until(&self.inner.settled, || self.live().iter().all(is_idle));
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
        lock(&self.inner.live).shut = true;
        let hears_of_failures =
            |mailbox: &Arc<Mailbox>| mailbox.options.filter.wants(ExceptionEvent::event_type());
        let (last, first): (Vec<_>, Vec<_>) = self.live().into_iter().partition(hears_of_failures);
        // Dropped also when the wait is given up.
        let closing_last = CloseOnDrop(&last);
        drop(CloseOnDrop(&first));
        deliver::wait_for_end(&first).await;
        drop(closing_last);
        deliver::wait_for_end(&last).await;
    }

    fn live(&self) -> Vec<Arc<Mailbox>> {
        lock(&self.inner.live).mailboxes.values().cloned().collect()
    }

    fn scopes(&self) -> Vec<Arc<Scope>> {
        lock(&self.inner.sessions).values().filter_map(Weak::upgrade).collect()
    }

    fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        let mut all = self.inner.host.table.all();
        all.extend(self.scopes().iter().flat_map(|scope| scope.table.all()));
        all
    }

    pub(super) fn open_mailbox(
        &self,
        scope: Option<&Arc<Scope>>,
        options: Options,
        has_task: bool,
    ) -> Arc<Mailbox> {
        let id = self.inner.next_subscription.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(Mailbox::new(id, options, scope.map(Arc::downgrade), has_task));
        let mut live = lock(&self.inner.live);
        live.mailboxes.insert(id, Arc::clone(&mailbox));
        let shut = live.shut;
        drop(live);
        let table = scope.map_or(&self.inner.host.table, |scope| &scope.table);
        if shut || !table.add(Arc::clone(&mailbox)) {
            mailbox.close();
        }
        self.inner.interest_changed();
        mailbox
    }
}

/// Mailboxes that take nothing any more from when this is dropped.
struct CloseOnDrop<'a>(&'a [Arc<Mailbox>]);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|mailbox| mailbox.close());
    }
}

impl Inner {
    /// Takes a subscription off the table of its scope; `false` when it was not on it.
    pub(super) fn unroute(&self, mailbox: &Mailbox) -> bool {
        match &mailbox.scope {
            None => self.host.table.remove(mailbox.id),
            Some(scope) => scope.upgrade().is_some_and(|scope| scope.table.remove(mailbox.id)),
        }
    }

    /// Takes a subscription whose task or stream has ended off all lists; `false` when it was on no table.
    pub(super) fn unlist(&self, mailbox: &Mailbox) -> bool {
        let removed = lock(&self.live).mailboxes.remove(&mailbox.id);
        drop(removed);
        self.unroute(mailbox)
    }

    pub(super) fn interest_changed(&self) {
        let watchers = lock(&self.watchers).clone();
        for watcher in watchers {
            watcher();
        }
    }
}

impl Scope {
    pub(super) fn new(session_id: Option<SessionId>, bus: Weak<Inner>) -> Self {
        Self { session_id, bus, seq: Mutex::new(0), table: Table::default() }
    }

    /// Ends the subscriptions after what waits for them, and takes no others; returns those that end.
    pub(super) fn close(&self) -> Vec<Arc<Mailbox>> {
        let mailboxes = self.table.close();
        for mailbox in &mailboxes {
            mailbox.close();
        }
        mailboxes
    }

    /// Takes a session off the list of the bus.
    pub(super) fn unlist(&self) {
        if let (Some(session_id), Some(bus)) = (self.session_id, self.bus.upgrade()) {
            lock(&bus.sessions).remove(&session_id);
            bus.interest_changed();
        }
    }
}

impl Drop for Scope {
    /// The last handle on the session, or on the bus, is gone, so that nobody can emit here any more.
    fn drop(&mut self) {
        self.close();
        self.unlist();
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

/// One subscription as [`EventBus::subscriptions`] lists it.
#[derive(Debug, Clone, Serialize)]
pub struct SubscriptionReport {
    /// Which it is.
    pub handler: HandlerInfo,
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
        f.debug_struct("EventBus").field("subscriptions", &self.mailboxes().len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

/// The outcome of an event that was a value already, so that building it cannot fail.
fn built(dispatched: Result<Option<Dispatched>, CodecError>) -> Option<Dispatched> {
    dispatched.expect("a payload that is a value already needs no decoding")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
