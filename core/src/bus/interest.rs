//! Which event types anybody wants at all: asked before an event is built, so it must cost next to nothing.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
};

use super::lock;
use crate::event::{EventType, Filter};

/// Event types with a flag of their own. A type with a higher number counts as wanted, and its route says the rest.
const FLAGS: usize = 4096;

const KNOWN: u8 = 1;
const WANTED: u8 = 2;
const MUTED: u8 = 4;
const SILENT: u8 = 8;
const CROWDED: u8 = 16;
const WANTED_BY_HOST: u8 = 32;

/// Called after a change of what is wanted.
type Watcher = Arc<dyn Fn() + Send + Sync>;

/// What is wanted on one bus, by the host or in any session.
pub(super) struct Interest {
    flags: Box<[AtomicU8]>,
    state: Mutex<State>,
    watchers: Mutex<Vec<(u64, Watcher)>>,
}

#[derive(Default)]
struct State {
    /// How many subscriptions have a filter. There are few different ones, however many sessions there are.
    filters: HashMap<Filter, Count>,
    /// Types that came up.
    types: HashMap<usize, EventType>,
    muted: Filter,
    silent: Filter,
    watchers: u64,
}

/// Subscriptions with a filter.
#[derive(Default)]
struct Count {
    all: usize,
    of_host: usize,
}

impl Interest {
    pub(super) fn new() -> Self {
        Self {
            flags: (0..FLAGS).map(|_| AtomicU8::new(0)).collect(),
            state: Mutex::default(),
            watchers: Mutex::default(),
        }
    }

    fn flags(&self, event: &EventType) -> Option<&AtomicU8> {
        self.flags.get(event.index())
    }

    /// Whether it is certain that nobody wants a type.
    #[inline]
    pub(super) fn is_unwanted(&self, event: &EventType) -> bool {
        self.flags(event).is_some_and(|flags| {
            let flags = flags.load(Ordering::Relaxed);
            flags & (KNOWN | WANTED) == KNOWN || (flags & KNOWN == 0 && !self.learn(event))
        })
    }

    /// Whether the host itself may want a type, besides sessions that do.
    #[inline]
    pub(super) fn host_may_want(&self, event: &EventType) -> bool {
        self.flags(event).is_none_or(|flags| {
            let flags = flags.load(Ordering::Relaxed);
            flags & KNOWN == 0 || flags & WANTED_BY_HOST != 0
        })
    }

    pub(super) fn is_muted(&self, event: &EventType) -> bool {
        self.flags(event).is_some_and(|flags| flags.load(Ordering::Relaxed) & MUTED != 0)
    }

    pub(super) fn is_silent(&self, event: &EventType) -> bool {
        self.flags(event).is_some_and(|flags| flags.load(Ordering::Relaxed) & SILENT != 0)
    }

    /// Whether this is the first that is heard of very many listeners of a type.
    pub(super) fn begins_to_crowd(&self, event: &EventType) -> bool {
        self.flags(event).is_some_and(|flags| flags.fetch_or(CROWDED, Ordering::Relaxed) & CROWDED == 0)
    }

    /// A type comes up for the first time; whether it is wanted.
    #[cold]
    fn learn(&self, event: &EventType) -> bool {
        let mut state = lock(&self.state);
        let flags = state.flags(event);
        state.types.insert(event.index(), event.clone());
        if let Some(known) = self.flags(event) {
            known.fetch_or(KNOWN | flags, Ordering::Relaxed);
        }
        flags & WANTED != 0
    }

    /// A subscription with this filter begins.
    pub(super) fn add(&self, filter: &Filter, of_host: bool) {
        let mut state = lock(&self.state);
        let count = state.filters.entry(filter.clone()).or_default();
        count.all += 1;
        count.of_host += usize::from(of_host);
        let is_news = count.all == 1 || (of_host && count.of_host == 1);
        let changed = is_news && self.refresh(&state, filter);
        drop(state);
        if changed {
            self.tell();
        }
    }

    /// A subscription with this filter has ended.
    pub(super) fn remove(&self, filter: &Filter, of_host: bool) {
        let mut state = lock(&self.state);
        let Some(count) = state.filters.get_mut(filter) else { return };
        count.all -= 1;
        count.of_host -= usize::from(of_host);
        let is_news = count.all == 0 || (of_host && count.of_host == 0);
        if count.all == 0 {
            state.filters.remove(filter);
        }
        let changed = is_news && self.refresh(&state, filter);
        drop(state);
        if changed {
            self.tell();
        }
    }

    /// Changes what is muted and silent.
    pub(super) fn change(&self, change: impl FnOnce(&mut Filter, &mut Filter)) {
        let mut state = lock(&self.state);
        let State { muted, silent, .. } = &mut *state;
        change(muted, silent);
        self.refresh(&state, &Filter::patterns(["*"]));
    }

    /// Sets the flags of all known types that a filter may be about; whether any became wanted, or unwanted. A filter that
    /// nobody had may be about types that nobody emitted yet, so it always is news.
    fn refresh(&self, state: &State, about: &Filter) -> bool {
        for event in state.types.values().filter(|event| about.wants(event) || event.is_media()) {
            if let Some(flags) = self.flags(event) {
                let crowded = flags.load(Ordering::Relaxed) & CROWDED;
                flags.store(KNOWN | crowded | state.flags(event), Ordering::Relaxed);
            }
        }
        true
    }

    fn tell(&self) {
        let watchers: Vec<_> = lock(&self.watchers).iter().map(|(_, watcher)| Arc::clone(watcher)).collect();
        for watcher in watchers {
            watcher();
        }
    }

    pub(super) fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) -> u64 {
        let mut state = lock(&self.state);
        state.watchers += 1;
        let number = state.watchers;
        drop(state);
        lock(&self.watchers).push((number, Arc::new(watcher)));
        number
    }

    pub(super) fn unwatch(&self, number: u64) {
        let mut watchers = lock(&self.watchers);
        let at = watchers.iter().position(|(other, _)| *other == number);
        let gone = at.map(|at| watchers.remove(at));
        drop(watchers);
        drop(gone);
    }
}

impl State {
    fn flags(&self, event: &EventType) -> u8 {
        let mut wanting = self.filters.iter().filter(|(filter, _)| filter.wants(event)).peekable();
        let mut wanted = if wanting.peek().is_some() { WANTED } else { 0 };
        if wanting.any(|(_, count)| count.of_host > 0) {
            wanted |= WANTED_BY_HOST;
        }
        let muted = if self.muted.wants(event) { MUTED } else { 0 };
        let silent = if self.silent.wants(event) { SILENT } else { 0 };
        wanted | muted | silent
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest").finish_non_exhaustive()
    }
}
