//! What a shard has to visit: a list, and the one wake-up of a burst.

use std::collections::VecDeque;

use super::sync::{Mutex, lock};

/// Things that are ready, in the order in which they became so, and whether somebody is awake to take them.
#[derive(Debug)]
pub(super) struct ReadyList<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    awake: bool,
    closed: bool,
}

impl<T> ReadyList<T> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { ready: VecDeque::new(), awake: false, closed: false }) }
    }

    /// Adds what is ready; `Ok(true)` when the taker sleeps and has to be woken.
    ///
    /// # Errors
    ///
    /// What was to be added, when nobody will take it any more.
    pub(super) fn push(&self, ready: impl IntoIterator<Item = T>) -> Result<bool, Vec<T>> {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            return Err(ready.into_iter().collect());
        }
        state.ready.extend(ready);
        Ok(!std::mem::replace(&mut state.awake, true))
    }

    /// The next; `None` when there is nothing, and then the taker counts as asleep. That is noted by `fall_asleep` under the
    /// lock, so that whoever wakes the taker comes after it.
    pub(super) fn pop(&self, fall_asleep: impl FnOnce()) -> Option<T> {
        let mut state = lock(&self.state);
        let next = state.ready.pop_front();
        state.awake = next.is_some();
        if next.is_none() {
            fall_asleep();
        }
        next
    }

    /// The next, for another taker.
    pub(super) fn steal(&self) -> Option<T> {
        lock(&self.state).ready.pop_front()
    }

    /// Makes the taker count as awake; `false` when it was already.
    pub(super) fn rouse(&self) -> bool {
        !std::mem::replace(&mut lock(&self.state).awake, true)
    }

    /// Nobody will take anything any more.
    pub(super) fn close(&self) -> VecDeque<T> {
        let mut state = lock(&self.state);
        state.closed = true;
        std::mem::take(&mut state.ready)
    }
}
