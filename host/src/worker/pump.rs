//! Hands things on to who may have no room for them, in order, without blocking and without losing any.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use antiphon_plugin_api::abi::{Status, WakerBox, WakerV1, abi_stable::erased_types::TD_Opaque};

/// Who takes things.
pub(super) trait Outlet: Send + Sync + 'static {
    /// What it takes.
    type Item: Send + 'static;

    /// Takes a thing, if there is room.
    fn attempt(&self, item: &Self::Item) -> Status;

    /// Calls the waker once there may be room for a thing like this.
    fn wake_when_ready(&self, item: &Self::Item, waker: WakerBox);

    /// A thing was taken, or cannot be.
    fn settled(&self, item: Self::Item, status: Status);
}

/// A queue in front of an outlet. Whoever adds to it, or is woken for it, hands on what is there, one at a time.
pub(super) struct Pump<O: Outlet> {
    outlet: O,
    state: Mutex<State<O::Item>>,
}

struct State<T> {
    queue: VecDeque<T>,
    /// Somebody is handing on.
    busy: bool,
    /// Somebody was woken meanwhile.
    again: bool,
    /// What has no room is given up.
    closing: bool,
}

impl<O: Outlet> Pump<O> {
    pub(super) fn new(outlet: O) -> Arc<Self> {
        let state = State { queue: VecDeque::new(), busy: false, again: false, closing: false };
        Arc::new(Self { outlet, state: Mutex::new(state) })
    }

    pub(super) fn outlet(&self) -> &O {
        &self.outlet
    }

    /// Adds a thing. The sender's window bounds the queue.
    pub(super) fn push(self: &Arc<Self>, item: O::Item) {
        self.lock().queue.push_back(item);
        self.run();
    }

    /// Adds a thing that goes before all others, but for what is just being handed on. Things that it makes pointless
    /// are returned; `closing`: so is that one, if there is no room for it.
    pub(super) fn push_front(
        self: &Arc<Self>,
        item: O::Item,
        closing: bool,
        is_pointless: impl Fn(&O::Item) -> bool,
    ) -> Vec<O::Item> {
        let pointless = {
            let mut state = self.lock();
            let (mut pointless, mut kept) = (Vec::new(), VecDeque::new());
            for item in state.queue.drain(..) {
                if is_pointless(&item) {
                    pointless.push(item);
                } else {
                    kept.push_back(item);
                }
            }
            state.queue = kept;
            state.queue.push_front(item);
            state.closing |= closing;
            pointless
        };
        self.run();
        pointless
    }

    /// Hands on what there is room for.
    fn run(self: &Arc<Self>) {
        let mut item = {
            let mut state = self.lock();
            if state.busy {
                state.again = true;
                return;
            }
            let Some(item) = state.queue.pop_front() else { return };
            state.busy = true;
            item
        };
        loop {
            let mut status = self.outlet.attempt(&item);
            if status == Status::FULL {
                self.outlet
                    .wake_when_ready(&item, WakerBox::from_value(Wake(Arc::downgrade(self)), TD_Opaque));
                // Room that came before the waker was registered would not ring it.
                status = self.outlet.attempt(&item);
            }
            if status == Status::FULL {
                let mut state = self.lock();
                if !state.closing {
                    if std::mem::take(&mut state.again) {
                        // There may be room since.
                        continue;
                    }
                    state.queue.push_front(item);
                    state.busy = false;
                    return;
                }
            }
            self.outlet.settled(item, status);
            let mut state = self.lock();
            state.again = false;
            match state.queue.pop_front() {
                Some(next) => item = next,
                None => {
                    state.busy = false;
                    return;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<O::Item>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Weak, because the outlet itself mostly keeps the waker.
struct Wake<O: Outlet>(Weak<Pump<O>>);

impl<O: Outlet> WakerV1 for Wake<O> {
    fn wake(&self) {
        if let Some(pump) = self.0.upgrade() {
            pump.run();
        }
    }
}
