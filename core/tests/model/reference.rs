//! What the bus is to do, without tasks, locks and wakers.

use std::collections::VecDeque;

use antiphon_core::{bus::Stats, event::Overflow};

use crate::{Act, How, Kind, SESSIONS, Spec, Takes};

/// An event as the model knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) number: u64,
    pub(crate) session: Option<usize>,
    pub(crate) is_tick: bool,
    pub(crate) act: Act,
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) spec: Spec,
    waiting: VecDeque<Item>,
    /// Calls that stand at the gate.
    pub(crate) at_gate: Vec<Item>,
    /// Everything it saw, in order.
    pub(crate) seen: Vec<u64>,
    pub(crate) stats: Stats,
    is_muted: bool,
    pub(crate) is_closed: bool,
}

/// The bus.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) all: Vec<Expected>,
    ticks_are_muted: bool,
    pub(crate) is_closed: [bool; SESSIONS],
}

impl Reference {
    pub(crate) fn subscribe(&mut self, spec: Spec) {
        self.all.push(Expected {
            spec,
            waiting: VecDeque::new(),
            at_gate: Vec::new(),
            seen: Vec::new(),
            stats: Stats::default(),
            is_muted: false,
            is_closed: false,
        });
    }

    pub(crate) fn mute_ticks(&mut self, muted: bool) {
        self.ticks_are_muted = muted;
    }

    /// `false` when the event is not accepted: somebody that must not lose it is full, or overfull.
    pub(crate) fn emit(&mut self, item: Item, how: How) -> bool {
        let receivers = || self.all.iter().filter(|expected| expected.receives(item));
        let mut waits = receivers()
            .filter(|expected| expected.spec.kind != Kind::Tap && expected.spec.overflow == Overflow::Wait);
        let refused = match how {
            How::Plainly | How::Settling => false,
            How::Waiting => waits.any(|expected| expected.waiting.len() >= 2 * expected.spec.capacity),
            How::AsPlugin => waits.any(|expected| expected.waiting.len() >= expected.spec.capacity),
        };
        if refused {
            return false;
        }
        let is_muted = item.is_tick && self.ticks_are_muted;
        for expected in self.all.iter_mut().filter(|expected| expected.receives(item)) {
            if is_muted || expected.is_muted {
                expected.stats.muted += 1;
            } else {
                expected.push(item, matches!(how, How::Waiting | How::AsPlugin));
            }
        }
        true
    }

    /// Everybody does what there is to do.
    pub(crate) fn rest(&mut self) {
        self.all.iter_mut().for_each(Expected::rest);
    }

    pub(crate) fn close(&mut self, session: usize) {
        self.is_closed[session] = true;
        let ours = self.all.iter_mut().filter(|expected| expected.spec.session == Some(session));
        ours.for_each(|expected| expected.is_closed = true);
    }

    /// Whether some handler has still to do with an event.
    pub(crate) fn is_unsettled(&self, number: u64) -> bool {
        self.all.iter().any(|expected| {
            let is_handler = matches!(expected.spec.kind, Kind::Handler { .. });
            let mut its = expected.waiting.iter().chain(&expected.at_gate);
            is_handler && its.any(|item| item.number == number)
        })
    }
}

impl Expected {
    fn receives(&self, item: Item) -> bool {
        let is_taken = match self.spec.takes {
            Takes::Ticks => item.is_tick,
            Takes::PluginEvents => !item.is_tick,
            Takes::All => true,
        };
        is_taken && !self.is_closed && (self.spec.session.is_none() || self.spec.session == item.session)
    }

    fn push(&mut self, item: Item, patient: bool) {
        if self.spec.kind == Kind::Tap {
            return self.begin(item);
        }
        if self.waiting.len() < self.spec.capacity {
            return self.waiting.push_back(item);
        }
        match self.spec.overflow {
            Overflow::Wait if patient => self.waiting.push_back(item),
            Overflow::Wait | Overflow::DropNewest => self.stats.dropped += 1,
            Overflow::DropOldest => self.replace_oldest(item),
            Overflow::Coalesce => {
                let is_same = |older: &Item| (older.is_tick, older.session) == (item.is_tick, item.session);
                match self.waiting.iter().position(is_same) {
                    Some(at) => {
                        self.waiting.remove(at);
                        self.waiting.push_back(item);
                        self.stats.coalesced += 1;
                    }
                    None => self.replace_oldest(item),
                }
            }
            Overflow::Disconnect => {
                self.stats.dropped += 1;
                self.is_closed = true;
            }
            other => unreachable!("the cases have no {other:?}"),
        }
    }

    fn replace_oldest(&mut self, item: Item) {
        self.waiting.pop_front();
        self.waiting.push_back(item);
        self.stats.dropped += 1;
    }

    fn rest(&mut self) {
        let Kind::Handler { concurrency, .. } = self.spec.kind else { return };
        while self.at_gate.len() < concurrency as usize
            && let Some(item) = self.waiting.pop_front()
        {
            self.begin(item);
        }
    }

    /// A call begins, and ends if it need not wait.
    fn begin(&mut self, item: Item) {
        self.seen.push(item.number);
        let act = if self.spec.makes_trouble { item.act } else { Act::Return };
        match act {
            Act::Wait if self.spec.kind != Kind::Tap => return self.at_gate.push(item),
            // A tap has nothing to return.
            Act::Fail if self.spec.kind != Kind::Tap => self.stats.failures += 1,
            Act::Panic => self.stats.failures += 1,
            _ => {}
        }
        self.end();
    }

    fn end(&mut self) {
        self.stats.delivered += 1;
        if matches!(self.spec.kind, Kind::Handler { once: true, .. }) {
            self.cancel();
        }
    }

    /// `false` when no call waits.
    pub(crate) fn open_gate(&mut self) -> bool {
        let is_waiting = !self.at_gate.is_empty();
        if is_waiting {
            self.at_gate.remove(0);
            self.end();
        }
        is_waiting
    }

    /// Opens the gate for one call, after which others may stand there; `false` when none waits.
    pub(crate) fn open_gate_and_rest(&mut self) -> bool {
        let is_waiting = self.open_gate();
        self.rest();
        is_waiting
    }

    /// The reader of a stream takes one.
    pub(crate) fn receive(&mut self) -> Option<u64> {
        let item = self.waiting.pop_front()?;
        self.seen.push(item.number);
        self.stats.delivered += 1;
        Some(item.number)
    }

    /// Gives up what waits.
    pub(crate) fn cancel(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
    }

    pub(crate) fn mute(&mut self, muted: bool) {
        self.is_muted = muted;
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { depth: self.waiting.len(), ..self.stats }
    }
}
