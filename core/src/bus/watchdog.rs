//! The watchdog: one thread that finds shards that do not get on, and handlers that block theirs.
//!
//! It sleeps while no shard is awake. Otherwise it looks every five milliseconds, and counts looks instead of time, so
//! that a process which was stopped for a while is not taken for one whose handlers hang.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{
    current::{Mark, Place},
    deliver,
    emit::Inner,
    shards::Lists,
};

/// Time between two looks: what a handler may keep its thread for without anybody else being asked for help.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks that find the same call, or a shard in the same place, after which it counts as blocked: a quarter of a second, in which a person begins
/// to notice and no handler should compute.
const BLOCKED_LOOKS: u32 = 50;

/// Looks without anything to see until the watchdog sleeps: one second.
const IDLE_LOOKS: u32 = 200;

struct Watchdog {
    thread: OnceLock<Thread>,
    sleeps: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    buses: Vec<(Weak<Lists>, Handle)>,
    threads: Vec<Weak<Mark>>,
}

static WATCHDOG: Watchdog = Watchdog {
    thread: OnceLock::new(),
    sleeps: AtomicBool::new(false),
    seen: Mutex::new(Seen { buses: Vec::new(), threads: Vec::new() }),
};

/// What was found at the last look.
#[derive(Default)]
struct Memory {
    /// By thread: the call, and at how many looks it has been the same.
    calls: HashMap<usize, (u64, u32)>,
    /// By bus and shard: visits begun, and at how many looks they have been as many.
    visits: HashMap<(usize, usize), (u64, u32)>,
}

/// Watches the shards of a bus from now on, as long as they exist.
pub(super) fn watch(lists: &Arc<Lists>, runtime: &Handle) {
    let mut seen = WATCHDOG.seen();
    seen.buses.retain(|(lists, _)| lists.strong_count() > 0);
    seen.buses.push((Arc::downgrade(lists), runtime.clone()));
    drop(seen);
    WATCHDOG.thread.get_or_init(|| {
        let started = thread::Builder::new().name("antiphon-watchdog".to_owned()).spawn(run);
        match started {
            Ok(handle) => handle.thread().clone(),
            Err(error) => {
                tracing::warn!("no thread to find blocked handlers with: {error}");
                thread::current()
            }
        }
    });
    rouse();
}

/// Watches a thread that calls handlers, until it ends.
pub(super) fn watch_thread(mark: &Arc<Mark>) {
    let mut seen = WATCHDOG.seen();
    seen.threads.retain(|mark| mark.strong_count() > 0);
    seen.threads.push(Arc::downgrade(mark));
}

/// A shard was woken, or a call polled in a task of its own.
pub(super) fn rouse() {
    if WATCHDOG.sleeps.load(Ordering::SeqCst)
        && let Some(thread) = WATCHDOG.thread.get()
    {
        WATCHDOG.sleeps.store(false, Ordering::SeqCst);
        thread.unpark();
    }
}

/// The bus whose shards are at an address.
pub(super) fn find_bus(address: usize) -> Option<Arc<Inner>> {
    let found = WATCHDOG.seen().buses.iter().find(|(lists, _)| lists.as_ptr().addr() == address)?.0.upgrade();
    found?.bus.upgrade()
}

impl Watchdog {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run() {
    let mut memory = Memory::default();
    let mut idle = 0;
    loop {
        let (buses, threads) = {
            let seen = WATCHDOG.seen();
            let buses: Vec<_> = seen
                .buses
                .iter()
                .filter_map(|(lists, runtime)| Some((lists.upgrade()?, runtime.clone())))
                .collect();
            let threads: Vec<_> = seen.threads.iter().filter_map(Weak::upgrade).collect();
            (buses, threads)
        };
        let busy = memory.look(&buses, &threads);
        drop((buses, threads));
        idle = if busy { 0 } else { idle + 1 };
        if idle < IDLE_LOOKS {
            thread::park_timeout(LOOK_EVERY);
            continue;
        }
        WATCHDOG.sleeps.store(true, Ordering::SeqCst);
        let is_woken = {
            let seen = WATCHDOG.seen();
            seen.buses.iter().any(|(lists, _)| lists.upgrade().is_some_and(|lists| lists.is_woken()))
                || seen.threads.iter().any(|mark| mark.upgrade().is_some_and(|mark| mark.read().is_some()))
        };
        // Whoever wakes a shard, or polls a call, after this look sees that the watchdog sleeps.
        if !is_woken {
            thread::park();
        }
        WATCHDOG.sleeps.store(false, Ordering::SeqCst);
        idle = 0;
    }
}

impl Memory {
    /// Looks once; whether there was anything to see.
    fn look(&mut self, buses: &[(Arc<Lists>, Handle)], threads: &[Arc<Mark>]) -> bool {
        let mut calls = HashMap::new();
        for mark in threads {
            let Some((call, place)) = mark.read() else { continue };
            let thread = Arc::as_ptr(mark).addr();
            let looks = match self.calls.get(&thread) {
                Some((former, looks)) if *former == call => looks + 1,
                _ => 0,
            };
            calls.insert(thread, (call, looks));
            if looks == BLOCKED_LOOKS {
                blocked(buses, place, LOOK_EVERY * BLOCKED_LOOKS);
            }
        }
        let mut busy = !calls.is_empty();
        self.calls = calls;
        let mut visits = HashMap::new();
        for (lists, runtime) in buses {
            let address = Arc::as_ptr(lists).addr();
            for (index, shard) in lists.shards.iter().enumerate() {
                if !shard.is_woken() {
                    continue;
                }
                busy = true;
                let begun = shard.visits.load(Ordering::Relaxed);
                let looks = match self.visits.get(&(address, index)) {
                    Some((former, looks)) if *former == begun => looks + 1,
                    _ => 0,
                };
                visits.insert((address, index), (begun, looks));
                if looks > 0 {
                    // Nothing began since the last look: its task does not run, or a handler keeps it.
                    lists.wake_another(index);
                }
                if looks == BLOCKED_LOOKS {
                    // Nor is there another that could help.
                    lists.stand_in(index, runtime);
                }
            }
        }
        self.visits = visits;
        busy
    }
}

/// A handler blocks its thread: the fact is told.
fn blocked(buses: &[(Arc<Lists>, Handle)], place: Place, time: Duration) {
    let found = buses.iter().find(|(lists, _)| Arc::as_ptr(lists).addr() == place.bus);
    let bus = found.and_then(|(lists, _)| lists.bus.upgrade());
    if let Some(mailbox) = bus.and_then(|bus| bus.mailbox(place.mailbox)) {
        deliver::report_blocked(&mailbox, time);
    }
}
