//! Shards: the few tasks that visit mailboxes and call handlers.
//!
//! A mailbox that has something to do goes onto the ready list of the thread that emits, so that the events of one
//! publisher stay on its processor, and a burst wakes one task once. A shard visits one mailbox after the other, takes
//! up to [`BATCH`] events, and calls the handler for each. A call that has to wait goes on in a task of its own. A shard
//! that runs out of work takes some from the others; what keeps it from its work is the business of `watchdog.rs`.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::task::AtomicWaker;
use tokio::runtime::Handle;

use super::{
    bell::Bell, current, deliver, emit::Inner, entry::Entry, lock, mailbox::Mailbox, ready::ReadyList,
    watchdog,
};
use crate::Clock;

/// Events that a visit takes at a time: enough to spread the cost of the locks, few enough that everybody has their turn
/// soon.
pub(super) const BATCH: usize = 64;

/// Calls after which a shard lets the other tasks of its thread run: tokio's own budget is as large.
const CALLS_PER_TURN: usize = 128;

/// More shards than this do not pay: a thread that emits keeps to one of them.
const MOST: usize = 16;

/// How long a shard that was woken may not get on, in nanoseconds, until whoever emits next wakes another. A publisher that
/// computes for long without awaiting keeps the shard that it woke from running: tokio starts a task that was woken last on
/// the same thread, and lets no other thread take it.
const LATE_NS: u64 = 1_000_000;

/// Instead of a time: it was woken, or got on, and no emitter has looked since.
const JUST_WOKEN: u64 = 1;

/// All shards of a bus. Their tasks end when this is dropped.
pub(super) struct Shards {
    lists: Arc<Lists>,
    runtime: Handle,
    clock: Arc<dyn Clock>,
    started: OnceLock<()>,
    /// Rung whenever a subscription has worked off what it had, or given up what it had.
    pub(super) settled: Bell,
}

/// What the tasks share.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) shards: Box<[Shard]>,
    pub(super) bus: Weak<Inner>,
    /// The bus is gone.
    closed: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Shard {
    ready: ReadyList<Arc<Mailbox>>,
    waker: AtomicWaker,
    has_stand_in: AtomicBool,
    stand_in: Mutex<StandIn>,
    /// When it was last woken, or began a visit; 0 while it sleeps.
    woken_ns: AtomicU64,
    /// How many visits have begun.
    pub(super) visits: AtomicU64,
}

/// Who does the work while the shard's own task is blocked.
#[derive(Debug, Default)]
struct StandIn {
    /// Which one, counted up; the others may go.
    number: u64,
    waker: Option<Waker>,
    /// The shard's own task is gone, and nobody stands in for it any more.
    ended: bool,
}

impl Shards {
    pub(super) fn new(runtime: Handle, clock: Arc<dyn Clock>, bus: Weak<Inner>) -> Self {
        let count = runtime.metrics().num_workers().clamp(1, MOST);
        let shard = |_| Shard {
            ready: ReadyList::new(),
            waker: AtomicWaker::new(),
            has_stand_in: AtomicBool::new(false),
            stand_in: Mutex::default(),
            woken_ns: AtomicU64::new(0),
            visits: AtomicU64::new(0),
        };
        let lists = Lists { shards: (0..count).map(shard).collect(), bus, closed: AtomicBool::new(false) };
        Self { lists: Arc::new(lists), runtime, clock, started: OnceLock::new(), settled: Bell::default() }
    }

    /// Starts the tasks, before the first subscription with a handler.
    pub(super) fn start(&self) {
        self.started.get_or_init(|| {
            for index in 0..self.lists.shards.len() {
                self.runtime.spawn(Runner::new(&self.lists, index, None).run());
            }
            watchdog::watch(&self.lists, &self.runtime);
        });
    }

    /// Puts mailboxes on the ready list of this thread. Not to be called under a lock.
    pub(super) fn schedule(&self, mailboxes: impl IntoIterator<Item = Arc<Mailbox>>) {
        let shard = &self.lists.shards[self.own_index()];
        match shard.ready.push(mailboxes, || shard.awaken()) {
            Ok(false) => {}
            Ok(true) => {
                shard.wake();
                watchdog::rouse();
            }
            Err(mailboxes) => mailboxes.iter().for_each(deliver::abandon),
        }
    }

    /// Wakes another shard if the one of this thread does not get on with what it was given.
    pub(super) fn help_if_late(&self, now_ns: u64) {
        if self.lists.shards.len() == 1 {
            return;
        }
        let index = self.own_index();
        let woken_ns = &self.lists.shards[index].woken_ns;
        match woken_ns.load(Ordering::Relaxed) {
            0 => {}
            JUST_WOKEN => woken_ns.store(now_ns.max(JUST_WOKEN + 1), Ordering::Relaxed),
            since if now_ns.saturating_sub(since) > LATE_NS => {
                woken_ns.store(now_ns, Ordering::Relaxed);
                self.lists.wake_another(index);
            }
            _ => {}
        }
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn bus(&self) -> Option<Arc<Inner>> {
        self.lists.bus.upgrade()
    }

    /// Tells this bus from others.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.lists).addr()
    }

    pub(super) fn mono_ns(&self) -> u64 {
        self.clock.mono_ns()
    }

    /// The shard that visits on this thread, otherwise one by the number of the thread.
    fn own_index(&self) -> usize {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        let count = self.lists.shards.len();
        if count == 1 {
            return 0;
        }
        let visited = current::place().and_then(|place| place.shard);
        visited.or_else(|| NUMBER.try_with(Cell::get).ok()).unwrap_or(0) % count
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("lists", &self.lists).finish_non_exhaustive()
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.lists.closed.store(true, Ordering::SeqCst);
        self.lists.shards.iter().for_each(Shard::wake);
    }
}

impl Lists {
    pub(super) fn is_woken(&self) -> bool {
        self.shards.iter().any(Shard::is_woken)
    }

    /// Wakes the next shard that sleeps, which then takes work from the others.
    pub(super) fn wake_another(&self, index: usize) {
        let count = self.shards.len();
        let mut others = (1..count).map(|step| &self.shards[(index + step) % count]);
        if let Some(shard) = others.find(|shard| shard.ready.rouse(|| shard.awaken())) {
            shard.wake();
        }
    }

    /// Lets a thread of the runtime's blocking pool do the work of a shard whose own task does not run.
    pub(super) fn stand_in(self: &Arc<Self>, index: usize, runtime: &Handle) {
        let shard = &self.shards[index];
        let mut stand_in = lock(&shard.stand_in);
        if stand_in.ended {
            return;
        }
        stand_in.number += 1;
        let former = stand_in.waker.take();
        let runner = Runner::new(self, index, Some(stand_in.number));
        shard.has_stand_in.store(true, Ordering::SeqCst);
        drop(stand_in);
        if let Some(former) = former {
            former.wake();
        }
        let handle = runtime.clone();
        drop(runtime.spawn_blocking(move || handle.block_on(runner.run())));
    }
}

impl Shard {
    /// Whether there is something to do.
    pub(super) fn is_woken(&self) -> bool {
        self.woken_ns.load(Ordering::SeqCst) != 0
    }

    /// Notes under the lock of the ready list that it is woken, so that the two always agree: a shard that was woken, and
    /// whose task does not run all the same, has to be helped.
    fn awaken(&self) {
        // In one order with the watchdog's going to sleep: either it sees this, or `rouse` sees that it sleeps.
        self.woken_ns.store(JUST_WOKEN, Ordering::SeqCst);
    }

    fn wake(&self) {
        self.waker.wake();
        if self.has_stand_in.load(Ordering::SeqCst) {
            let waker = lock(&self.stand_in).waker.clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The shard's own task is back, and who stood in for it can go; or it is gone for good.
    fn dismiss(&self, ended: bool) {
        let mut stand_in = lock(&self.stand_in);
        stand_in.number += 1;
        stand_in.ended = ended;
        let waker = stand_in.waker.take();
        self.has_stand_in.store(false, Ordering::SeqCst);
        drop(stand_in);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Lets the stand-in be woken; `false` when it can go.
    fn register_stand_in(&self, number: u64, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut stand_in = lock(&self.stand_in);
        let is_wanted = stand_in.number == number;
        let unneeded = if is_wanted { stand_in.waker.replace(waker) } else { Some(waker) };
        drop(stand_in);
        drop(unneeded);
        is_wanted
    }
}

/// Works off one shard: its own task, or one that stands in for it.
struct Runner {
    lists: Arc<Lists>,
    index: usize,
    /// Which stand-in it is.
    stand_in: Option<u64>,
    hand: VecDeque<Entry>,
}

impl Runner {
    fn new(lists: &Arc<Lists>, index: usize, stand_in: Option<u64>) -> Self {
        Self { lists: Arc::clone(lists), index, stand_in, hand: VecDeque::with_capacity(BATCH) }
    }

    /// Runs until the bus is gone.
    async fn run(mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let shard = &self.lists.shards[self.index];
        match self.stand_in {
            None => shard.waker.register(context.waker()),
            Some(number) if !shard.register_stand_in(number, context.waker()) => return Poll::Ready(()),
            Some(_) => {}
        }
        let mut calls = 0;
        let mut now_ns = 0;
        loop {
            if self.lists.closed.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            // It may have become so in a call that took long.
            if self.stand_in.is_none() && shard.has_stand_in.load(Ordering::Relaxed) {
                shard.dismiss(false);
            }
            if calls >= CALLS_PER_TURN {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(mailbox) = next(&self.lists.shards, self.index) else { return Poll::Pending };
            shard.visits.store(shard.visits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            if calls == 0 {
                now_ns = mailbox.shards.mono_ns();
            }
            // A visit without events is work too.
            calls += deliver::visit(mailbox, self.index, &mut self.hand, &mut now_ns).max(1);
            if shard.woken_ns.load(Ordering::Relaxed) > JUST_WOKEN {
                shard.woken_ns.store(JUST_WOKEN, Ordering::Relaxed);
            }
        }
    }
}

/// What is ready in a shard, or else in another.
fn next(shards: &[Shard], index: usize) -> Option<Arc<Mailbox>> {
    let fall_asleep = || shards[index].woken_ns.store(0, Ordering::Relaxed);
    if let Some(mailbox) = shards[index].ready.pop(fall_asleep) {
        return Some(mailbox);
    }
    let mut others = (1..shards.len()).map(|step| &shards[(index + step) % shards.len()]);
    others.find_map(|other| other.is_woken().then(|| other.ready.steal()).flatten())
}

impl Drop for Runner {
    /// When the runtime that ran it is gone, nobody will call a handler any more.
    fn drop(&mut self) {
        if self.stand_in.is_some() || self.lists.closed.load(Ordering::SeqCst) {
            return;
        }
        let shard = &self.lists.shards[self.index];
        // A runtime that shuts down waits for the threads that stand in, also those whose own handlers have blocked.
        shard.dismiss(true);
        let left = shard.ready.close();
        left.iter().for_each(deliver::abandon);
        if let Some(bus) = self.lists.bus.upgrade() {
            bus.runtime_is_gone();
        }
    }
}
