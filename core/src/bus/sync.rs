//! The locks and atomics of what `loom` models: its own under `--cfg antiphon_loom`, otherwise those of std.

#[cfg(antiphon_loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(antiphon_loom))]
pub(super) use std::sync::{Mutex, MutexGuard};

/// Locks. Nothing under a lock of the bus panics, so a poisoned lock guards nothing that is broken.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
