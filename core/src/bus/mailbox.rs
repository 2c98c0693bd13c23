//! One subscription: its queue, what it was told when it was made, and how it is doing.

use std::{
    collections::VecDeque,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use serde::Serialize;

use super::{
    bell::Bell,
    current::{self, Handling},
    deliver::{panic_info, report_failure, report_lag, report_suspension},
    entry::{Delivery, Entry, Patience},
    handler::{Handler, Hire, Look, WorkerBox},
    lock,
    options::Options,
    queue::{Ended, Full, Pushed, Queue, Ring},
    scope::Scope,
    shards::Shards,
    subscription::Work,
};
use crate::{
    SessionId,
    event::{Envelope, EventType, Overflow, values::HandlerInfo},
};

/// Time without a single event taken or handled after which a handler counts as stuck, and emitters wait for it no longer: it
/// delays nobody else for ever. What does not fit then is lost, and its loss is told.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Looks in that time. A process that was stopped or starved for longer sees one of them late, not all: its handlers had
/// no chance, and get one.
const STUCK_CHECKS: u32 = 4;

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
    /// Longest call of the handler, from its start to its end, in nanoseconds. Up to 64 calls that follow each other without
    /// awaiting anything are timed together, so for quick handlers this is an upper bound.
    pub slowest_ns: u64,
}

pub(super) struct Mailbox {
    pub(super) id: u64,
    /// Shared by all subscriptions that were told the same.
    pub(super) options: Arc<Options>,
    /// The session that it belongs to; the host's have none.
    pub(super) scope: Option<Weak<Scope>>,
    pub(super) queue: Queue<Entry, WorkerBox>,
    special: Option<Box<Special>>,
    /// Its filter counts for what is wanted.
    interested: AtomicBool,
    /// Where its visits are scheduled.
    pub(super) shards: Arc<Shards>,
    delivered: AtomicU64,
    slowest_ns: AtomicU64,
    rare: OnceLock<Box<Rare>>,
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
}

/// What a subscription has that is not one handler with one worker.
#[derive(Default)]
struct Special {
    /// Makes workers, until the subscription is over.
    hire: Mutex<Option<Hire>>,
    /// What is called at once, instead of a queue.
    tap: Option<Look>,
    /// Calls of the tap that have begun, and those that have ended.
    looks_begun: AtomicU64,
    looks_ended: AtomicU64,
}

/// What few subscriptions ever have: an idle session should cost little.
#[derive(Default)]
struct Rare {
    /// Rung when there is room again, when it is over, and when its handler begins to wait for others.
    bell: Bell,
    /// How often the handler is waiting for the end of other subscriptions.
    stopping: AtomicU32,
    /// How often the handler is waiting until others have handled what it emitted.
    settling: AtomicU32,
    failures: AtomicU64,
    failures_in_a_row: AtomicU32,
    dropped: AtomicU64,
    muted: AtomicU64,
    coalesced: AtomicU64,
    unreported: AtomicU64,
}

impl Mailbox {
    pub(super) fn new(
        id: u64,
        options: Arc<Options>,
        scope: Option<Weak<Scope>>,
        work: Work,
        shards: Arc<Shards>,
    ) -> Self {
        let special = |special: Special| Some(Box::new(special));
        let (concurrency, idle, special) = match work {
            Work::Handler(Handler::One(worker)) => (1, Some(worker), None),
            Work::Handler(Handler::Several(hire)) => {
                let hire = Mutex::new(Some(hire));
                (options.concurrency, None, special(Special { hire, ..Special::default() }))
            }
            Work::Tap(look) => (0, None, special(Special { tap: Some(look), ..Special::default() })),
            Work::Stream => (0, None, None),
        };
        Self {
            id,
            options,
            scope,
            queue: Queue::new(concurrency, idle),
            special,
            interested: AtomicBool::new(true),
            shards,
            delivered: AtomicU64::new(0),
            slowest_ns: AtomicU64::new(0),
            rare: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            muted: AtomicBool::new(false),
            overfull: AtomicBool::new(false),
            lagging: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(super) fn is_tap(&self) -> bool {
        self.special.as_ref().is_some_and(|special| special.tap.is_some())
    }

    /// Something has changed that somebody may wait for.
    pub(super) fn ring(&self) {
        if let Some(rare) = self.rare.get() {
            rare.bell.ring();
        }
    }

    /// Resolves when `condition` holds; see [`Bell::until`].
    pub(super) async fn until(&self, condition: impl Fn() -> bool) {
        self.rare().bell.until(condition).await;
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    fn count_of(&self, counter: impl Fn(&Rare) -> &AtomicU64) -> u64 {
        self.rare.get().map_or(0, |rare| counter(rare).load(Ordering::Relaxed))
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

    /// Queues an event if there is room. The caller does what the `Ring` says after it has released its own locks.
    ///
    /// # Errors
    ///
    /// The event, where [`Mailbox::push_full`] has to decide.
    #[inline]
    pub(super) fn push(&self, entry: Entry) -> Result<Ring, Entry> {
        if self.muted.load(Ordering::Relaxed) {
            return Err(entry);
        }
        self.queue.push(entry, self.options.capacity)
    }

    /// What becomes of an event for which there was no room a moment ago.
    #[cold]
    pub(super) fn push_full(&self, entry: Entry, overflow: Overflow, patience: Patience) -> (Delivery, Ring) {
        if self.muted.load(Ordering::Relaxed) {
            self.count_muted();
            return (Delivery::Spare(entry), Ring::Nobody);
        }
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
                self.count_lost(entry.envelope.event_type());
                Delivery::Lost(entry)
            }
            Pushed::Replaced(entry) => {
                self.rare().coalesced.fetch_add(1, Ordering::Relaxed);
                Delivery::Spare(entry)
            }
            Pushed::Closed(entry) => Delivery::Spare(entry),
        };
        (delivery, ring)
    }

    fn count_lost(&self, event_type: &str) {
        self.rare().dropped.fetch_add(1, Ordering::Relaxed);
        // A lag notice that is lost itself would call for the next one, without end.
        if !event_type.starts_with("bus.") {
            self.rare().unreported.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an event that is not delivered because the subscription, or its type, is muted.
    pub(super) fn count_muted(&self) {
        // A route may still name a subscription that takes nothing any more.
        if !self.queue.is_closed() {
            self.rare().muted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether there is a loss to report at once, because it is the first since something was taken. The others are
    /// reported when something is taken, which for a stuck handler is never.
    pub(super) fn begins_to_lag(&self) -> bool {
        self.count_of(|rare| &rare.unreported) > 0 && !self.lagging.swap(true, Ordering::Relaxed)
    }

    /// Losses since the last call.
    pub(super) fn take_unreported(&self) -> u64 {
        if self.count_of(|rare| &rare.unreported) == 0 {
            return 0;
        }
        self.rare().unreported.swap(0, Ordering::Relaxed)
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
            let room = self.rare().bell.until(|| self.has_room());
            if tokio::time::timeout(STUCK_AFTER / STUCK_CHECKS, room).await.is_ok() {
                return;
            }
            idle_checks = if self.progress() == progress { idle_checks + 1 } else { 0 };
            if idle_checks == STUCK_CHECKS {
                idle_checks = 0;
                self.stuck.store(true, Ordering::SeqCst);
                self.ring();
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
        self.ring();
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
        if self.options.concurrency == 1 && !self.is_tap() {
            self.delivered.store(self.delivered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        if failed {
            self.rare().failures.fetch_add(1, Ordering::Relaxed);
        }
        let Some(limit) = self.options.suspend_after else { return false };
        if !failed {
            self.rare().failures_in_a_row.store(0, Ordering::Relaxed);
            return false;
        }
        let reached = self.rare().failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= limit;
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
        let hire = lock(&self.special.as_ref()?.hire).clone()?;
        Some(hire())
    }

    /// Takes the handler away; the caller drops it outside of all locks.
    #[must_use]
    pub(super) fn take_handler(&self) -> (Option<Hire>, Option<WorkerBox>) {
        let hire = self.special.as_ref().and_then(|special| lock(&special.hire).take());
        (hire, self.queue.take_idle())
    }

    /// Calls the tap, on the thread of the emitter.
    pub(super) fn look(self: &Arc<Self>, envelope: Arc<Envelope>) {
        let Some(special) = &self.special else { return };
        let Some(tap) = &special.tap else { return };
        if self.muted.load(Ordering::Relaxed) {
            return self.count_muted();
        }
        special.looks_begun.fetch_add(1, Ordering::SeqCst);
        if !self.cancelled.load(Ordering::SeqCst) {
            let base = envelope.base();
            let (handling, session_id) = (Handling::of(base), base.session_id);
            let event_type = base.event_type.clone();
            let attempt = || std::panic::catch_unwind(AssertUnwindSafe(|| tap(envelope)));
            let looked = current::look(handling, attempt);
            let is_inside = looked.is_some();
            match looked {
                Some(Ok(true)) => {
                    self.count_call(false);
                }
                Some(Ok(false)) => {}
                Some(Err(panic)) => {
                    if self.count_call(true) {
                        report_suspension(self);
                    }
                    report_failure(self, handling, session_id, &event_type, panic_info(panic));
                }
                None => self.count_lost(event_type.as_str()),
            }
            // Not from where the event was too deep: other taps may look at the notice. Nor from inside a notice.
            if is_inside && self.begins_to_lag() {
                report_lag(self);
                self.lagging.store(false, Ordering::Relaxed);
            }
        }
        special.looks_ended.fetch_add(1, Ordering::SeqCst);
        self.ring();
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
        self.rare().failures_in_a_row.store(0, Ordering::Relaxed);
        self.muted.store(muted, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Refuses further events; those that wait are still handled.
    pub(super) fn close(self: &Arc<Self>) {
        if self.is_tap() {
            // Nothing waits for a tap, so it is over at once, whoever holds the guard.
            self.cancelled.store(true, Ordering::SeqCst);
            if let Some(bus) = self.shards.bus() {
                bus.unlist(self);
            }
        }
        let ring = self.queue.close();
        self.obey(ring);
        self.ring();
    }

    /// Refuses further events and gives up those that wait. The caller drops them last of all, because their
    /// destructors are not ours.
    #[must_use]
    pub(super) fn cancel(self: &Arc<Self>) -> VecDeque<Entry> {
        self.cancelled.store(true, Ordering::SeqCst);
        let (forgotten, ring) = self.queue.cancel();
        self.obey(ring);
        self.ring();
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

    /// Resolves when no call runs any more. For another handler also when this one's handler waits for others itself, for
    /// their end or until they have handled something, because the two might wait for each other.
    pub(super) async fn wait_for_end(&self, from_handler: bool) {
        let is_stopping =
            || from_handler && (self.rare().stopping.load(Ordering::SeqCst) > 0 || self.is_settling());
        let is_over = || match self.queue.has_workers() {
            true => self.queue.is_over(),
            false => self.special.as_ref().is_none_or(|special| {
                special.looks_ended.load(Ordering::SeqCst) == special.looks_begun.load(Ordering::SeqCst)
            }),
        };
        self.rare().bell.until(|| is_over() || is_stopping()).await;
    }

    /// The handler waits for the end of others until the guard is dropped.
    pub(super) fn stopping(&self) -> impl Drop + '_ {
        let guard = CountedDown::new(&self.rare().stopping);
        self.ring();
        guard
    }

    /// The handler waits until others have handled what it emitted. They may wait for it in turn, so whoever waits for
    /// what is queued here waits no longer.
    pub(super) fn settling(&self) -> impl Drop + '_ {
        let guard = CountedDown::new(&self.rare().settling);
        self.release_tickets();
        self.ring();
        guard
    }

    pub(super) fn is_settling(&self) -> bool {
        self.rare.get().is_some_and(|rare| rare.settling.load(Ordering::SeqCst) > 0)
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
            dropped: self.count_of(|rare| &rare.dropped),
            muted: self.count_of(|rare| &rare.muted),
            coalesced: self.count_of(|rare| &rare.coalesced),
            failures: self.count_of(|rare| &rare.failures),
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
