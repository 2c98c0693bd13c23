//! The bounded queue of one subscription.

use std::{
    collections::VecDeque,
    panic::Location,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::sync::Notify;

use super::emit::Scope;
use crate::{
    SessionId,
    event::{Envelope, EventType, Filter, Overflow, values::HandlerInfo},
};

/// Events that a handler takes from its mailbox at a time: enough to spread the cost of the lock, few enough that a
/// shutdown is noticed soon.
const BATCH: usize = 16;

/// Time without a single event taken or handled after which a handler counts as stuck, and emitters wait for it no longer: it
/// delays nobody else for ever. What does not fit then is lost, and its loss is told.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Looks in that time. A process that was stopped or starved for longer sees one of them late, not all: its handlers had
/// no chance, and get one.
const STUCK_CHECKS: u32 = 4;

/// What a subscription is told when it is made.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) name: String,
    pub(super) location: &'static Location<'static>,
    pub(super) filter: Filter,
    pub(super) capacity: usize,
    pub(super) overflow: Option<Overflow>,
    pub(super) timeout: Option<Duration>,
}

/// Counters of one subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Events waiting now.
    pub depth: usize,
    /// Events handed to the handler.
    pub delivered: u64,
    /// Events lost because the queue was full.
    pub dropped: u64,
    /// Calls of the handler that failed.
    pub failures: u64,
}

/// How far an emitter may fill the queue of a subscription that must not lose events.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// Does not wait: up to the capacity.
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

#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) id: u64,
    pub(super) options: Options,
    /// The session that it belongs to; the host's have none.
    pub(super) scope: Option<Weak<Scope>>,
    queue: Mutex<Queue>,
    /// Rung when there is something to take, or nothing will come any more. One waits: the task, or the stream.
    pub(super) items: Notify,
    /// Rung when there is room again.
    pub(super) room: Notify,
    /// Rung when the task has ended, or its handler begins to wait for the end of others.
    ended: Notify,
    pub(super) delivered: AtomicU64,
    pub(super) failures: AtomicU64,
    dropped: AtomicU64,
    unreported: AtomicU64,
    /// The queue holds twice its capacity, so that further emitters wait before they push. Beside the queue, because every
    /// `emit_wait` asks.
    overfull: AtomicBool,
    /// A loss was reported since something was last taken.
    lagging: AtomicBool,
    /// How often something was taken, or a call of the handler ended.
    progress: AtomicU64,
    /// Emitters have waited for room in vain; until there is progress, none waits any more.
    stuck: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<Envelope>>,
    /// Taken by the handler's task and not finished yet; the first of them is being handled.
    in_hand: usize,
    closed: bool,
    /// Closed, and what waits is not wanted any more.
    cancelled: bool,
    /// There is a task, which has not ended; streams have none.
    has_task: bool,
    /// How often the handler is waiting for the end of other subscriptions.
    stopping: usize,
}

/// What became of an event at one mailbox.
#[derive(Debug)]
pub(super) enum Pushed {
    Queued,
    /// Queued, and now the emitter should wait for room if it can.
    Crowded,
    /// Something was lost; the value is dropped by the caller, outside of all locks.
    Lost {
        _victim: Arc<Envelope>,
    },
    Closed,
}

impl Mailbox {
    pub(super) fn new(id: u64, options: Options, scope: Option<Weak<Scope>>, has_task: bool) -> Self {
        Self {
            id,
            options,
            scope,
            queue: Mutex::new(Queue { has_task, ..Queue::default() }),
            items: Notify::new(),
            room: Notify::new(),
            ended: Notify::new(),
            delivered: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            unreported: AtomicU64::new(0),
            overfull: AtomicBool::new(false),
            lagging: AtomicBool::new(false),
            progress: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn info(&self) -> HandlerInfo {
        HandlerInfo {
            subscription_id: self.id,
            name: self.options.name.clone(),
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

    /// Queues an event. The caller rings `items`, and `room` if something was lost, after it has released its own locks.
    pub(super) fn push(&self, envelope: &Arc<Envelope>, overflow: Overflow, patience: Patience) -> Pushed {
        let mut queue = self.queue();
        if queue.closed {
            return Pushed::Closed;
        }
        let capacity = self.options.capacity;
        let full = queue.waiting.len() >= capacity;
        match overflow {
            _ if !full => {
                queue.waiting.push_back(Arc::clone(envelope));
                Pushed::Queued
            }
            Overflow::Wait if queue.waiting.len() < self.limit(patience) => {
                queue.waiting.push_back(Arc::clone(envelope));
                self.note_overfull(&queue);
                Pushed::Crowded
            }
            Overflow::DropOldest => {
                queue.waiting.push_back(Arc::clone(envelope));
                let victim = queue.waiting.pop_front().expect("a full queue holds at least one event");
                drop(queue);
                self.count_loss(&victim);
                Pushed::Lost { _victim: victim }
            }
            Overflow::Disconnect => {
                queue.closed = true;
                self.note_overfull(&queue);
                drop(queue);
                self.count_loss(envelope);
                Pushed::Lost { _victim: Arc::clone(envelope) }
            }
            Overflow::Wait | Overflow::DropNewest => {
                drop(queue);
                self.count_loss(envelope);
                Pushed::Lost { _victim: Arc::clone(envelope) }
            }
        }
    }

    fn count_loss(&self, lost: &Envelope) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        // A lag notice that is lost itself would call for the next one, without end.
        if !lost.event_type().starts_with("bus.") {
            self.unreported.fetch_add(1, Ordering::Relaxed);
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
        let queue = self.queue();
        queue.closed || self.is_stuck() || queue.waiting.len() < self.options.capacity
    }

    /// Whether there is something to wait for even before the push.
    pub(super) fn is_overfull(&self) -> bool {
        self.overfull.load(Ordering::Relaxed) && !self.is_stuck()
    }

    fn note_overfull(&self, queue: &Queue) {
        let limit = Patience::Handler.limit(self.options.capacity);
        self.overfull.store(!queue.closed && queue.waiting.len() >= limit, Ordering::Relaxed);
    }

    fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Nobody waits for a stuck handler, so its queue has a limit again.
    fn limit(&self, patience: Patience) -> usize {
        let patience = if self.is_stuck() { Patience::Handler } else { patience };
        patience.limit(self.options.capacity)
    }

    /// Resolves when the queue is under its capacity, or closed, or its handler is stuck.
    pub(super) async fn wait_for_room(&self) {
        let mut idle_checks = 0;
        loop {
            let progress = self.progress.load(Ordering::Relaxed);
            let room = wait_until(&self.room, || self.has_room());
            if tokio::time::timeout(STUCK_AFTER / STUCK_CHECKS, room).await.is_ok() {
                return;
            }
            idle_checks = if self.progress.load(Ordering::Relaxed) == progress { idle_checks + 1 } else { 0 };
            if idle_checks == STUCK_CHECKS {
                idle_checks = 0;
                self.stuck.store(true, Ordering::Relaxed);
                self.room.notify_waiters();
                let (handler, location) = (&self.options.name, self.options.location.to_string());
                let seconds = STUCK_AFTER.as_secs();
                tracing::warn!(
                    handler,
                    location,
                    "an event handler is stuck: no call of it has ended for {seconds} s"
                );
            }
        }
    }

    fn progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        if self.is_stuck() {
            self.stuck.store(false, Ordering::Relaxed);
        }
    }

    fn took(&self) {
        self.progress();
        self.lagging.store(false, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    /// Moves a batch into `hand`; `false` when the mailbox is closed and empty.
    pub(super) fn take(&self, hand: &mut VecDeque<Arc<Envelope>>) -> bool {
        let mut queue = self.queue();
        let count = queue.waiting.len().min(BATCH);
        hand.extend(queue.waiting.drain(..count));
        queue.in_hand = count;
        self.note_overfull(&queue);
        let open = !queue.closed || count > 0;
        drop(queue);
        if count > 0 {
            self.took();
        }
        open
    }

    /// One event instead of a batch, for streams.
    pub(super) fn take_one(&self) -> Result<Option<Arc<Envelope>>, Ended> {
        let mut queue = self.queue();
        let taken = queue.waiting.pop_front();
        self.note_overfull(&queue);
        let closed = queue.closed;
        drop(queue);
        match taken {
            Some(envelope) => {
                self.took();
                self.delivered.fetch_add(1, Ordering::Relaxed);
                Ok(Some(envelope))
            }
            None if closed => Err(Ended),
            None => Ok(None),
        }
    }

    pub(super) fn finished_one(&self) {
        self.queue().in_hand -= 1;
        // A batch may take its time: as long as one call after the other ends, the handler is not stuck.
        self.progress();
    }

    pub(super) fn is_idle(&self) -> bool {
        let queue = self.queue();
        queue.waiting.is_empty() && queue.in_hand == 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queue().closed
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.queue().cancelled
    }

    pub(super) fn has_task(&self) -> bool {
        self.queue().has_task
    }

    /// Refuses further events; those that wait are still handled.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        self.note_overfull(&queue);
        drop(queue);
        self.items.notify_one();
        self.room.notify_waiters();
    }

    /// Refuses further events and gives up those that wait. The caller drops them last of all, because their
    /// destructors are not ours.
    #[must_use]
    pub(super) fn cancel(&self) -> VecDeque<Arc<Envelope>> {
        let mut queue = self.queue();
        queue.closed = true;
        queue.cancelled = true;
        let forgotten = std::mem::take(&mut queue.waiting);
        self.note_overfull(&queue);
        drop(queue);
        self.items.notify_one();
        self.room.notify_waiters();
        forgotten
    }

    /// The task is gone: finished, or dropped by its runtime.
    pub(super) fn task_ended(&self) {
        let mut queue = self.queue();
        queue.has_task = false;
        queue.in_hand = 0;
        drop(queue);
        self.ended.notify_waiters();
    }

    /// Resolves when the task has ended. For another handler also when this one's handler waits for the end of others,
    /// because the two might wait for each other.
    pub(super) async fn wait_for_end(&self, from_handler: bool) {
        let over = || {
            let queue = self.queue();
            !queue.has_task || (from_handler && queue.stopping > 0)
        };
        wait_until(&self.ended, over).await;
    }

    /// The handler waits for the end of others until the guard is dropped.
    pub(super) fn stopping(&self) -> impl Drop + '_ {
        struct Stopping<'a>(&'a Mailbox);
        impl Drop for Stopping<'_> {
            fn drop(&mut self) {
                self.0.queue().stopping -= 1;
            }
        }
        self.queue().stopping += 1;
        self.ended.notify_waiters();
        Stopping(self)
    }

    pub(super) fn stats(&self) -> Stats {
        let queue = self.queue();
        let depth = queue.waiting.len() + queue.in_hand.saturating_sub(1);
        drop(queue);
        Stats {
            depth,
            delivered: self.delivered.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// Nothing will come any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;

/// Resolves when `condition` holds; `bell` rings, with `notify_waiters`, whenever it may have come to hold.
pub(super) async fn wait_until(bell: &Notify, condition: impl Fn() -> bool) {
    loop {
        let mut rung = std::pin::pin!(bell.notified());
        rung.as_mut().enable();
        if condition() {
            return;
        }
        rung.await;
    }
}
