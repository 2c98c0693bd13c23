//! What the running handler is handling: for what it emits, for calls that must not wait for themselves, and for the
//! watchdog.

use std::{
    cell::Cell,
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use uuid::Uuid;

use super::{mailbox::Mailbox, watchdog};
use crate::{TurnId, event::BaseEvent};

/// The event that a handler handles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handling {
    pub(super) event_id: Uuid,
    pub(super) turn_id: Option<TurnId>,
}

impl Handling {
    pub(super) fn of(base: &BaseEvent) -> Self {
        Self { event_id: base.event_id, turn_id: base.turn_id }
    }
}

/// Whose handler a thread runs: a bus by the address of what its shards share, and a subscription by its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bus: usize,
    pub(super) mailbox: u64,
    /// The shard that visits; none in a task of a call.
    pub(super) shard: Option<usize>,
}

impl Place {
    pub(super) fn of(mailbox: &Mailbox, shard: Option<usize>) -> Self {
        Self { bus: mailbox.shards.address(), mailbox: mailbox.id, shard }
    }
}

/// What the watchdog reads of a thread.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// Odd while a handler runs; another number for each call.
    call: AtomicU64,
    bus: AtomicUsize,
    mailbox: AtomicU64,
}

impl Mark {
    /// The call that runs now, and whose it is.
    pub(super) fn read(&self) -> Option<(u64, Place)> {
        let call = self.call.load(Ordering::Acquire);
        let place = Place {
            bus: self.bus.load(Ordering::Relaxed),
            mailbox: self.mailbox.load(Ordering::Relaxed),
            shard: None,
        };
        // The place may have changed in between, and then it is that of another call.
        let is_same = self.call.load(Ordering::Acquire) == call;
        (call % 2 == 1 && is_same).then_some((call, place))
    }
}

pub(super) struct Thread {
    place: Cell<Option<Place>>,
    handling: Cell<Option<Handling>>,
    /// Taps that run inside each other.
    depth: Cell<u32>,
    mark: OnceLock<Arc<Mark>>,
}

impl Thread {
    /// Runs a piece of the handler's own code. What it throws is caught. What it emits until the next piece has this cause.
    pub(super) fn handle<R>(&self, handling: Handling, code: impl FnOnce() -> R) -> thread::Result<R> {
        let call = &self.mark().call;
        let number = call.load(Ordering::Relaxed);
        self.handling.set(Some(handling));
        call.store(number + 1, Ordering::Release);
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(code));
        call.store(number + 2, Ordering::Release);
        outcome
    }

    fn mark(&self) -> &Mark {
        self.mark.get_or_init(|| {
            let mark = Arc::default();
            watchdog::watch_thread(&mark);
            mark
        })
    }

    fn note(&self, place: Option<Place>) {
        self.place.set(place);
        if let Some(place) = place {
            let mark = self.mark();
            mark.bus.store(place.bus, Ordering::Relaxed);
            mark.mailbox.store(place.mailbox, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static THREAD: Thread = const {
        Thread { place: Cell::new(None), handling: Cell::new(None), depth: Cell::new(0), mark: OnceLock::new() }
    };
}

/// Does something at the handler of a subscription.
pub(super) fn at<R>(place: Place, code: impl FnOnce(&Thread) -> R) -> R {
    struct Left<'a>(&'a Thread, Option<Place>, Option<Handling>);
    impl Drop for Left<'_> {
        fn drop(&mut self) {
            self.0.note(self.1);
            self.0.handling.set(self.2);
        }
    }
    THREAD.with(|thread| {
        let _left = Left(thread, thread.place.get(), thread.handling.get());
        thread.note(Some(place));
        code(thread)
    })
}

/// Taps that may run inside each other, because one emits what another looks at.
const DEEPEST: u32 = 16;

/// Lets a tap look at an event; `None` when too many taps run inside each other already.
pub(super) fn look<R>(handling: Handling, tap: impl FnOnce() -> R) -> Option<R> {
    struct Looked(Option<Handling>);
    impl Drop for Looked {
        fn drop(&mut self) {
            THREAD.with(|thread| {
                thread.handling.set(self.0);
                thread.depth.set(thread.depth.get() - 1);
            });
        }
    }
    let _looked = THREAD.with(|thread| {
        let depth = thread.depth.get();
        (depth < DEEPEST).then(|| {
            thread.depth.set(depth + 1);
            Looked(thread.handling.replace(Some(handling)))
        })
    })?;
    Some(tap())
}

/// What the handler that runs on this thread is handling.
pub(super) fn handling() -> Option<Handling> {
    THREAD.try_with(|thread| thread.handling.get()).ok().flatten()
}

/// Where this thread is.
pub(super) fn place() -> Option<Place> {
    THREAD.try_with(|thread| thread.place.get()).ok().flatten()
}

/// Whether the handler that runs on this thread is that of this subscription.
pub(super) fn is_own(mailbox: &Mailbox) -> bool {
    place().is_some_and(|place| place.bus == mailbox.shards.address() && place.mailbox == mailbox.id)
}

/// The subscription whose handler runs on this thread.
pub(super) fn mailbox() -> Option<Arc<Mailbox>> {
    let place = place()?;
    watchdog::find_bus(place.bus)?.mailbox(place.mailbox)
}
