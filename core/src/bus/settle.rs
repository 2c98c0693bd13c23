//! Waiting until every handler is done with one event.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::bell::Bell;

/// Counts the handlers that are not done with an event.
#[derive(Debug, Default)]
pub(super) struct Pending {
    left: AtomicUsize,
    handlers: AtomicUsize,
    failures: AtomicUsize,
    bell: Bell,
}

/// One handler's part; it is done when this is dropped, also if it never gets the event.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Pending>);

/// What became of an event that was emitted with `emit_and_settle`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Handlers that it was queued for.
    pub handlers: usize,
    /// Calls that failed; each is an `ExceptionEvent` besides.
    pub failures: usize,
    /// Subscriptions that lost it, or an older event, for want of room.
    pub lost: usize,
}

impl Pending {
    pub(super) fn ticket(self: &Arc<Self>) -> Ticket {
        self.left.fetch_add(1, Ordering::SeqCst);
        self.handlers.fetch_add(1, Ordering::Relaxed);
        Ticket(Arc::clone(self))
    }

    pub(super) async fn settled(&self, lost: usize) -> Settled {
        self.bell.until(|| self.left.load(Ordering::SeqCst) == 0).await;
        Settled {
            handlers: self.handlers.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            lost,
        }
    }
}

impl Ticket {
    pub(super) fn failed(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.0.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.bell.ring();
        }
    }
}
