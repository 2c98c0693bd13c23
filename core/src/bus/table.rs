//! Who receives which event type, within one scope: the host, or one session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;

use super::mailbox::Mailbox;
use crate::event::{EventName, EventType, Overflow};

type Route = Arc<[Arc<Mailbox>]>;

/// Who receives one type of event in one scope: subscriptions of the host, and of the session.
pub(super) struct Receivers {
    pub(super) of_host: Route,
    pub(super) of_session: Option<Route>,
}

impl Receivers {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Mailbox>> {
        self.of_host.iter().chain(self.of_session.iter().flat_map(|route| route.iter()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// One that must not lose events of this type, but is full.
    pub(super) fn find_full(
        &self,
        event: &EventType,
        is_full: impl Fn(&Mailbox) -> bool,
    ) -> Option<&Arc<Mailbox>> {
        self.iter().find(|mailbox| mailbox.overflow(event) == Overflow::Wait && is_full(mailbox))
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Mutex<Entries>,
    /// Receivers by event type; filled when a type is first emitted, emptied when a subscription comes or goes.
    routes: ArcSwap<HashMap<EventName, Route>>,
}

#[derive(Debug, Default)]
struct Entries {
    mailboxes: Vec<Arc<Mailbox>>,
    /// The scope has ended and takes no subscriptions any more.
    closed: bool,
}

impl Entries {
    fn wanting<'a>(&'a self, event: &'a EventType) -> impl Iterator<Item = &'a Arc<Mailbox>> {
        self.mailboxes.iter().filter(|mailbox| mailbox.options.filter.wants(event) && !mailbox.is_closed())
    }
}

impl Table {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscription; `false` when the scope has ended.
    pub(super) fn add(&self, mailbox: Arc<Mailbox>) -> bool {
        let mut entries = self.entries();
        if entries.closed {
            return false;
        }
        entries.mailboxes.push(mailbox);
        self.routes.store(Arc::default());
        true
    }

    /// Removes a subscription; `false` when it was not there.
    pub(super) fn remove(&self, id: u64) -> bool {
        let mut entries = self.entries();
        let found = entries.mailboxes.iter().position(|mailbox| mailbox.id == id);
        let removed = found.map(|at| entries.mailboxes.remove(at));
        self.routes.store(Arc::default());
        drop(entries);
        removed.is_some()
    }

    /// Takes no subscriptions any more, and returns those there are.
    pub(super) fn close(&self) -> Vec<Arc<Mailbox>> {
        let mut entries = self.entries();
        entries.closed = true;
        entries.mailboxes.clone()
    }

    pub(super) fn all(&self) -> Vec<Arc<Mailbox>> {
        self.entries().mailboxes.clone()
    }

    pub(super) fn wants(&self, event: &EventType) -> bool {
        self.entries().wanting(event).next().is_some()
    }

    /// The receivers of an event type.
    pub(super) fn route(&self, event: &EventType) -> Route {
        if let Some(route) = self.routes.load().get(event.name()) {
            return Arc::clone(route);
        }
        // Under the lock, so that a route computed from an old list cannot be stored after a newer one was asked for.
        let entries = self.entries();
        let route: Route = entries.wanting(event).cloned().collect();
        let mut routes = HashMap::clone(&self.routes.load());
        routes.insert(event.event_name().clone(), Arc::clone(&route));
        self.routes.store(Arc::new(routes));
        route
    }
}
