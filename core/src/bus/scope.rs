//! The host, or one session: its own order, who is subscribed, and who receives which type.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use smallvec::SmallVec;

use super::{emit::Inner, lock, mailbox::Mailbox};
use crate::{
    SessionId,
    event::{EventType, Overflow},
};

/// Subscriptions of a scope up to which an emitter looks at each, and the list has no spare room: there may be very many
/// sessions, and few have more.
const FEW: usize = 8;

/// The host, or one session.
pub(super) struct Scope {
    pub(super) session_id: Option<SessionId>,
    /// Where the session is listed; nowhere for the host.
    bus: Weak<Inner>,
    pub(super) state: Mutex<State>,
    /// Counts up whenever a subscription comes or goes.
    version: AtomicU64,
}

/// The order of a scope's events, and its own subscriptions.
#[derive(Default)]
pub(super) struct State {
    last: Last,
    /// By id, in ascending order.
    mailboxes: Vec<Arc<Mailbox>>,
    /// The scope has ended and takes no subscriptions any more.
    closed: bool,
    /// Where it is not just a few: for each type that was emitted here, who receives it.
    routes: Option<Box<Routes>>,
}

/// The last event of a scope: the next has the next number, and no earlier time.
#[derive(Default)]
pub(super) struct Last {
    pub(super) seq: u64,
    pub(super) mono_ns: u64,
}

#[derive(Default)]
pub(super) struct Routes {
    by_type: HashMap<usize, Arc<Route>, BuildHasherDefault<ByIndex>>,
    /// The version of the host that they were made from.
    made_from: u64,
}

/// The receivers of an event.
pub(super) enum Receivers<'a> {
    /// Found among few.
    Few(SmallVec<[(&'a Arc<Mailbox>, Overflow); FEW]>),
    Route(&'a Route),
}

/// Who receives one type of event in one scope: subscriptions of the host, and of the session.
pub(super) type Route = [Receiver];

pub(super) struct Receiver {
    pub(super) mailbox: Arc<Mailbox>,
    /// What the subscription does with this type when it is full.
    pub(super) overflow: Overflow,
}

impl Receiver {
    pub(super) fn is_tap(&self) -> bool {
        self.mailbox.is_tap()
    }
}

/// A subscription that must not lose such events, but is full.
pub(super) fn find_full(route: &Route, is_full: impl Fn(&Mailbox) -> bool) -> Option<&Arc<Mailbox>> {
    let full = |receiver: &&Receiver| {
        receiver.overflow == Overflow::Wait && !receiver.is_tap() && is_full(&receiver.mailbox)
    };
    route.iter().find(full).map(|receiver| &receiver.mailbox)
}

/// Routes that are out of date; dropped by the caller outside of all locks.
pub(super) type Stale = Option<Box<Routes>>;

impl Scope {
    pub(super) fn new(session_id: Option<SessionId>, bus: Weak<Inner>) -> Self {
        Self { session_id, bus, state: Mutex::default(), version: AtomicU64::new(0) }
    }

    /// Who receives a type, as of now.
    pub(super) fn route(&self, host: &Scope, event: &EventType) -> Arc<Route> {
        let mut state = lock(&self.state);
        let (route, _, stale) = state.route(self, host, event);
        let route = Arc::clone(route);
        drop(state);
        drop(stale);
        route
    }

    /// Adds a subscription; `false` when the scope has ended.
    pub(super) fn add(&self, mailbox: &Arc<Mailbox>) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        let at = state.mailboxes.partition_point(|other| other.id < mailbox.id);
        if state.mailboxes.len() < FEW {
            state.mailboxes.reserve_exact(1);
        }
        state.mailboxes.insert(at, Arc::clone(mailbox));
        let stale = state.routes.take();
        self.version.fetch_add(1, Ordering::Release);
        drop(state);
        drop(stale);
        true
    }

    /// Removes a subscription; `false` when it was not there.
    pub(super) fn remove(&self, id: u64) -> bool {
        let mut state = lock(&self.state);
        let found = state.mailboxes.binary_search_by_key(&id, |mailbox| mailbox.id);
        let removed = found.map(|at| state.mailboxes.remove(at)).ok();
        let stale = state.routes.take();
        self.version.fetch_add(1, Ordering::Release);
        drop(state);
        drop(stale);
        removed.is_some()
    }

    pub(super) fn all(&self) -> Vec<Arc<Mailbox>> {
        lock(&self.state).mailboxes.clone()
    }

    /// Takes no subscriptions any more; returns those that are here.
    pub(super) fn seal(&self) -> Vec<Arc<Mailbox>> {
        let mut state = lock(&self.state);
        state.closed = true;
        state.mailboxes.clone()
    }

    /// Takes a session off the list of the bus.
    pub(super) fn unlist(&self) {
        if let (Some(session_id), Some(bus)) = (self.session_id, self.bus.upgrade()) {
            bus.forget_session(session_id);
        }
    }
}

impl Drop for Scope {
    /// The last handle on the session, or on the bus, is gone, so that nobody can emit here any more.
    fn drop(&mut self) {
        for mailbox in self.seal() {
            mailbox.close();
        }
        self.unlist();
    }
}

impl State {
    /// The receivers of a type, and the last event.
    #[inline]
    pub(super) fn receivers(
        &mut self,
        scope: &Scope,
        host: &Scope,
        event: &EventType,
        host_wants: bool,
    ) -> (Receivers<'_>, &mut Last, Stale) {
        if self.mailboxes.len() <= FEW && (scope.session_id.is_none() || !host_wants) {
            let wanting = self.mailboxes.iter().filter(|mailbox| mailbox.options.wants(event));
            let few = wanting.map(|mailbox| (mailbox, mailbox.overflow(event))).collect();
            return (Receivers::Few(few), &mut self.last, None);
        }
        let (route, last, stale) = self.route(scope, host, event);
        (Receivers::Route(route), last, stale)
    }

    fn route(&mut self, scope: &Scope, host: &Scope, event: &EventType) -> (&Arc<Route>, &mut Last, Stale) {
        let Self { last, mailboxes, routes, .. } = self;
        let version = host.version.load(Ordering::Acquire);
        let is_stale = routes.as_ref().is_some_and(|routes| routes.made_from != version);
        let stale = if is_stale { routes.take() } else { None };
        let routes =
            routes.get_or_insert_with(|| Box::new(Routes { made_from: version, ..Routes::default() }));
        let route = routes.by_type.entry(event.index()).or_insert_with(|| {
            let of_host = if scope.session_id.is_some() { host.all() } else { Vec::new() };
            make_route(of_host.iter().chain(&*mailboxes), event)
        });
        (route, last, stale)
    }
}

fn make_route<'a>(mailboxes: impl Iterator<Item = &'a Arc<Mailbox>>, event: &EventType) -> Arc<Route> {
    let wanting = mailboxes.filter(|mailbox| mailbox.options.wants(event) && !mailbox.queue.is_closed());
    wanting
        .map(|mailbox| Receiver { overflow: mailbox.overflow(event), mailbox: Arc::clone(mailbox) })
        .collect()
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

/// Hashes the index of an event type, which needs no mixing but in its high bits.
#[derive(Default)]
pub(super) struct ByIndex(u64);

impl Hasher for ByIndex {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, index: usize) {
        // Fibonacci hashing: 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
