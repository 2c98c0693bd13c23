//! Whether the output of a session, or of one request, is still taken.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Semaphore;

use crate::abi::Status;

/// Lets output pass until it is closed. Closing it is also how a session or request is told to stop.
pub(crate) struct Gate {
    /// Never has permits: whoever waits for one waits for it to be closed, and learns of it whenever that was.
    closed: Semaphore,
    passing: Mutex<()>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { closed: Semaphore::new(0), passing: Mutex::new(()) }
    }

    /// Lets nothing pass from now on; what is just passing may still arrive. Callable from anywhere, also from what is
    /// passing.
    pub(crate) fn close(&self) {
        self.closed.close();
    }

    /// Closes, and lets arrive what is just passing: nothing does afterwards.
    pub(crate) fn settle(&self) {
        self.close();
        drop(self.passing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_closed()
    }

    /// Resolves when it is closed.
    pub(crate) async fn closed(&self) {
        // The error is what is waited for.
        let _ = self.closed.acquire().await;
    }

    /// Gives an output to the host, unless it is closed, and notes if the host took it. The lock is held during the call
    /// into the host: `settle` could not promise anything otherwise.
    pub(crate) fn pass_noting(&self, output: impl FnOnce() -> Status, note: impl FnOnce()) -> Status {
        let _passing = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed() {
            return Status::CLOSED;
        }
        let status = output();
        if status == Status::ACCEPTED {
            note();
        }
        status
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}
