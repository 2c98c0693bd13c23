//! Waiting for a condition that somebody else brings about.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::Notify;

/// Rung whenever a condition may have come to hold. Costs one load while nobody waits.
#[derive(Debug, Default)]
pub(super) struct Bell(OnceLock<Box<Hung>>);

/// A bell that somebody waits for, or has.
#[derive(Debug, Default)]
struct Hung {
    notify: Notify,
    waiting: AtomicU32,
}

impl Bell {
    /// To be called after the change, outside of all locks.
    pub(super) fn ring(&self) {
        if let Some(hung) = self.0.get()
            && hung.waiting.load(Ordering::SeqCst) > 0
        {
            hung.notify.notify_waiters();
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
        let hung = self.0.get_or_init(Box::default);
        hung.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&hung.waiting);
        loop {
            let mut rung = std::pin::pin!(hung.notify.notified());
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
