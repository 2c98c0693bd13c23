//! Accepting events: stamping them, and putting them into mailboxes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use chrono::{DateTime, Utc};
use smallvec::SmallVec;
use tokio::runtime::Handle;

use super::{
    current, deliver,
    entry::{Delivery, Entry, Extra, Patience},
    interest::Interest,
    lock,
    mailbox::Mailbox,
    options::{Options, SharedOptions},
    queue::Ring,
    scope::{Receivers, Scope, find_full},
    settle::{Pending, Settled},
    shards::Shards,
    subscription::Work,
};
use crate::{
    Clock, SessionId,
    event::{
        Envelope, EventName, EventPayload, EventRegistry, EventType, Overflow, Payload, Stamp, Stamped,
        bus::ManyListenersEvent,
    },
};

/// Subscriptions of one type in one scope above which some were probably forgotten: ten times what a large program has.
const MANY_LISTENERS: usize = 100;

/// What all handles on a bus share.
pub(super) struct Inner {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: Arc<EventRegistry>,
    pub(super) host: Scope,
    sessions: Mutex<HashMap<SessionId, Weak<Scope>>>,
    next_subscription: AtomicU64,
    live: Mutex<Live>,
    pub(super) interest: Interest,
    options: SharedOptions,
    pub(super) shards: Arc<Shards>,
    /// Some subscription computes keys, so that each emitter has to ask.
    has_keys: AtomicBool,
}

/// The subscriptions that are not over yet, also when they are on no table any more.
#[derive(Default)]
struct Live {
    mailboxes: BTreeMap<u64, Arc<Mailbox>>,
    /// The bus takes no subscriptions any more.
    shut: bool,
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

/// How an event is emitted.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Manner<'a> {
    pub(super) patience: Patience,
    /// Build it even if nobody wants it.
    pub(super) always: bool,
    /// The emitter wants the event as it was accepted.
    pub(super) keep: bool,
    /// When it happened, if the emitter knows better.
    pub(super) timestamp: Option<DateTime<Utc>>,
    /// Who waits until all handlers are done with it.
    pub(super) pending: Option<&'a Arc<Pending>>,
}

/// An event that was accepted.
pub(super) struct Dispatched {
    /// If the emitter wanted it.
    envelope: Option<Arc<Envelope>>,
    pub(super) lost: usize,
    /// Subscriptions that have no room for the next.
    pub(super) crowded: Vec<Arc<Mailbox>>,
}

impl From<Option<Dispatched>> for Emitted {
    fn from(dispatched: Option<Dispatched>) -> Self {
        match dispatched {
            Some(Dispatched { envelope, lost, .. }) => Self { envelope, lost },
            None => Self::default(),
        }
    }
}

/// What is left to do for an event when the lock of its scope is released.
#[derive(Default)]
struct Aftermath {
    receivers: usize,
    ready: SmallVec<[Arc<Mailbox>; 4]>,
    taps: SmallVec<[Arc<Mailbox>; 2]>,
    rare: Option<Box<Rare>>,
}

/// What is left to do for few events.
#[derive(Default)]
struct Rare {
    readers: Vec<Waker>,
    crowded: Vec<Arc<Mailbox>>,
    losers: Vec<Arc<Mailbox>>,
    /// Their destructors are not ours.
    spare: Vec<Entry>,
    ticketed: Vec<Arc<Mailbox>>,
}

impl Inner {
    pub(super) fn new(runtime: Handle, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new_cyclic(|bus| Self {
            registry: Arc::new(EventRegistry::with_catalogue()),
            host: Scope::new(None, Weak::new()),
            sessions: Mutex::default(),
            next_subscription: AtomicU64::new(1),
            live: Mutex::default(),
            interest: Interest::new(),
            options: SharedOptions::default(),
            shards: Arc::new(Shards::new(runtime, Arc::clone(&clock), Weak::clone(bus))),
            has_keys: AtomicBool::new(false),
            clock,
        })
    }

    /// Emits a value of a type that somebody wants. Apart, so that finding out that nobody does costs no more than that.
    #[inline(never)]
    pub(super) fn emit_plainly<T: EventPayload>(&self, scope: &Scope, event: T) {
        let _ = self.emit(scope, T::event_type(), event, Stamp::default(), Manner::default());
    }

    /// Emits a value of a type that the program knows.
    pub(super) fn emit_typed<T: EventPayload>(
        &self,
        scope: &Scope,
        event: T,
        stamp: Stamp,
        manner: Manner<'_>,
    ) -> Option<Dispatched> {
        if self.interest.is_unwanted(T::event_type()) {
            return None;
        }
        self.emit(scope, T::event_type(), event, stamp, manner)
    }

    /// The one way of every event to its receivers. `None` when there are none.
    pub(super) fn emit<P: Payload>(
        &self,
        scope: &Scope,
        event: &EventType,
        payload: P,
        mut stamp: Stamp,
        manner: Manner<'_>,
    ) -> Option<Dispatched> {
        if let Some(handling) = current::handling() {
            stamp.causation_id = stamp.causation_id.or(Some(handling.event_id));
            stamp.turn_id = stamp.turn_id.or(handling.turn_id);
        }
        let now = self.clock.now();
        let stamped = Stamped {
            event_type: event.event_name().clone(),
            event_id: self.clock.uuid(now),
            timestamp: manner.timestamp.map_or(now.utc, |time| time.min(now.utc)),
            session_id: scope.session_id,
            seq: 0,
            mono_ns: now.mono_ns,
        };
        // Built under the lock, when it is certain that somebody receives it; what is not built is dropped here.
        let mut parts = Some((stamped, stamp, payload));
        let mut build = |seq, mono_ns| {
            let (stamped, stamp, payload) = parts.take()?;
            Some(Arc::new(Envelope::new(Stamped { seq, mono_ns, ..stamped }, stamp, payload)) as Arc<Envelope>)
        };
        self.dispatch(scope, event, now.mono_ns, &mut build, manner)
    }

    /// Numbers an event and queues it under one lock, so that the order of `seq` is the order of every queue. Nothing under
    /// the lock runs user code; what does comes afterwards.
    fn dispatch(
        &self,
        scope: &Scope,
        event: &EventType,
        mono_ns: u64,
        build: &mut dyn FnMut(u64, u64) -> Option<Arc<Envelope>>,
        manner: Manner<'_>,
    ) -> Option<Dispatched> {
        let mut kept = None;
        let mut keys = Vec::new();
        if self.has_keys.load(Ordering::Relaxed) {
            kept = build(0, mono_ns);
            keys = self.keys(scope, event, kept.as_deref()?);
        }
        let mut after = Aftermath::default();
        let is_muted = self.interest.is_muted(event);
        let host_wants = self.interest.host_may_want(event);
        let (mut envelope, stale) = {
            let mut state = lock(&scope.state);
            let (receivers, last, stale) = state.receivers(scope, &self.host, event, host_wants);
            let mut number = || {
                last.seq += 1;
                // Whoever read the clock first may come here last.
                last.mono_ns = last.mono_ns.max(mono_ns);
                match kept.take() {
                    None => build(last.seq, last.mono_ns),
                    Some(mut kept) => {
                        let unshared = Arc::get_mut(&mut kept).expect("nobody else has it yet");
                        unshared.number(last.seq, last.mono_ns);
                        Some(kept)
                    }
                }
            };
            let envelope = match receivers {
                Receivers::Few(few) => after.queue(few.into_iter(), is_muted, &mut number, &keys, manner),
                Receivers::Route(route) => {
                    let receivers = route.iter().map(|receiver| (&receiver.mailbox, receiver.overflow));
                    after.queue(receivers, is_muted, &mut number, &keys, manner)
                }
            };
            (envelope, stale)
        };
        if stale.is_some() {
            drop(stale);
        }
        if is_muted || (after.receivers == 0 && !manner.always) {
            return None;
        }
        if !after.ready.is_empty() {
            self.shards.schedule(after.ready);
        }
        let mut taps = after.taps.into_iter().peekable();
        while let Some(tap) = taps.next() {
            let seen = if manner.keep || taps.peek().is_some() { envelope.clone() } else { envelope.take() };
            seen.into_iter().for_each(|seen| tap.look(seen));
        }
        let (lost, crowded) = after.rare.map(|rare| rare.settle()).unwrap_or_default();
        if after.receivers > MANY_LISTENERS && self.interest.begins_to_crowd(event) {
            self.warn_of_many(scope, event, after.receivers);
        }
        self.shards.help_if_late(mono_ns);
        Some(Dispatched { envelope, lost, crowded })
    }

    /// What makes the event stand for others, by subscription. User code, so not under the lock.
    #[cold]
    fn keys(&self, scope: &Scope, event: &EventType, envelope: &Envelope) -> Vec<(u64, u64)> {
        let route = scope.route(&self.host, event);
        let key = |mailbox: &Arc<Mailbox>| {
            let key = mailbox.options.key.as_ref()?;
            match std::panic::catch_unwind(AssertUnwindSafe(|| key(envelope))) {
                Ok(key) => Some((mailbox.id, key?)),
                Err(panic) => {
                    deliver::report_panic(mailbox, envelope.base(), panic);
                    None
                }
            }
        };
        route.iter().filter_map(|receiver| key(&receiver.mailbox)).collect()
    }

    #[cold]
    fn warn_of_many(&self, scope: &Scope, event: &EventType, listeners: usize) {
        let listeners = listeners as u64;
        tracing::warn!(event = event.name(), listeners, "very many subscriptions: are some forgotten?");
        let warning = ManyListenersEvent { event_type: event.name().to_owned(), listeners };
        let _ = self.emit_typed(scope, warning, Stamp::default(), Manner::default());
    }

    /// Emits into a session by id; into the host's scope if the session has ended.
    pub(super) fn emit_in<T: EventPayload>(&self, session_id: Option<SessionId>, event: T, stamp: Stamp) {
        let scope = session_id.and_then(|id| lock(&self.sessions).get(&id).and_then(Weak::upgrade));
        let _ = self.emit_typed(scope.as_deref().unwrap_or(&self.host), event, stamp, Manner::default());
    }

    /// Emits, and waits for room afterwards; before it only while a queue holds twice its capacity. Inside a handler it does
    /// not wait.
    pub(super) async fn emit_patiently<T: EventPayload>(&self, scope: &Scope, event: T, stamp: Stamp) {
        if current::handling().is_some() {
            let manner = Manner { patience: Patience::Handler, ..Manner::default() };
            let _ = self.emit_typed(scope, event, stamp, manner);
            return;
        }
        if self.interest.is_unwanted(T::event_type()) {
            return;
        }
        while let Some(full) =
            find_full(&scope.route(&self.host, T::event_type()), Mailbox::is_overfull).cloned()
        {
            full.wait_for_room().await;
        }
        let manner = Manner { patience: Patience::Waits, ..Manner::default() };
        let dispatched = self.emit_typed(scope, event, stamp, manner);
        for crowded in dispatched.map(|dispatched| dispatched.crowded).unwrap_or_default() {
            crowded.wait_for_room().await;
        }
    }

    /// Emits, and waits until all handlers are done with it.
    pub(super) async fn emit_and_settle<T: EventPayload>(&self, scope: &Scope, event: T) -> Settled {
        let own = current::mailbox();
        // Before the event is queued, so that nobody waits for this handler any more when another might wait for it.
        let _settling = own.as_ref().map(|own| own.settling());
        let pending = Arc::new(Pending::default());
        let manner = Manner { pending: Some(&pending), ..Manner::default() };
        let dispatched = self.emit_typed(scope, event, Stamp::default(), manner);
        pending.settled(dispatched.map_or(0, |dispatched| dispatched.lost)).await
    }

    /// Ends the subscriptions of a scope that have a name.
    pub(super) fn end_by_name(&self, scope: &Scope, name: &str) -> usize {
        let mut named = scope.all();
        named.retain(|mailbox| mailbox.options.name == name);
        named.iter().for_each(|mailbox| self.end_subscription(mailbox));
        named.len()
    }

    /// Opens a session's scope.
    pub(super) fn open_scope(self: &Arc<Self>) -> Arc<Scope> {
        let now = self.clock.now();
        let session_id = SessionId(self.clock.uuid(now));
        let scope = Arc::new(Scope::new(Some(session_id), Arc::downgrade(self)));
        lock(&self.sessions).insert(session_id, Arc::downgrade(&scope));
        scope
    }

    pub(super) fn forget_session(&self, session_id: SessionId) {
        lock(&self.sessions).remove(&session_id);
    }

    pub(super) fn scopes(&self) -> Vec<Arc<Scope>> {
        lock(&self.sessions).values().filter_map(Weak::upgrade).collect()
    }

    /// The subscriptions that are on a table.
    pub(super) fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        let mut all = self.host.all();
        all.extend(self.scopes().iter().flat_map(|scope| scope.all()));
        all
    }

    /// The subscriptions that are not over.
    pub(super) fn live(&self) -> Vec<Arc<Mailbox>> {
        lock(&self.live).mailboxes.values().cloned().collect()
    }

    /// A subscription that is not over.
    pub(super) fn mailbox(&self, id: u64) -> Option<Arc<Mailbox>> {
        lock(&self.live).mailboxes.get(&id).cloned()
    }

    /// Takes no subscriptions any more.
    pub(super) fn shut(&self) {
        lock(&self.live).shut = true;
    }

    pub(super) fn open_mailbox(
        &self,
        scope: Option<&Arc<Scope>>,
        options: Options,
        work: Work,
    ) -> Arc<Mailbox> {
        if matches!(work, Work::Handler(_)) {
            self.shards.start();
        }
        if options.key.is_some() {
            self.has_keys.store(true, Ordering::Relaxed);
        }
        let table = scope.map_or(&self.host, |scope| scope);
        let id = self.next_subscription.fetch_add(1, Ordering::Relaxed);
        let scope = scope.map(Arc::downgrade);
        let options = self.options.share(options);
        let mailbox = Arc::new(Mailbox::new(id, options, scope, work, Arc::clone(&self.shards)));
        self.interest.add(&mailbox.options.filter, mailbox.scope.is_none());
        let mut live = lock(&self.live);
        live.mailboxes.insert(id, Arc::clone(&mailbox));
        let shut = live.shut;
        drop(live);
        if shut || !table.add(&mailbox) {
            mailbox.close();
            self.unroute(&mailbox);
        }
        if mailbox.options.unique {
            let mut named = table.all();
            named.retain(|other| other.options.name == mailbox.options.name);
            // Whoever else takes the name at this moment does the same, so one stays: the last.
            named.pop();
            named.iter().for_each(|other| self.end_subscription(other));
        }
        mailbox
    }

    /// Ends a subscription after the call that runs.
    pub(super) fn end_subscription(&self, mailbox: &Arc<Mailbox>) {
        let forgotten = mailbox.cancel();
        // Workers take it off the list of what a shutdown waits for.
        if mailbox.queue.has_workers() {
            self.unroute(mailbox);
        } else {
            self.unlist(mailbox);
        }
        self.shards.settled.ring();
        drop(forgotten);
    }

    /// Takes a subscription off the table of its scope.
    fn unroute(&self, mailbox: &Mailbox) {
        match &mailbox.scope {
            None => self.host.remove(mailbox.id),
            Some(scope) => scope.upgrade().is_some_and(|scope| scope.remove(mailbox.id)),
        };
        if mailbox.loses_interest() {
            self.interest.remove(&mailbox.options.filter, mailbox.scope.is_none());
            self.options.release(&mailbox.options);
        }
    }

    /// Takes a subscription that is over off all lists.
    pub(super) fn unlist(&self, mailbox: &Mailbox) {
        let removed = lock(&self.live).mailboxes.remove(&mailbox.id);
        drop(removed);
        self.unroute(mailbox);
    }

    /// The runtime that would have called the handlers is gone.
    pub(super) fn runtime_is_gone(&self) {
        for mailbox in self.live().iter().filter(|mailbox| mailbox.queue.has_workers()) {
            deliver::abandon(mailbox);
        }
    }

    pub(super) fn is_silent(&self, event_type: &EventName) -> bool {
        match self.registry.find(event_type.as_str()) {
            Some(event) => self.interest.is_silent(&event),
            // It came as JSON and was passed through.
            None => self.interest.is_silent(&EventType::unknown(event_type.as_str())),
        }
    }
}

impl Aftermath {
    /// Queues an event for its receivers; what is left of it for taps, and for an emitter that wants it.
    #[inline]
    fn queue<'a>(
        &mut self,
        mut receivers: impl ExactSizeIterator<Item = (&'a Arc<Mailbox>, Overflow)> + DoubleEndedIterator,
        is_muted: bool,
        number: &mut dyn FnMut() -> Option<Arc<Envelope>>,
        keys: &[(u64, u64)],
        manner: Manner<'_>,
    ) -> Option<Arc<Envelope>> {
        self.receivers = receivers.len();
        if is_muted {
            receivers.for_each(|(mailbox, _)| mailbox.count_muted());
            return None;
        }
        let Some((last, overflow)) = receivers.next_back() else {
            return if manner.always { number() } else { None };
        };
        let envelope = number()?;
        let is_plain = keys.is_empty() && manner.pending.is_none();
        for (mailbox, overflow) in receivers {
            if mailbox.is_tap() {
                self.taps.push(Arc::clone(mailbox));
                continue;
            }
            let extra = if is_plain { None } else { self.extra(mailbox, keys, manner.pending) };
            self.push(mailbox, Entry { envelope: Arc::clone(&envelope), extra }, overflow, manner.patience);
        }
        if last.is_tap() {
            self.taps.push(Arc::clone(last));
            return Some(envelope);
        }
        // The last can have the event itself, which saves counting up and down.
        let left = (manner.keep || !self.taps.is_empty()).then(|| Arc::clone(&envelope));
        let extra = if is_plain { None } else { self.extra(last, keys, manner.pending) };
        self.push(last, Entry { envelope, extra }, overflow, manner.patience);
        left
    }

    #[inline]
    fn push(&mut self, mailbox: &Arc<Mailbox>, entry: Entry, overflow: Overflow, patience: Patience) {
        match mailbox.push(entry) {
            Ok(Ring::Nobody) => {}
            Ok(ring) => self.note(mailbox, Delivery::Queued, ring),
            Err(entry) => {
                let (delivery, ring) = mailbox.push_full(entry, overflow, patience);
                self.note(mailbox, delivery, ring);
            }
        }
    }

    /// What an event has beside it in one queue.
    #[cold]
    fn extra(
        &mut self,
        mailbox: &Arc<Mailbox>,
        keys: &[(u64, u64)],
        pending: Option<&Arc<Pending>>,
    ) -> Option<Box<Extra>> {
        let key = keys.iter().find(|(id, _)| *id == mailbox.id).map(|(_, key)| *key);
        let pending = pending.filter(|_| mailbox.queue.has_workers() && !mailbox.is_settling());
        if pending.is_some() {
            self.rare().ticketed.push(Arc::clone(mailbox));
        }
        let ticket = pending.map(Pending::ticket);
        (ticket.is_some() || key.is_some()).then(|| Box::new(Extra { ticket, key }))
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    #[cold]
    fn note(&mut self, mailbox: &Arc<Mailbox>, delivery: Delivery, ring: Ring) {
        match ring {
            Ring::Nobody => {}
            Ring::Shard => self.ready.push(Arc::clone(mailbox)),
            Ring::Stream(reader) => self.rare().readers.push(reader),
        }
        match delivery {
            Delivery::Queued => {}
            Delivery::Crowded => self.rare().crowded.push(Arc::clone(mailbox)),
            Delivery::Lost(entry) => {
                self.rare().losers.push(Arc::clone(mailbox));
                self.rare().spare.push(entry);
            }
            Delivery::Spare(entry) => self.rare().spare.push(entry),
        }
    }
}

impl Rare {
    /// Returns how many lost something, and who is crowded.
    #[cold]
    fn settle(self) -> (usize, Vec<Arc<Mailbox>>) {
        let Self { readers, crowded, losers, spare, ticketed } = self;
        for mailbox in &ticketed {
            // It may have begun to wait in the meantime, perhaps for this very emitter.
            if mailbox.is_settling() {
                mailbox.release_tickets();
            }
        }
        readers.into_iter().for_each(Waker::wake);
        for mailbox in &losers {
            // It may have been disconnected, which ends the wait for room.
            mailbox.ring();
            if mailbox.begins_to_lag() {
                deliver::report_lag(mailbox);
            }
        }
        drop(spare);
        (losers.len(), crowded)
    }
}

impl Manner<'_> {
    pub(super) fn waits() -> Self {
        Self { patience: Patience::Waits, ..Self::default() }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}
