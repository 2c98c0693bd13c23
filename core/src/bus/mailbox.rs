//! One subscription: its queue, what it was told when it was made, and how it is doing.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, Location},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use serde::Serialize;

use super::{
    bell::Bell,
    current,
    deliver::{panic_info, report_failure, report_suspension},
    handler::{Hire, Look, WorkerBox},
    lock,
    queue::{Ended, Full, Keyed, Pushed, Queue, Ring},
    scope::Scope,
    settle::Ticket,
    shards::Shards,
    subscription::Work,
};
use crate::{
    SessionId,
    event::{Envelope, EventType, Filter, Overflow, values::HandlerInfo},
};

/// Time without a single event taken or handled after which a handler counts as stuck, and emitters wait for it no longer: it
/// delays nobody else for ever. What does not fit then is lost, and its loss is told.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Looks in that time. A process that was stopped or starved for longer sees one of them late, not all: its handlers had
/// no chance, and get one.
const STUCK_CHECKS: u32 = 4;

/// Computes what makes two events stand for each other; `None` for events of other types.
pub(super) type KeyOf = Arc<dyn Fn(&Envelope) -> Option<u64> + Send + Sync>;

/// What a subscription is told when it is made.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) name: Cow<'static, str>,
    pub(super) location: &'static Location<'static>,
    pub(super) filter: Filter,
    pub(super) capacity: usize,
    pub(super) overflow: Option<Overflow>,
    pub(super) key: Option<KeyOf>,
    pub(super) timeout: Option<Duration>,
    pub(super) concurrency: u32,
    pub(super) suspend_after: Option<u32>,
    pub(super) once: bool,
    pub(super) unique: bool,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

/// Counters of one subscription. Of what was published for it while it was open, each event is in one of `delivered`,
/// `dropped`, `muted`, `coalesced`, or still waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Events waiting now.
    pub depth: usize,
    /// Events handed to the handler.
    pub delivered: u64,
    /// Events lost because the queue was full.
    pub dropped: u64,
    /// Events that came while the subscription, or their type, was muted.
    pub muted: u64,
    /// Events that a newer one with the same key has replaced.
    pub coalesced: u64,
    /// Calls of the handler that failed.
    pub failures: u64,
    /// Longest call of the handler, from its start to its end, in nanoseconds. Up to 16 calls that follow each other without
    /// awaiting anything are timed together, so for quick handlers this is an upper bound.
    pub slowest_ns: u64,
}

/// How far an emitter may fill the queue of a subscription that must not lose events.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Patience {
    /// Does not wait: up to the capacity.
    #[default]
    None,
    /// Would wait, but must not because it is a handler: up to twice the capacity.
    Handler,
    /// Waits before, while the queue holds twice its capacity, and afterwards: no limit at the push itself. What comes
    /// on top is at most one event for each thread that was between check and push.
    Waits,
}

impl Patience {
    fn limit(self, capacity: usize) -> usize {
        match self {
            Self::None => capacity,
            Self::Handler => capacity.saturating_mul(2),
            Self::Waits => usize::MAX,
        }
    }
}

/// An event that waits, and what only few events have beside it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) envelope: Arc<Envelope>,
    pub(super) extra: Option<Box<Extra>>,
}

#[derive(Debug)]
pub(super) struct Extra {
    /// Somebody waits until this is handled.
    pub(super) ticket: Option<Ticket>,
    /// Stands for what has the same.
    pub(super) key: Option<u64>,
}

impl Keyed for Entry {
    fn has_same_key(&self, newer: &Self) -> bool {
        let key = |entry: &Self| entry.extra.as_ref().and_then(|extra| extra.key);
        match (key(self), key(newer)) {
            (Some(older), Some(newer)) => older == newer,
            _ => {
                let (older, newer) = (self.envelope.base(), newer.envelope.base());
                older.event_type == newer.event_type && older.session_id == newer.session_id
            }
        }
    }
}

pub(super) struct Mailbox {
    pub(super) id: u64,
    pub(super) options: Options,
    /// The session that it belongs to; the host's have none.
    pub(super) scope: Option<Weak<Scope>>,
    pub(super) queue: Queue<Entry, WorkerBox>,
    /// The handler, until the subscription is over; streams and taps have none.
    hire: Mutex<Option<Hire>>,
    /// What is called at once, instead of a queue.
    pub(super) tap: Option<Look>,
    /// Calls of the tap that run now.
    looking: AtomicU32,
    /// Its filter counts for what is wanted.
    interested: AtomicBool,
    /// Where its visits are scheduled.
    pub(super) shards: Arc<Shards>,
    /// Rung when there is room again, when it is over, and when its handler begins to wait for others.
    pub(super) bell: Bell,
    delivered: AtomicU64,
    failures: AtomicU64,
    failures_in_a_row: AtomicU32,
    dropped: AtomicU64,
    muted_events: AtomicU64,
    coalesced: AtomicU64,
    unreported: AtomicU64,
    slowest_ns: AtomicU64,
    cancelled: AtomicBool,
    muted: AtomicBool,
    /// The queue has held twice its capacity, so that further emitters look, and wait, before they push. Beside the queue,
    /// because every `emit_wait` asks.
    overfull: AtomicBool,
    /// A loss was reported since something was last taken.
    lagging: AtomicBool,
    /// How often something was taken.
    taken: AtomicU64,
    /// Emitters have waited for room in vain; until there is progress, none waits any more.
    stuck: AtomicBool,
    /// How often the handler is waiting for the end of other subscriptions.
    stopping: AtomicU32,
    /// How often the handler is waiting until others have handled what it emitted.
    settling: AtomicU32,
}

/// What became of an event at one mailbox.
#[derive(Debug)]
pub(super) enum Delivery {
    Queued,
    /// Queued, and now the emitter should wait for room if it can.
    Crowded,
    /// Something was lost; it is dropped by the caller, outside of all locks.
    Lost(Entry),
    /// Nothing to tell, but something to drop.
    Spare(Entry),
}

impl Mailbox {
    pub(super) fn new(
        id: u64,
        options: Options,
        scope: Option<Weak<Scope>>,
        work: Work,
        shards: Arc<Shards>,
    ) -> Self {
        let (concurrency, hire, tap) = match work {
            Work::Handler(hire) => (options.concurrency, Some(hire), None),
            Work::Tap(look) => (0, None, Some(look)),
            Work::Stream => (0, None, None),
        };
        Self {
            id,
            options,
            scope,
            queue: Queue::new(concurrency),
            hire: Mutex::new(hire),
            tap,
            looking: AtomicU32::new(0),
            interested: AtomicBool::new(true),
            shards,
            bell: Bell::default(),
            delivered: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failures_in_a_row: AtomicU32::new(0),
            dropped: AtomicU64::new(0),
            muted_events: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
            unreported: AtomicU64::new(0),
            slowest_ns: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            muted: AtomicBool::new(false),
            overfull: AtomicBool::new(false),
            lagging: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
            stopping: AtomicU32::new(0),
            settling: AtomicU32::new(0),
        }
    }

    pub(super) fn info(&self) -> HandlerInfo {
        HandlerInfo {
            subscription_id: self.id,
            name: self.options.name.to_string(),
            location: self.options.location.to_string(),
            plugin: None,
        }
    }

    pub(super) fn session_id(&self) -> Option<SessionId> {
        self.scope.as_ref()?.upgrade()?.session_id
    }

    pub(super) fn overflow(&self, event: &EventType) -> Overflow {
        self.options.overflow.unwrap_or_else(|| event.overflow())
    }

    /// Queues an event. The caller does what the `Ring` says after it has released its own locks.
    #[inline]
    pub(super) fn push(&self, entry: Entry, overflow: Overflow, patience: Patience) -> (Delivery, Ring) {
        if self.muted.load(Ordering::Relaxed) {
            self.count_muted();
            return (Delivery::Spare(entry), Ring::Nobody);
        }
        match self.queue.push(entry, self.options.capacity) {
            Ok(ring) => (Delivery::Queued, ring),
            Err(entry) => self.push_full(entry, overflow, patience),
        }
    }

    /// There was no room a moment ago.
    #[cold]
    fn push_full(&self, entry: Entry, overflow: Overflow, patience: Patience) -> (Delivery, Ring) {
        let capacity = self.options.capacity;
        let full = match overflow {
            Overflow::Wait => Full::Stretch(self.limit(patience)),
            Overflow::DropOldest => Full::DropOldest,
            Overflow::DropNewest => Full::DropNewest,
            Overflow::Coalesce => Full::Coalesce,
            Overflow::Disconnect => Full::Close,
        };
        let (pushed, ring, depth) = self.queue.push_full(entry, capacity, full);
        let delivery = match pushed {
            Pushed::Queued => Delivery::Queued,
            Pushed::Crowded => {
                if depth >= Patience::Handler.limit(capacity) {
                    self.overfull.store(true, Ordering::Relaxed);
                }
                Delivery::Crowded
            }
            Pushed::Lost(entry) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                // A lag notice that is lost itself would call for the next one, without end.
                if !entry.envelope.event_type().starts_with("bus.") {
                    self.unreported.fetch_add(1, Ordering::Relaxed);
                }
                Delivery::Lost(entry)
            }
            Pushed::Replaced(entry) => {
                self.coalesced.fetch_add(1, Ordering::Relaxed);
                Delivery::Spare(entry)
            }
            Pushed::Closed(entry) => Delivery::Spare(entry),
        };
        (delivery, ring)
    }

    /// Counts an event that is not delivered because the subscription, or its type, is muted.
    pub(super) fn count_muted(&self) {
        // A route may still name a subscription that takes nothing any more.
        if !self.queue.is_closed() {
            self.muted_events.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether there is a loss to report at once, because it is the first since something was taken. The others are
    /// reported when something is taken, which for a stuck handler is never.
    pub(super) fn begins_to_lag(&self) -> bool {
        self.unreported.load(Ordering::Relaxed) > 0 && !self.lagging.swap(true, Ordering::Relaxed)
    }

    /// Losses since the last call.
    pub(super) fn take_unreported(&self) -> u64 {
        if self.unreported.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.unreported.swap(0, Ordering::Relaxed)
    }

    /// Whether there is nothing to wait for: the queue is under its capacity, or closed, or its handler is stuck.
    pub(super) fn has_room(&self) -> bool {
        self.queue.is_closed() || self.is_stuck() || self.queue.len() < self.options.capacity
    }

    /// Whether there is something to wait for even before the push.
    pub(super) fn is_overfull(&self) -> bool {
        if !self.overfull.load(Ordering::Relaxed) || self.is_stuck() {
            return false;
        }
        let overfull = self.queue.len() >= Patience::Handler.limit(self.options.capacity);
        if !overfull {
            self.overfull.store(false, Ordering::Relaxed);
        }
        overfull && !self.queue.is_closed()
    }

    fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::SeqCst)
    }

    /// Nobody waits for a stuck handler, so its queue has a limit again.
    fn limit(&self, patience: Patience) -> usize {
        let patience = if self.stuck.load(Ordering::Relaxed) { Patience::Handler } else { patience };
        patience.limit(self.options.capacity)
    }

    /// Resolves when the queue is under its capacity, or closed, or its handler is stuck.
    pub(super) async fn wait_for_room(&self) {
        let mut idle_checks = 0;
        loop {
            let progress = self.progress();
            let room = self.bell.until(|| self.has_room());
            if tokio::time::timeout(STUCK_AFTER / STUCK_CHECKS, room).await.is_ok() {
                return;
            }
            idle_checks = if self.progress() == progress { idle_checks + 1 } else { 0 };
            if idle_checks == STUCK_CHECKS {
                idle_checks = 0;
                self.stuck.store(true, Ordering::SeqCst);
                self.bell.ring();
                let (handler, location) = (&self.options.name, self.options.location.to_string());
                let seconds = STUCK_AFTER.as_secs();
                tracing::warn!(
                    %handler,
                    location,
                    "an event handler is stuck: no call of it has ended for {seconds} s"
                );
            }
        }
    }

    /// Something was taken from the queue.
    pub(super) fn took(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.count_done();
        if self.lagging.load(Ordering::Relaxed) {
            self.lagging.store(false, Ordering::Relaxed);
        }
        self.bell.ring();
    }

    /// The reader of a stream takes an event; see [`Queue::take`].
    pub(super) fn take(&self, reader: Option<Waker>) -> Result<Option<Arc<Envelope>>, Ended> {
        let taken = self.queue.take(reader)?;
        Ok(taken.map(|entry| {
            self.took();
            self.delivered.fetch_add(1, Ordering::Relaxed);
            entry.envelope
        }))
    }

    /// A call of the handler has ended; `true` when it has failed so often in a row that the subscription is suspended now.
    pub(super) fn count_call(&self, failed: bool) -> bool {
        // With one worker at a time, nobody else writes here.
        if self.options.concurrency == 1 && self.tap.is_none() {
            self.delivered.store(self.delivered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let Some(limit) = self.options.suspend_after else { return false };
        if !failed {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
            return false;
        }
        let reached = self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= limit;
        reached && !self.muted.swap(true, Ordering::Relaxed)
    }

    /// A worker is done with an event.
    pub(super) fn count_done(&self) {
        if self.stuck.load(Ordering::Relaxed) {
            self.stuck.store(false, Ordering::SeqCst);
        }
    }

    /// Counts up whenever something was taken, or a call has ended.
    fn progress(&self) -> u64 {
        self.taken.load(Ordering::Relaxed) + self.delivered.load(Ordering::Relaxed)
    }

    /// Something to call the handler with, where none lies idle; `None` when the subscription is over.
    pub(super) fn hire(&self) -> Option<WorkerBox> {
        let hire = lock(&self.hire).clone()?;
        Some(hire())
    }

    /// Takes the handler away; the caller drops it outside of all locks.
    #[must_use]
    pub(super) fn take_handler(&self) -> (Option<Hire>, Option<WorkerBox>) {
        (lock(&self.hire).take(), self.queue.take_idle())
    }

    /// Calls the tap, on the thread of the emitter.
    pub(super) fn look(self: &Arc<Self>, envelope: &Arc<Envelope>) {
        let Some(tap) = &self.tap else { return };
        if self.muted.load(Ordering::Relaxed) {
            return self.count_muted();
        }
        self.looking.fetch_add(1, Ordering::SeqCst);
        if !self.cancelled.load(Ordering::SeqCst) {
            let attempt = || std::panic::catch_unwind(AssertUnwindSafe(|| tap(envelope)));
            match current::look(envelope, attempt) {
                Some(Ok(true)) => {
                    self.count_call(false);
                }
                Some(Ok(false)) => {}
                Some(Err(panic)) => {
                    if self.count_call(true) {
                        report_suspension(self);
                    }
                    let base = envelope.base();
                    let (handling, error) = (current::Handling::of(base), panic_info(panic));
                    report_failure(self, handling, base.session_id, &base.event_type, error);
                }
                None => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    self.unreported.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        self.looking.fetch_sub(1, Ordering::SeqCst);
        self.bell.ring();
    }

    /// Its filter counts no more for what is wanted; `true` the first time.
    pub(super) fn loses_interest(&self) -> bool {
        self.interested.swap(false, Ordering::Relaxed)
    }

    pub(super) fn note_time(&self, ns: u64) {
        if ns > self.slowest_ns.load(Ordering::Relaxed) {
            self.slowest_ns.fetch_max(ns, Ordering::Relaxed);
        }
    }

    pub(super) fn mute(&self, muted: bool) {
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.muted.store(muted, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Refuses further events; those that wait are still handled.
    pub(super) fn close(self: &Arc<Self>) {
        let ring = self.queue.close();
        self.obey(ring);
        // Nothing waits for a tap and nobody visits it, so that this is its end. Routes may still name it.
        if self.tap.is_some() {
            self.cancelled.store(true, Ordering::SeqCst);
            if let Some(bus) = self.shards.bus() {
                bus.unlist(self);
            }
        }
        self.bell.ring();
    }

    /// Refuses further events and gives up those that wait. The caller drops them last of all, because their
    /// destructors are not ours.
    #[must_use]
    pub(super) fn cancel(self: &Arc<Self>) -> VecDeque<Entry> {
        self.cancelled.store(true, Ordering::SeqCst);
        let (forgotten, ring) = self.queue.cancel();
        self.obey(ring);
        self.bell.ring();
        forgotten
    }

    /// Does what a queue asks for.
    pub(super) fn obey(self: &Arc<Self>, ring: Ring) {
        match ring {
            Ring::Nobody => {}
            Ring::Shard => self.shards.schedule([Arc::clone(self)]),
            Ring::Stream(reader) => reader.wake(),
        }
    }

    /// Resolves when no call runs any more. For another handler also when this one's handler waits for the end of others,
    /// because the two might wait for each other.
    pub(super) async fn wait_for_end(&self, from_handler: bool) {
        let is_stopping = || from_handler && self.stopping.load(Ordering::SeqCst) > 0;
        let is_over = || match self.queue.has_workers() {
            true => self.queue.is_over(),
            false => self.looking.load(Ordering::SeqCst) == 0,
        };
        self.bell.until(|| is_over() || is_stopping()).await;
    }

    /// The handler waits for the end of others until the guard is dropped.
    pub(super) fn stopping(&self) -> impl Drop + '_ {
        let guard = CountedDown::new(&self.stopping);
        self.bell.ring();
        guard
    }

    /// The handler waits until others have handled what it emitted. They may wait for it in turn, so whoever waits for
    /// what is queued here waits no longer.
    pub(super) fn settling(&self) -> impl Drop + '_ {
        let guard = CountedDown::new(&self.settling);
        self.release_tickets();
        guard
    }

    pub(super) fn is_settling(&self) -> bool {
        self.settling.load(Ordering::SeqCst) > 0
    }

    /// Whoever waits for what is queued here waits no longer.
    pub(super) fn release_tickets(&self) {
        let mut tickets = Vec::new();
        self.queue.for_each(|entry| {
            tickets.extend(entry.extra.as_mut().and_then(|extra| extra.ticket.take()));
        });
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            depth: self.queue.len(),
            delivered: self.delivered.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            muted: self.muted_events.load(Ordering::Relaxed),
            coalesced: self.coalesced.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            slowest_ns: self.slowest_ns.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("id", &self.id)
            .field("options", &self.options)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Counts up now, and down when it is dropped.
struct CountedDown<'a>(&'a AtomicU32);

impl<'a> CountedDown<'a> {
    fn new(counter: &'a AtomicU32) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter)
    }
}

impl Drop for CountedDown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
