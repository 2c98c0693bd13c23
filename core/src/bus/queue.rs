//! The bounded queue of one subscription, and who works it off: the state machine alone, without events, tasks or clocks.
//!
//! A queue is worked off by at most `concurrency` *workers* at a time. A worker is a shard's visit, or the task of a call
//! that had to wait. There is one visit at a time, and where there may be several workers all calls begin in visits, so
//! that they begin in order. A queue that has something to do and may have another worker is *scheduled*: on exactly one
//! ready list, until a shard visits it. Every method says what its caller has to do next, because nothing is rung, and
//! nothing of the user's dropped, under the lock.

use std::{collections::VecDeque, task::Waker};

use super::sync::{Mutex, MutexGuard, lock};

/// Room for items that an empty queue keeps, so that a burst does not cost its memory for ever.
const KEEP: usize = 64;

/// What the caller has to do after it has released its own locks.
#[derive(Debug)]
#[must_use = "otherwise nobody works the queue off"]
pub(super) enum Ring {
    /// Nothing.
    Nobody,
    /// Put the queue on a ready list.
    Shard,
    /// Wake who waits on the stream.
    Stream(Waker),
}

/// What becomes of a worker after its call, or its visit.
#[derive(Debug)]
#[must_use = "a worker that is not told goes on for ever"]
pub(super) enum Leave {
    /// It ends; there is nothing to do, or others are at it.
    Idle,
    /// It ends, and the queue goes onto a ready list.
    Reschedule,
    /// It was the last, and nothing will come any more: the subscription is over.
    Over,
}

/// What a full queue does with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Takes it all the same while it holds fewer than this.
    Stretch(usize),
    DropOldest,
    DropNewest,
    /// Replaces an item with the same key, else the oldest.
    Coalesce,
    Close,
}

/// What became of an item.
#[derive(Debug)]
pub(super) enum Pushed<T> {
    Queued,
    /// Queued beyond the capacity.
    Crowded,
    /// Another, or the item itself, was lost for want of room.
    Lost(T),
    /// An older item with the same key was replaced.
    Replaced(T),
    /// Nothing is taken any more.
    Closed(T),
}

/// Items that can stand for each other.
pub(super) trait Keyed {
    /// Whether a newer item makes this one superfluous.
    fn has_same_key(&self, newer: &Self) -> bool;
}

/// The queue, and who is at it.
///
/// `W` is what a worker works with. One of them lies idle here while no worker has it.
pub(super) struct Queue<T, W> {
    state: Mutex<State<T, W>>,
    /// How many workers there may be; a stream has none, its reader takes the items.
    concurrency: u32,
}

struct State<T, W> {
    waiting: VecDeque<T>,
    idle: Option<W>,
    workers: u32,
    scheduled: bool,
    /// One of the workers is a shard's visit. There is no other beside it, so that calls begin in order.
    visited: bool,
    closed: bool,
    /// A worker was told that it was the last.
    ending: bool,
    /// Whoever works here was stopped in the middle.
    abandoned: bool,
    over: bool,
    reader: Option<Waker>,
}

impl<T: Keyed, W> Queue<T, W> {
    /// An open queue. Where there may be no worker, it has a reader.
    pub(super) fn new(concurrency: u32, idle: Option<W>) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            idle,
            workers: 0,
            scheduled: false,
            visited: false,
            closed: false,
            ending: false,
            abandoned: false,
            over: false,
            reader: None,
        };
        Self { state: Mutex::new(state), concurrency }
    }

    fn state(&self) -> MutexGuard<'_, State<T, W>> {
        lock(&self.state)
    }

    /// Queues an item if there is room for it.
    ///
    /// # Errors
    ///
    /// The item, where [`Queue::push_full`] has to decide.
    #[inline]
    pub(super) fn push(&self, item: T, capacity: usize) -> Result<Ring, T> {
        let mut state = self.state();
        if state.closed || state.waiting.len() >= capacity {
            return Err(item);
        }
        if state.waiting.capacity() == 0 {
            // There may be very many queues in which never more than one item waits.
            state.waiting.reserve_exact(1);
        }
        state.waiting.push_back(item);
        Ok(state.ring(self.concurrency))
    }

    /// Queues an item, perhaps at the cost of another; returns besides how many wait now.
    pub(super) fn push_full(&self, item: T, capacity: usize, full: Full) -> (Pushed<T>, Ring, usize) {
        let mut state = self.state();
        if state.closed {
            return (Pushed::Closed(item), Ring::Nobody, 0);
        }
        let pushed = if state.waiting.len() < capacity {
            state.waiting.push_back(item);
            Pushed::Queued
        } else {
            match full {
                Full::Stretch(limit) if state.waiting.len() < limit => {
                    state.waiting.push_back(item);
                    Pushed::Crowded
                }
                Full::Stretch(_) | Full::DropNewest => return (Pushed::Lost(item), Ring::Nobody, capacity),
                Full::Coalesce => match state.waiting.iter().position(|older| older.has_same_key(&item)) {
                    Some(at) => {
                        let older = state.waiting.remove(at).expect("it was found there");
                        state.waiting.push_back(item);
                        Pushed::Replaced(older)
                    }
                    None => state.replace_oldest(item),
                },
                Full::DropOldest => state.replace_oldest(item),
                Full::Close => {
                    state.closed = true;
                    return (Pushed::Lost(item), state.ring(self.concurrency), capacity);
                }
            }
        };
        (pushed, state.ring(self.concurrency), state.waiting.len())
    }

    /// A shard begins its visit and takes up to `most` items, and what it works with if that lies idle.
    pub(super) fn begin_visit(&self, hand: &mut VecDeque<T>, most: usize) -> Option<W> {
        let mut state = self.state();
        state.scheduled = false;
        state.visited = true;
        state.workers += 1;
        let count = state.waiting.len().min(most);
        hand.extend(state.waiting.drain(..count));
        state.idle.take()
    }

    /// A shard's visit ends.
    pub(super) fn end_visit(&self, with: Option<W>) -> (Leave, Option<W>) {
        let mut state = self.state();
        state.visited = false;
        state.leave(self.concurrency, with)
    }

    /// The task of a call ends.
    pub(super) fn end_task(&self, with: Option<W>) -> (Leave, Option<W>) {
        self.state().leave(self.concurrency, with)
    }

    /// The worker of a shard's visit goes on in a task of its own. What it still has in hand goes back to the front.
    pub(super) fn promote(&self, hand: &mut VecDeque<T>) -> Leave {
        let mut state = self.state();
        while let Some(item) = hand.pop_back() {
            state.waiting.push_front(item);
        }
        state.visited = false;
        if state.schedule(self.concurrency) { Leave::Reschedule } else { Leave::Idle }
    }

    /// The task of a call takes the next item; without one, it ends with [`Queue::end_task`]. Among several workers it gets
    /// none, because it might overtake the visit that is under way.
    pub(super) fn next(&self) -> Option<T> {
        if self.concurrency > 1 { None } else { self.state().waiting.pop_front() }
    }

    /// The reader of a stream takes one; `None` when nothing is there yet. Otherwise it is woken for the next.
    pub(super) fn take(&self, reader: Option<Waker>) -> Result<Option<T>, Ended> {
        let mut state = self.state();
        let taken = state.waiting.pop_front();
        let outcome = if taken.is_none() && state.closed { Err(Ended) } else { Ok(taken) };
        let waits = matches!(outcome, Ok(None));
        let unneeded = if waits { std::mem::replace(&mut state.reader, reader) } else { reader };
        drop(state);
        drop(unneeded);
        outcome
    }

    /// Takes nothing any more; what waits is still worked off.
    pub(super) fn close(&self) -> Ring {
        let mut state = self.state();
        state.closed = true;
        state.ring(self.concurrency)
    }

    /// Takes nothing any more, and gives up what waits.
    pub(super) fn cancel(&self) -> (VecDeque<T>, Ring) {
        let mut state = self.state();
        state.closed = true;
        let forgotten = std::mem::take(&mut state.waiting);
        (forgotten, state.ring(self.concurrency))
    }

    /// Nobody will work the queue off any more, because the runtime is gone.
    pub(super) fn abandon(&self) -> VecDeque<T> {
        let mut state = self.state();
        state.closed = true;
        state.abandoned = true;
        std::mem::take(&mut state.waiting)
    }

    /// Takes away what lies idle; the caller drops it outside of all locks.
    pub(super) fn take_idle(&self) -> Option<W> {
        self.state().idle.take()
    }

    /// What workers work with is gone, and whoever waits for the end may know.
    pub(super) fn end(&self) {
        self.state().over = true;
    }

    /// Applies `change` to each waiting item.
    pub(super) fn for_each(&self, mut change: impl FnMut(&mut T)) {
        self.state().waiting.iter_mut().for_each(&mut change);
    }

    pub(super) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// Nothing waits, nobody is at work, and what was closed is over.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        let ends = state.closed && self.concurrency > 0 && !state.over;
        state.waiting.is_empty() && state.workers == 0 && !ends
    }

    /// Whether it has workers, and no reader.
    pub(super) fn has_workers(&self) -> bool {
        self.concurrency > 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Nothing runs any more, nor will, and what workers worked with is gone.
    pub(super) fn is_over(&self) -> bool {
        self.state().over
    }
}

impl<T, W> State<T, W> {
    fn replace_oldest(&mut self, item: T) -> Pushed<T> {
        let oldest = self.waiting.pop_front();
        self.waiting.push_back(item);
        Pushed::Lost(oldest.expect("a full queue holds at least one item"))
    }

    /// Whether the queue is to be put on a ready list now. A closed one is visited a last time, which ends it.
    fn schedule(&mut self, concurrency: u32) -> bool {
        let has_work = !self.waiting.is_empty() || (self.closed && self.workers == 0 && !self.ending);
        let wanted = has_work && !self.scheduled && !self.visited && self.workers < concurrency;
        self.scheduled |= wanted;
        wanted
    }

    fn ring(&mut self, concurrency: u32) -> Ring {
        if self.schedule(concurrency) {
            return Ring::Shard;
        }
        match self.reader.take() {
            Some(reader) => Ring::Stream(reader),
            None => Ring::Nobody,
        }
    }

    fn leave(&mut self, concurrency: u32, with: Option<W>) -> (Leave, Option<W>) {
        let unneeded = if self.idle.is_none() { std::mem::replace(&mut self.idle, with) } else { with };
        (self.count_out(concurrency), unneeded)
    }

    fn count_out(&mut self, concurrency: u32) -> Leave {
        self.workers = self.workers.saturating_sub(1);
        if self.abandoned {
            return if std::mem::replace(&mut self.ending, true) { Leave::Idle } else { Leave::Over };
        }
        if self.closed && self.waiting.is_empty() && self.workers == 0 && !self.scheduled {
            return if std::mem::replace(&mut self.ending, true) { Leave::Idle } else { Leave::Over };
        }
        if self.waiting.is_empty() && self.waiting.capacity() > KEEP {
            self.waiting = VecDeque::new();
        }
        if self.schedule(concurrency) { Leave::Reschedule } else { Leave::Idle }
    }
}

/// Nothing will come any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;
