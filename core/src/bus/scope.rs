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

use super::{emit::Inner, lock, mailbox::Mailbox};
use crate::{
    SessionId,
    event::{EventType, Overflow},
};

/// Subscriptions of a scope up to which its list has no spare room: there may be very many sessions.
const FEW: usize = 4;

/// The host, or one session.
pub(super) struct Scope {
    pub(super) session_id: Option<SessionId>,
    /// Where the session is listed; nowhere for the host.
    bus: Weak<Inner>,
    pub(super) order: Mutex<Order>,
    table: Mutex<Table>,
    /// Counts up whenever a subscription comes or goes.
    version: AtomicU64,
}

/// The order of a scope's events, and for each type that was emitted here who receives it.
#[derive(Default)]
pub(super) struct Order {
    seq: u64,
    routes: HashMap<usize, Arc<Route>, BuildHasherDefault<ByIndex>>,
    /// The versions of the host's table and of the scope's own that the routes were made from.
    made_from: (u64, u64),
}

#[derive(Default)]
struct Table {
    /// By id, in ascending order.
    mailboxes: Vec<Arc<Mailbox>>,
    /// The scope has ended and takes no subscriptions any more.
    closed: bool,
}

/// Who receives one type of event in one scope: subscriptions of the host, and of the session, and last those that are
/// taps.
pub(super) type Route = [Receiver];

pub(super) struct Receiver {
    pub(super) mailbox: Arc<Mailbox>,
    /// What the subscription does with this type when it is full.
    pub(super) overflow: Overflow,
}

impl Receiver {
    pub(super) fn is_tap(&self) -> bool {
        self.mailbox.tap.is_some()
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
pub(super) type Stale = Option<HashMap<usize, Arc<Route>, BuildHasherDefault<ByIndex>>>;

impl Scope {
    pub(super) fn new(session_id: Option<SessionId>, bus: Weak<Inner>) -> Self {
        Self { session_id, bus, order: Mutex::default(), table: Mutex::default(), version: AtomicU64::new(0) }
    }

    /// Who receives a type, as of now.
    pub(super) fn route(&self, host: &Scope, event: &EventType) -> Arc<Route> {
        let mut order = lock(&self.order);
        let (route, _, stale) = order.route(self, host, event);
        let route = Arc::clone(route);
        drop(order);
        drop(stale);
        route
    }

    /// Adds a subscription; `false` when the scope has ended.
    pub(super) fn add(&self, mailbox: &Arc<Mailbox>) -> bool {
        let mut table = lock(&self.table);
        if table.closed {
            return false;
        }
        let at = table.mailboxes.partition_point(|other| other.id < mailbox.id);
        if table.mailboxes.len() < FEW {
            table.mailboxes.reserve_exact(1);
        }
        table.mailboxes.insert(at, Arc::clone(mailbox));
        self.version.fetch_add(1, Ordering::Release);
        true
    }

    /// Removes a subscription; `false` when it was not there.
    pub(super) fn remove(&self, id: u64) -> bool {
        let mut table = lock(&self.table);
        let found = table.mailboxes.binary_search_by_key(&id, |mailbox| mailbox.id);
        let removed = found.map(|at| table.mailboxes.remove(at)).ok();
        self.version.fetch_add(1, Ordering::Release);
        drop(table);
        removed.is_some()
    }

    pub(super) fn all(&self) -> Vec<Arc<Mailbox>> {
        lock(&self.table).mailboxes.clone()
    }

    /// Takes no subscriptions any more; returns those that are here.
    pub(super) fn seal(&self) -> Vec<Arc<Mailbox>> {
        let mut table = lock(&self.table);
        table.closed = true;
        table.mailboxes.clone()
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

impl Order {
    /// Who receives a type, and the number of the last event.
    pub(super) fn route(
        &mut self,
        scope: &Scope,
        host: &Scope,
        event: &EventType,
    ) -> (&Arc<Route>, &mut u64, Stale) {
        let versions = (host.version.load(Ordering::Acquire), scope.version.load(Ordering::Acquire));
        let stale = (self.made_from != versions).then(|| {
            self.made_from = versions;
            std::mem::take(&mut self.routes)
        });
        let route = self.routes.entry(event.index()).or_insert_with(|| make_route(scope, host, event));
        (route, &mut self.seq, stale)
    }
}

fn make_route(scope: &Scope, host: &Scope, event: &EventType) -> Arc<Route> {
    let mut mailboxes = host.all();
    if scope.session_id.is_some() {
        mailboxes.extend(scope.all());
    }
    mailboxes.retain(|mailbox| mailbox.options.filter.wants(event) && !mailbox.queue.is_closed());
    // Stable, so that those who subscribed first are served first.
    mailboxes.sort_by_key(|mailbox| mailbox.tap.is_some());
    let receiver = |mailbox: Arc<Mailbox>| Receiver { overflow: mailbox.overflow(event), mailbox };
    mailboxes.into_iter().map(receiver).collect()
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
