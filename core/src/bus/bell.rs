//! Waiting for a condition that somebody else brings about.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// Rung whenever a condition may have come to hold. Costs one load while nobody waits.
#[derive(Debug, Default)]
pub(super) struct Bell {
    notify: Notify,
    waiting: AtomicU32,
}

impl Bell {
    /// To be called after the change, outside of all locks.
    pub(super) fn ring(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.notify.notify_waiters();
        }
    }

    /// Resolves when `condition` holds, which must be something that takes a lock or reads a `SeqCst` atomic: then either
    /// this sees the change, or the change sees that somebody waits.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only gives up the wait.
    pub(super) async fn until(&self, condition: impl Fn() -> bool) {
        if condition() {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        loop {
            let mut rung = std::pin::pin!(self.notify.notified());
            rung.as_mut().enable();
            if condition() {
                return;
            }
            rung.await;
        }
    }
}

struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
