//! The sessions of a plugin, and the commands that they wait for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use antiphon_core::TurnId;
use antiphon_plugin_api::abi::Outcome;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

/// The sessions of a plugin that are open.
#[derive(Debug, Default)]
pub(in crate::plugins) struct Sessions {
    open: Mutex<Open>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    sessions: Vec<Weak<Pending>>,
    count: usize,
    failed: bool,
}

impl Sessions {
    /// Fails what the plugin was asked for, and what it will be asked for.
    pub(in crate::plugins) fn fail(&self) {
        let sessions = {
            let mut open = lock(&self.open);
            open.failed = true;
            std::mem::take(&mut open.sessions)
        };
        sessions.iter().filter_map(Weak::upgrade).for_each(|session| session.fail());
    }

    /// Resolves when there are none.
    pub(in crate::plugins) async fn none(&self) {
        loop {
            let changed = self.changed.notified();
            if lock(&self.open).count == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// Commands of a session that are not finished yet.
#[derive(Debug)]
pub(in crate::plugins) struct Pending {
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    /// The plugin answers no more.
    failed: AtomicBool,
    /// Its close is finished: nothing of it is taken any more. Shared with its sink, which may outlive it.
    over: Arc<AtomicBool>,
    sessions: Arc<Sessions>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut open = lock(&self.sessions.open);
        open.count -= 1;
        // Those that are gone are few: each removes itself and its like.
        open.sessions.retain(|session| session.strong_count() > 0);
        drop(open);
        self.sessions.changed.notify_waiters();
    }
}

/// A command that is not finished yet.
#[derive(Debug)]
struct Waiting {
    finished: oneshot::Sender<Outcome>,
    /// It closes the session.
    closes: bool,
    /// What it says, where it is a synthesis.
    synthesis: Option<Synthesis>,
}

/// A command was never given, or is finished.
#[derive(Debug)]
pub(super) struct NotPending;

/// A synthesis, as its audio events tell of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Synthesis {
    pub(super) id: Uuid,
    pub(super) turn_id: Option<TurnId>,
    /// Pieces of audio so far.
    pub(super) pieces: u64,
}

impl Pending {
    /// Of a new session.
    pub(in crate::plugins) fn of(sessions: &Arc<Sessions>) -> Arc<Self> {
        let mut open = lock(&sessions.open);
        open.count += 1;
        let pending = Arc::new(Self {
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            failed: AtomicBool::new(open.failed),
            over: Arc::default(),
            sessions: Arc::clone(sessions),
        });
        open.sessions.push(Arc::downgrade(&pending));
        pending
    }

    pub(super) fn begin(&self) -> (u64, Completion) {
        self.enter(false)
    }

    /// As [`begin`](Self::begin), for the command that closes the session.
    pub(super) fn begin_close(&self) -> (u64, Completion) {
        self.enter(true)
    }

    fn enter(&self, closes: bool) -> (u64, Completion) {
        let token = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        // Without a sender, the receiver fails at once.
        if !self.failed.load(Ordering::Relaxed) {
            waiting.insert(token, Waiting { finished: sender, closes, synthesis: None });
        }
        drop(waiting);
        (token, Completion { token, receiver })
    }

    fn fail(&self) {
        let mut waiting = lock(&self.waiting);
        self.failed.store(true, Ordering::Relaxed);
        waiting.clear();
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn says(&self, token: u64, id: Uuid, turn_id: Option<TurnId>) {
        if let Some(waiting) = lock(&self.waiting).get_mut(&token) {
            waiting.synthesis = Some(Synthesis { id, turn_id, pieces: 0 });
        }
    }

    /// What is set when the session's close is finished.
    pub(super) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    /// Counts a piece of a command's audio and gives its synthesis, if it is one; an error when the command is not pending.
    pub(super) fn next_piece(&self, token: u64) -> Result<Option<Synthesis>, NotPending> {
        let mut waiting = lock(&self.waiting);
        let command = waiting.get_mut(&token).ok_or(NotPending)?;
        Ok(command.synthesis.as_mut().map(|synthesis| {
            synthesis.pieces += 1;
            *synthesis
        }))
    }

    /// Forgets a command that was not accepted.
    pub(super) fn forget(&self, token: u64) {
        lock(&self.waiting).remove(&token);
    }

    pub(super) fn finish(&self, token: u64, outcome: Outcome) {
        let command = lock(&self.waiting).remove(&token);
        if let Some(waiting) = command {
            if waiting.closes {
                self.over.store(true, Ordering::Release);
            }
            // Nobody waits for it any more: fine.
            let _ = waiting.finished.send(outcome);
        }
    }
}

/// The end of a command.
#[derive(Debug)]
pub struct Completion {
    token: u64,
    receiver: oneshot::Receiver<Outcome>,
}

impl Completion {
    /// The command's token.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Resolves when the command has ended; a plugin that is gone has failed it.
    pub async fn finished(self) -> Outcome {
        self.receiver.await.unwrap_or(Outcome::FAILED)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
